"""`idempotent`: a tool that need not run again for the same arguments. Where the work of a task is done anew, by a
retry, a resume or after a crash, it gives its kept result.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, overload
from weakref import WeakKeyDictionary

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command

from agentbudget.errors import BudgetWarning, ConfigurationError, UnknownOutcomeError
from agentbudget.governor.task import Task
from agentbudget.governor.values import Kind, Outcome
from agentbudget.langchain import identity, work
from agentbudget.langchain.acting import current_tasks
from agentbudget.langchain.arguments import arguments
from agentbudget.langchain.runs import Run
from agentbudget.retries.once import Done, Once
from agentbudget.retries.results import Row, State
from agentbudget.retries.sameness import digest

if TYPE_CHECKING:
    from agentbudget.governor.governor import Governor

_T = TypeVar("_T")

_TUPLE, _PLAIN = b"t", b"p"
_THIS_CALL: Final = "agentbudget:this-call"
"""Stands in kept results for the id of the call they are given to."""
_SCOPES: WeakKeyDictionary[Task, str] = WeakKeyDictionary()
"""What the keys of a task begin with, once it was found out."""


class ResultCodec:
    """Results as LangGraph's checkpoints hold them: plain values, messages, documents, pydantic models, dataclasses."""

    def __init__(self) -> None:
        self._serde = JsonPlusSerializer()

    def encode(self, value: Any) -> bytes:
        """Raises TypeError for what cannot be kept: generators, handles, cycles."""
        kind, data = self._serde.dumps_typed(list(value) if isinstance(value, tuple) else value)
        return b"%s%s:%s" % (_TUPLE if isinstance(value, tuple) else _PLAIN, kind.encode(), data)

    def decode(self, payload: bytes) -> Any:
        """What was encoded, anew each time."""
        kind, _, data = payload[1:].partition(b":")
        value = self._serde.loads_typed((kind.decode(), data))
        return tuple(value) if payload[:1] == _TUPLE else value


CODEC: Final = ResultCodec()


class CallCodec(ResultCodec):
    """Results of a call that knows its id: messages that answer it answer whichever call they are given to."""

    def __init__(self, call_id: str) -> None:
        super().__init__()
        self._id = call_id

    def encode(self, value: Any) -> bytes:
        """As for any result."""
        return super().encode(_answering(value, self._id, _THIS_CALL))

    def decode(self, payload: bytes) -> Any:
        """As for any result."""
        return _answering(super().decode(payload), _THIS_CALL, self._id)


def _answering(value: Any, old: str, new: str) -> Any:
    """*value* with what answers the tool call *old* answering *new*: messages, alone or in the update of a command."""
    if isinstance(value, ToolMessage):
        return value.model_copy(update={"tool_call_id": new}) if value.tool_call_id == old else value
    if isinstance(value, Command):
        return replace(value, update=_answering(value.update, old, new))
    if isinstance(value, dict):
        return {name: _answering(each, old, new) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_answering(each, old, new) for each in value)
    return value


class Place(NamedTuple):
    """Where a call is made."""

    task: Task
    run: Run | None
    node: str
    """The execution of a step of the outermost graph: equal when it is executed again; empty outside any graph."""

    @classmethod
    def here(cls) -> Place | None:
        """The place of the calling code; None where no task pays."""
        run = identity.surrounding_run()
        tasks = current_tasks(run)
        return cls(tasks[0], run, node_here()) if tasks else None

    @property
    def scope(self) -> str:
        """What the keys of its task begin with: the id of the outermost task, also where it is gone on with under
        another id, in another process."""
        root = self.task.root
        known = _SCOPES.get(root)
        if known is None:
            known = _SCOPES[root] = root.id if not root.thread else self._of_thread(root)
        return known

    def _of_thread(self, root: Task) -> str:
        again = _resumes(self.run)
        found: list[str] = []

        def change(row: Row | None) -> Row:
            if row is None or not again:
                row = Row(state=State.DONE, at=root.governor.clock.now(), payload=root.id.encode())
            found.append(row.payload.decode())
            return row

        root.governor.results.store.change(f"thread/{root.thread}", change)
        return found[0]


def node_here() -> str:
    """The execution of a step of the outermost graph that this code is part of; empty outside any graph."""
    namespace = work.metadata().get("langgraph_checkpoint_ns") or work.configurable().get("checkpoint_ns") or ""
    return str(namespace).partition("|")[0]


