"""Runs of the agent on the stand-in, and what came of each."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_type_hints
from unittest.mock import patch

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableBinding
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel
from langgraph.store.memory import InMemoryStore
from langsmith.run_helpers import tracing_context
from pydantic import TypeAdapter

from agentbudget.checking.far_end import answered_here
from agentbudget.checking.instances import TEXT, instance_of
from agentbudget.checking.stage import LINKED, EndlessError, Gate, Stage
from agentbudget.checking.twins import standing_in
from agentbudget.langchain.errors import BudgetExceeded

GREETING: Final = "Hello."
_HOST_LOG: Final = logging.getLogger("langchain_core.callbacks.manager")
_LAST_SECONDS: Final = 5
"""How long a run that took too long may take to notice it, with the stand-ins still in place."""
_STEPS: Final = 400
"""Supersteps after which a graph that does not end is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one run went."""

    stage: Stage
    result: Any = None
    error: BaseException | None = None
    endless: bool = False
    in_loop: bool = False

    @property
    def stop_left(self) -> bool:
        """The stop left the agent as what it is."""
        return isinstance(self.error, BudgetExceeded)

    @property
    def paused(self) -> bool:
        """The run ended with a question to a person."""
        return isinstance(self.result, Mapping) and "__interrupt__" in self.result


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs one agent, each time from the beginning, in a thread and a context of its own."""

    agent: Runnable[Any, Any]
    inputs: Any
    seconds: float
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None

    def run(self, stage: Stage) -> Outcome:
        """One run; sync where the agent can be called so, else async."""
        outcome = self._once(stage, in_loop=False)
        if _wants_a_loop(outcome.error) and not stage.stopped:
            return self._once(stage, in_loop=True)
        return outcome

    def _once(self, stage: Stage, *, in_loop: bool) -> Outcome:
        agent, config = _without_stores(self.agent), self._config(stage)
        given = {} if self.context is None else {"context": self.context}

        def act() -> Any:
            LINKED.set(True)
            with tracing_context(enabled=False):
                if in_loop:
                    return asyncio.run(agent.ainvoke(self.inputs, config, **given))
                return agent.invoke(self.inputs, config, **given)

        with ExitStack() as stand_ins:
            stand_ins.enter_context(answered_here(stage))
            stand_ins.enter_context(standing_in(stage))
            stand_ins.enter_context(patch.object(_HOST_LOG, "disabled", new=True))  # each refusal is an error to it
            return replace(_apart(act, stage, self.seconds), in_loop=in_loop)

    def _config(self, stage: Stage) -> Any:
        kept = {"thread_id": "agentbudget-check", "__pregel_checkpointer": InMemorySaver()}
        return {
            **self.config,
            "callbacks": [*(self.config.get("callbacks") or ()), Gate(stage)],
            "configurable": {**(self.config.get("configurable") or {}), **kept},
            "recursion_limit": _STEPS,
        }


def _apart(act: Callable[[], Any], stage: Stage, seconds: float) -> Outcome:
    """Do *act* in a thread and a context of its own, so that neither an event loop nor a task around it matters."""
    outcomes: list[Outcome] = []

    def work() -> None:
        try:
            outcomes.append(Outcome(stage=stage, result=act()))
        except EndlessError:
            outcomes.append(Outcome(stage=stage, endless=True))
        except BaseException as error:  # noqa: BLE001 - whatever the agent raises is what is looked at
            outcomes.append(Outcome(stage=stage, error=error))

    thread = threading.Thread(target=contextvars.Context().run, args=(work,), name="agentbudget-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        stage.abandoned = True
        thread.join(_LAST_SECONDS)
    return outcomes[0] if outcomes else Outcome(stage=stage, endless=True)


def _wants_a_loop(error: BaseException | None) -> bool:
    """Whether the agent has nodes or tools that are async only."""
    if isinstance(error, NotImplementedError):
        return True
    return isinstance(error, TypeError) and "No synchronous function provided" in str(error)


def _without_stores(agent: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """*agent* with a store of its own in place of the user's; the checkpointer is replaced by the config."""
    if isinstance(agent, Pregel):
        changes = {"cache": None} | ({"store": InMemoryStore()} if agent.store is not None else {})
        return agent.copy(changes)
    if isinstance(agent, RunnableBinding):
        return agent.model_copy(update={"bound": _without_stores(agent.bound)})
    return agent


def default_inputs(agent: Runnable[Any, Any]) -> Any:
    """The smallest input that *agent* says it takes: a greeting for a model or an agent."""
    if isinstance(agent, BaseLanguageModel):
        return GREETING
    try:
        schema = agent.get_input_jsonschema()
    except Exception:  # noqa: BLE001 - some runnables cannot say what they take
        schema = _schema_of_state(agent)
    properties = schema.get("properties") or {}
    made = instance_of(schema, whole="messages" not in properties)
    if "messages" in properties and isinstance(made, dict):
        return {**made, "messages": [("user", GREETING)]}
    return GREETING if made in (TEXT, None) else made


def _schema_of_state(agent: Runnable[Any, Any]) -> dict[str, Any]:
    """The schema of a graph's input, field by field: before Python 3.12, pydantic refuses a plain `TypedDict`."""
    while isinstance(agent, RunnableBinding):
        agent = agent.bound
    state = getattr(getattr(agent, "builder", None), "input_schema", None)
    if not isinstance(state, type):
        return {}
    fields = get_type_hints(state)
    return {
        "type": "object",
        "properties": {name: _schema_of(hint) for name, hint in fields.items()},
        "required": list(fields),
    }


def _schema_of(hint: Any) -> dict[str, Any]:
    try:
        return TypeAdapter(hint).json_schema()
    except Exception:  # noqa: BLE001 - of a type that pydantic does not know anything may be given
        return {}


def as_runnable(agent: object) -> Runnable[Any, Any] | None:
    """*agent* as something to invoke, or None; a graph that was not compiled is compiled."""
    if isinstance(agent, Runnable):
        return agent
    compile_ = getattr(agent, "compile", None)
    if callable(compile_) and type(agent).__module__.startswith("langgraph."):
        compiled = compile_()
        return compiled if isinstance(compiled, Runnable) else None
    if inspect.isfunction(agent) and not inspect.signature(agent).parameters:
        return as_runnable(agent())
    return None
