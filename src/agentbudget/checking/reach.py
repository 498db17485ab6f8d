"""What an agent can reach: its models, tools, budgets and layers that repeat, found by walking it, closures included.

Nothing is called and nothing is changed.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware
from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.runnables.retry import RunnableRetry
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel

from agentbudget.checking.stage import is_library_file
from agentbudget.checking.twins import speaks_http
from agentbudget.langchain.callback import BudgetCallback
from agentbudget.langchain.middleware import BudgetMiddleware
from agentbudget.langchain.model import GovernedChatModel

_MOST: Final = 20_000
_HOSTS: Final = ("langchain", "langgraph", "deepagents", "agentbudget.langchain")
_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)
_SDK_RETRIES: Final = 2
_UNSEEN: Final = frozenset({"checkpointer", "store", "cache", "builder", "channels", "stream_channels"})
"""Attributes of graphs behind which there are no models, or the same ones again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing, and where it was found."""

    thing: Any
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Something that repeats a failed call, so that `attempts` are made in all."""

    name: str
    attempts: int
    where: str


@dataclass(kw_only=True, eq=False)
class Reach:
    """Everything that was found."""

    models: list[Found] = field(default_factory=list)
    tools: list[Found] = field(default_factory=list)
    budgets: list[Found] = field(default_factory=list)
    graphs: list[Found] = field(default_factory=list)
    handlers: list[Found] = field(default_factory=list)
    embeddings: list[Found] = field(default_factory=list)
    provider_tools: list[Found] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)


def reach(agent: object) -> Reach:
    """Walk *agent*; each thing is found once, where it is met first."""
    found = Reach()
    known: dict[int, object] = {}
    waiting: list[tuple[object, str]] = [(agent, "")]
    while waiting and len(known) < _MOST:
        thing, where = waiting.pop(0)
        if isinstance(thing, _PLAIN) or id(thing) in known:
            continue
        known[id(thing)] = thing
        where = _take(found, thing, where)
        waiting.extend((part, f"{where} > {label}" if label and where else label or where)
                       for part, label in _parts(thing))  # fmt: skip
    return found


def _take(found: Reach, thing: object, where: str) -> str:
    """Note what *thing* is; the place of what lies within it."""
    if isinstance(thing, GovernedChatModel | BudgetMiddleware | BudgetCallback):
        found.budgets.append(Found(thing=thing, where=where))
    elif isinstance(thing, BaseLanguageModel):
        found.models.append(Found(thing=thing, where=where))
        retries = getattr(thing, "max_retries", None)
        attempts = 1 + (retries if isinstance(retries, int) else _SDK_RETRIES * _has_sdk(thing))
        found.layers.append(Layer(name=f"{type(thing).__name__}(max_retries=...)", attempts=attempts, where=where))
    elif isinstance(thing, BaseTool):
        found.tools.append(Found(thing=thing, where=where))
        return f"{where} > tool {thing.name!r}" if where else f"tool {thing.name!r}"
    elif isinstance(thing, Pregel):
        found.graphs.append(Found(thing=thing, where=where))
        _take_policies(found, thing, where)
    elif isinstance(thing, Embeddings):
        found.embeddings.append(Found(thing=thing, where=where))
    elif isinstance(thing, BaseCallbackHandler):
        found.handlers.append(Found(thing=thing, where=where))
    elif isinstance(thing, ModelRetryMiddleware):
        found.layers.append(Layer(name="ModelRetryMiddleware", attempts=1 + thing.max_retries, where=where))
    elif isinstance(thing, RunnableRetry):
        found.layers.append(Layer(name="with_retry", attempts=thing.max_attempt_number, where=where))
    elif isinstance(thing, dict) and isinstance(thing.get("type"), str) and "function" not in thing:
        found.provider_tools.append(Found(thing=thing, where=where))
    return where


def _take_policies(found: Reach, graph: Pregel[Any, Any, Any, Any], where: str) -> None:
    for name, node in graph.nodes.items():
        place = f"{where} > node {name!r}" if where else f"node {name!r}"
        found.layers.extend(
            Layer(name="RetryPolicy", attempts=policy.max_attempts, where=place) for policy in node.retry_policy or ()
        )


def _has_sdk(model: object) -> bool:
    return isinstance(model, BaseChatModel) and speaks_http(model)


def _parts(thing: object) -> Iterator[tuple[object, str]]:
    """What *thing* is made of, with a label where a new place begins."""
    if isinstance(thing, Pregel):
        yield from ((node.bound, f"node {name!r}") for name, node in thing.nodes.items())
        yield thing.config, ""
    else:
        yield from ((part, "") for part in _plain_parts(thing))


def _plain_parts(thing: object) -> Iterable[object]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, functools.partial):
        return (thing.func, thing.args, thing.keywords)
    if isinstance(thing, types.MethodType):
        return (thing.__self__, thing.__func__)
    return _behind(thing) if isinstance(thing, types.FunctionType) else _inside(thing)


def _inside(thing: object) -> Iterator[object]:
    """What an object keeps; of the user's own kinds, and of tools and middleware, what their methods name as well."""
    if isinstance(thing, BaseLanguageModel) and not isinstance(thing, GovernedChatModel):
        yield getattr(thing, "callbacks", None)
    elif isinstance(thing, BaseCallbackManager):
        yield thing.handlers
    elif _is_open(type(thing)):
        yield from _attributes(thing)
        if isinstance(thing, BaseTool | AgentMiddleware) or not _is_hosts(type(thing).__module__):
            yield from (method for method in vars(type(thing)).values() if isinstance(method, types.FunctionType))


def _attributes(thing: object) -> Iterator[object]:
    for name, value in list(getattr(thing, "__dict__", {}).items()):
        if name not in _UNSEEN:
            yield value
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in _UNSEEN:
                yield getattr(thing, name, None)


def _behind(function: types.FunctionType) -> Iterator[object]:
    """What the code of *function* can name: its closure and defaults and, in the user's own code, its globals."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from (function.__defaults__, function.__kwdefaults__, getattr(function, "__wrapped__", None))
    if not is_library_file(function.__code__.co_filename):
        yield from (function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_hosts(module: str) -> bool:
    return module.startswith(_HOSTS)


def _is_open(kind: type) -> bool:
    """Whether the attributes of a *kind* of object are looked at: the host's kinds and the user's own."""
    if _is_hosts(kind.__module__):
        return True
    methods = (method for method in vars(kind).values() if isinstance(method, types.FunctionType))
    return any(not is_library_file(method.__code__.co_filename) for method in methods)