@overload
def idempotent(tool: _T, /) -> _T: ...
@overload
def idempotent(
    *, per: Literal["task", "node"] = "task", on_unknown: Literal["raise", "repeat"] = "raise"
) -> Callable[[_T], _T]: ...
def idempotent(tool: Any = None, /, *, per: str = "task", on_unknown: str = "raise") -> Any:
    """Say that a tool, or the function a tool is made of, need not run again for the same arguments.

    Within a task the same arguments then give the kept result of the first run that returned; who asks meanwhile waits
    for it. An error is not kept. The kept result costs nothing: the price of the tool counts as avoided. Outside any
    task, and with arguments that cannot be compared, it just runs.

    At most once, while the store (`Governor(results=...)`) survives: a run that was begun and whose end nobody knows is
    not repeated; `UnknownOutcomeError` says what to do.

    Args:
        tool: a tool with a function (`@tool`, `StructuredTool`), of which a copy is returned; or a function.
        per: `"task"`: once in the whole task. `"node"`: once in each execution of a node, so that only what is
            executed again gives kept results: for tools that answer differently as the task goes on.
        on_unknown: `"repeat"` runs it again although it may have taken effect, for tools that bear it.

    Raises:
        ConfigurationError: not a tool with a function, or an option that cannot mean anything.
    """
    for option, value, known in (("per", per, ("task", "node")), ("on_unknown", on_unknown, ("raise", "repeat"))):
        if value not in known:
            raise ConfigurationError(f"{option}={value!r}: one of {', '.join(map(repr, known))}.")
    if tool is None:
        return lambda given: idempotent_tool(given, per=per, on_unknown=on_unknown)
    return idempotent_tool(tool, per=per, on_unknown=on_unknown)


def idempotent_tool(tool: Any, *, per: str, on_unknown: str) -> Any:
    """*tool* with its functions done once; see `idempotent`."""
    if isinstance(tool, BaseTool):
        functions = {name: getattr(tool, name, None) for name in ("func", "coroutine")}
        origin = next((_origin(each) for each in functions.values() if each is not None), "")
        wrapped = {
            name: _done_once(_Rule(function, tool.name, per, on_unknown == "repeat", origin, tool.args_schema))
            for name, function in functions.items()
            if function is not None
        }
        if wrapped:
            return tool.model_copy(update=wrapped)
    elif callable(tool) and hasattr(tool, "__name__"):
        return _done_once(_Rule(tool, tool.__name__, per, on_unknown == "repeat", _origin(tool), None))
    raise ConfigurationError(
        f"idempotent: {tool!r} is neither a function nor a tool made of one (@tool, StructuredTool)."
    )


def resolve(governor: Governor, key: str, result: Any) -> None:
    """Say that the call of an `UnknownOutcomeError` took effect: *result* is what it gives from now on."""
    governor.results.resolve(key, CODEC.encode(result))


# -- inside ------------------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """A call that is done once."""

    once: Once
    key: str
    run: Run | None
    codec: ResultCodec


class _Rule(NamedTuple):
    """How a tool is done once."""

    function: Callable[..., Any]
    name: str
    per: str
    repeatable: bool
    origin: str
    schema: object

    def asked(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> _Asked | None:
        """The call with these arguments; None where it just runs."""
        place = Place.here()
        if place is None:
            return None
        try:
            asked = arguments(self.function, self.schema, given, named)
            said = digest([self.origin, asked.said])
        except TypeError as error:
            warnings.warn(f"idempotent {self.name}: its arguments {error}; it runs.", BudgetWarning, stacklevel=4)
            return None
        scope = place.node if self.per == "node" and place.node else place.scope
        codec = CallCodec(asked.call_id) if asked.call_id else CODEC
        return _Asked(place.task.governor.results, f"{scope}/tool:{self.name}/{said}", place.run, codec)

    def given(self, call: _Asked, done: Done[Any]) -> Any:
        """The result, for the caller and for the record."""
        if done.again:
            self.not_run(call, Outcome.CACHED)
        return done.value

    def not_run(self, call: _Asked, outcome: str) -> None:
        """The attempt on record, if this is the tool it is of, is one that did not run."""
        attempt = call.run.attempt if call.run is not None else None
        if attempt is not None and attempt.call.kind is Kind.TOOL and attempt.call.name == self.name:
            attempt.instead = outcome


def _done_once(rule: _Rule) -> Callable[..., Any]:
    function = rule.function

    @functools.wraps(function)
    def once(*given: Any, **named: Any) -> Any:
        call = rule.asked(given, named)
        if call is None:
            return function(*given, **named)
        try:
            done = call.once.run(call.key, lambda: function(*given, **named), call.codec, repeatable=rule.repeatable)
        except UnknownOutcomeError:
            rule.not_run(call, Outcome.REFUSED)
            raise
        return rule.given(call, done)

    @functools.wraps(function)
    async def aonce(*given: Any, **named: Any) -> Any:
        call = rule.asked(given, named)
        if call is None:
            return await function(*given, **named)
        try:
            done = await call.once.arun(
                call.key, lambda: function(*given, **named), call.codec, repeatable=rule.repeatable
            )
        except UnknownOutcomeError:
            rule.not_run(call, Outcome.REFUSED)
            raise
        return rule.given(call, done)

    return aonce if inspect.iscoroutinefunction(function) else once


def _origin(function: Any) -> str:
    """Where a function is defined: two tools of one name in two places are two tools."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def _resumes(run: Run | None) -> bool:
    """Whether the run goes on with its thread."""
    return bool((run is not None and run.root.blank) or work.configurable().get("__pregel_resuming"))
