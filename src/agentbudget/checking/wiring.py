"""Findings read off the parts of an agent: prices, caps, usage, handlers, budgets."""

from __future__ import annotations

import ast
import copy
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage

from agentbudget.checking.findings import Finding, Severity
from agentbudget.checking.reach import Found, Reach, reach
from agentbudget.checking.rules import name_of
from agentbudget.errors import PricingError
from agentbudget.governor.governor import Governor
from agentbudget.governor.values import Call
from agentbudget.langchain.abilities import planned_call
from agentbudget.langchain.meter import MeteringHandler
from agentbudget.langchain.middleware import BudgetMiddleware
from agentbudget.langchain.model import GovernedChatModel

_HELLO: Final = (HumanMessage("Hello."),)
_BILLED: Final = (
    "code_interpreter",
    "code_execution",
    "file_search",
    "image_generation",
    "google_search",
    "google_maps",
)
"""Tools that a provider runs and bills by itself, by the beginning of their type; web searches have prices."""
_STEPS: Final = 1_000
_STARTS: Final = ("on_chat_model_start", "on_llm_start", "on_tool_start", "on_chain_start")


def unpriced_models(found: Found, governor: Governor) -> Iterator[Finding]:
    """A model without a price."""
    call = _planned(found.thing)
    if call is None:
        return
    try:
        _rates(governor, call)
    except PricingError as error:
        yield Finding(
            code="unpriced-model",
            severity=Severity.ERROR,
            what=str(error),
            where=found.where,
            why="under a cost limit its calls are refused; with on_unpriced='allow' they count as $0.",
            fix=f"Governor(aliases={{{call.name!r}: 'provider/known-name'}}) or Governor(prices={{...}}).",
        )


def unpriced_tools(found: Found, governor: Governor, model: object) -> Iterator[Finding]:
    """A tool that the provider runs and bills, without a price."""
    kind = str(found.thing["type"])
    call = _planned(model)
    problem = f"{kind} is billed by the provider and has no price here" if kind.startswith(_BILLED) else ""
    if kind.startswith("web_search") and call is not None:
        try:
            _rates(governor, call).upper_bound(
                input_tokens=1, output_tokens=1, web_searches=1, cache_writes="none", audio=False
            )
        except PricingError as error:
            problem = str(error)
    if problem:
        yield Finding(
            code="unpriced-tool",
            severity=Severity.WARNING,
            what=f"{problem}.",
            where=found.where,
            why="its fee is on the bill and in no budget and no report.",
            fix="limit it where the provider can (max_uses, containers), or run it as a tool of your own with "
            "@agentbudget.price_tool.",
        )


def output_cap(found: Found) -> Iterator[Finding]:
    """A model whose answers nobody caps."""
    call = _planned(found.thing)
    if call is not None and call.cap is None:
        yield Finding(
            code="output-cap",
            severity=Severity.WARNING,
            what=f"{name_of(found.thing)} has no output cap of yours: the vendor's own maximum holds.",
            where=found.where,
            why="a single answer may be 64,000 tokens and more; a budget can reserve only what such answers usually "
            "take, and the excess is an overrun.",
            fix="max_tokens=... on the model, or BudgetMiddleware / agentbudget.governed(model), which cap each answer "
            "at what the budget affords.",
        )


def ask_without_checkpointer(graph: Found, budgets: list[Found]) -> Iterator[Finding]:
    """A landing that pauses where nothing can be paused."""
    if graph.thing.checkpointer:
        return
    for budget in budgets:
        if isinstance(budget.thing, BudgetMiddleware) and budget.thing.on_limit == "ask":
            yield Finding(
                code="ask-without-checkpointer",
                severity=Severity.ERROR,
                what="BudgetMiddleware(on_limit='ask') pauses the agent, and the agent has no checkpointer.",
                where=budget.where,
                why="the first run fails with a ConfigurationError; nobody can be asked and nothing goes on later.",
                fix="create_agent(..., checkpointer=InMemorySaver()) or a durable one, and a thread_id in each config.",
            )


def unbounded(graph: Found) -> Iterator[Finding]:
    """A graph that neither a budget nor a recursion limit bounds."""
    limit = (graph.thing.config or {}).get("recursion_limit")
    if limit is None or limit >= _STEPS:
        shown = "LangGraph's own (10,007 steps)" if limit is None else f"{limit:,} steps"
        yield Finding(
            code="no-limit",
            severity=Severity.INFO,
            what=f"No budget goes along with this agent; the only limit is {shown}.",
            where=graph.where,
            why="a loop that does not end is paid for as long as it goes.",
            fix="agentbudget.guard(agent, max_cost=...), BudgetMiddleware, or a BudgetCallback in each config.",
        )


def deaf_handler(found: Found) -> Iterator[Finding]:
    """A handler that means to stop a run and cannot."""
    handler = found.thing
    if isinstance(handler, MeteringHandler):
        return
    refuses = next((name for name in _STARTS if _raises(getattr(type(handler), name, None))), "")
    if refuses and (not handler.raise_error or isinstance(handler, AsyncCallbackHandler)):
        reason = "is an async handler" if handler.raise_error else "has raise_error = False"
        yield Finding(
            code="handler-cannot-stop",
            severity=Severity.ERROR,
            what=f"{type(handler).__name__} raises in {refuses} but {reason}: LangChain logs the error and goes on.",
            where=found.where,
            why="the limit that it is meant to be is none: every call is made and paid.",
            fix="agentbudget.BudgetCallback, or raise_error = True and run_inline = True on a sync handler.",
        )


def broad_except(found: Found, run: bool) -> Iterator[Finding]:  # noqa: FBT001 - whether the tool was run
    """A tool that was not tried, calls a model, and catches everything."""
    function = getattr(found.thing, "func", None) or getattr(found.thing, "coroutine", None)
    if run or function is None or not reach(function).models:
        return
    line = _broad(function)
    if line:
        yield Finding(
            code="broad-except",
            severity=Severity.WARNING,
            what=f"Tool {found.thing.name!r} calls a model and catches every Exception, a stop within it, too.",
            where=f"{Path(function.__code__.co_filename).name}:{line} in {function.__name__}",
            why="the agent goes on with an invented answer until its next call is refused; what the tool then does "
            "(tries again, waits) is done in vain.",
            fix="catch the errors you expect, or `except agentbudget.BudgetExceeded: raise` in front.",
        )


def embeddings(found: Found) -> Iterator[Finding]:
    """Embeddings, of which LangChain tells nobody."""
    yield Finding(
        code="embeddings",
        severity=Severity.INFO,
        what=f"{type(found.thing).__name__} is called without callbacks: LangChain has none for embeddings.",
        where=found.where,
        why="what embeddings cost is in no budget and no report.",
        fix="give the tool that uses them a declared price (@agentbudget.price_tool) and a limit.",
    )


def wiring(found: Reach, governor: Governor, run_tools: Callable[[str], bool]) -> Iterator[Finding]:
    """Everything that can be read off the parts."""
    acting = any(isinstance(budget.thing, BudgetMiddleware) for budget in found.budgets)
    own = {id(budget.thing.inner) for budget in found.budgets if isinstance(budget.thing, GovernedChatModel)}
    for model in found.models:
        yield from unpriced_models(model, governor)
        if not acting and id(model.thing) not in own:
            yield from output_cap(model)
    first = next((model.thing for model in found.models), None)
    for provider_tool in found.provider_tools:
        yield from unpriced_tools(provider_tool, governor, first)
    for graph in found.graphs[:1]:
        yield from ask_without_checkpointer(graph, found.budgets)
        if not found.budgets:
            yield from unbounded(graph)
    for handler in found.handlers:
        yield from deaf_handler(handler)
    for tool in found.tools:
        yield from broad_except(tool, run_tools(tool.thing.name))
    for each in found.embeddings:
        yield from embeddings(each)


def governor_of(found: Reach) -> Governor | None:
    """The governor that the agent's own budget is kept by, if it has one."""
    for budget in found.budgets:
        handler = budget.thing.own if isinstance(budget.thing, GovernedChatModel) else budget.thing
        governor = getattr(handler, "governor", None) or getattr(getattr(handler, "_tasks", None), "governor", None)
        if isinstance(governor, Governor):
            return governor
    return None


def _planned(model: object) -> Call | None:
    if not isinstance(model, BaseChatModel):
        return None
    return planned_call(copy.copy(model), _HELLO, {})  # of a copy: a model keeps some of what it is asked


def _rates(governor: Governor, call: Call) -> Any:
    today = datetime.fromtimestamp(governor.clock.now(), UTC).date()
    return governor.appraiser.book.rates(
        call.name, provider=call.provider or None, base_url=call.base_url or None, tier=call.tier or None, on=today
    )


def _raises(method: object) -> bool:
    code = getattr(method, "__code__", None)
    return code is not None and any(each.opname == "RAISE_VARARGS" for each in dis.get_instructions(code))


def _broad(function: Any) -> int:
    """Line of the first handler in *function* that catches every Exception and raises nothing; 0 for none."""
    try:
        lines, start = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):
        return 0
    handlers = (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    return next((start + each.lineno - 1 for each in handlers if _catches_all(each)), 0)


def _catches_all(handler: ast.ExceptHandler) -> bool:
    named = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(each is None or (isinstance(each, ast.Name) and each.id in {"Exception", "BaseException"})
                for each in named)  # fmt: skip
    return broad and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))
