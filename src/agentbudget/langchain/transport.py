"""Hidden retries: the provider's client repeats a request by itself, and LangChain tells of one call.

`watch(model)` hooks into the HTTP client below the model. Each repeated request is then an attempt of its own: admitted
before it leaves, charged after it, in the report with the layer `sdk`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Never, TypeVar
from uuid import UUID

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable

from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError
from agentbudget.governor.values import Outcome, Result
from agentbudget.langchain.outcome import outcome_of_status
from agentbudget.langchain.runs import RUNS, Attempt, Run

if TYPE_CHECKING:
    from agentbudget.langchain.errors import BudgetExceeded

_R = TypeVar("_R", bound=Runnable[Any, Any])

_COUNT: Final = "x-stainless-retry-count"
"""Header in which the OpenAI and Anthropic clients say how often they have repeated the request."""
_CLIENTS: Final = ("root_client", "root_async_client", "_client", "_async_client")
"""Where LangChain's models keep their provider's client; `ChatAnthropic` makes it when it is asked for."""
_ERRORS: Final = (("openai", "OpenAIError"), ("anthropic", "AnthropicError"))
"""The errors that the clients hand on as they are."""
_REDIRECTS: Final = range(300, 400)
_WRAPPED: Final = ("bound", "inner", "runnable", "last")
"""Where LangChain's bindings, sequences and the governed model keep the runnable they are about."""
_CALL: ContextVar[UUID | None] = ContextVar("agentbudget_call", default=None)
"""The run of the model call that was begun last in this context."""


class _State:
    watching = False
    """Whether a client of this process was ever watched: until then nobody asks for the run."""


_STATE = _State()


def watch(model: _R) -> _R:
    """Count, charge and limit the requests that the client of *model* repeats by itself. Returns *model*.

    The budgets are those of whoever calls the model; without one nothing changes. A repeated request that breaks a
    limit (`max_retries`, `max_model_calls`, `max_cost`, `max_seconds` ...) raises `BudgetExceeded` before it leaves.
    What came before it is charged by what became of it: nothing where the provider answered with an error or was never
    reached, the estimate where no answer came.

    Models that were given no HTTP client of their own share one for each base URL and timeout: all of them are watched
    then. Watching twice changes nothing. The prompts of one `generate` call are not told apart and are not watched.

    Args:
        model: a `ChatOpenAI` or `ChatAnthropic`, or another model whose client's HTTP client has `event_hooks` as httpx
            has; also with tools bound, governed, or with fallbacks.

    Raises:
        ConfigurationError: no such client was found.
    """
    found = [client for each in _models(model) for client in http_clients(each)]
    if not found:
        msg = (
            f"watch({type(model).__name__}): found no HTTP client with event hooks below it. Give it a ChatOpenAI or "
            "ChatAnthropic; for other models set max_retries=0 and retry around the model, where callbacks see it."
        )
        raise ConfigurationError(msg)
    for client in found:
        hooks = _ASYNC_HOOKS if hasattr(client, "aclose") else _SYNC_HOOKS
        for event, hook in hooks.items():
            if hook not in client.event_hooks[event]:
                client.event_hooks[event].append(hook)
    _STATE.watching = True
    return model


def calling(run: Run, batch: int) -> None:
    """The model call of *run*, one of *batch* prompts, is about to be made in this context."""
    if _STATE.watching:
        _CALL.set(run.id if batch == 1 else None)


def unwrap(run: Run, stop: StopReport, error: BaseException) -> None:
    """The model call of *run* ended with *error* after one of its requests was refused.

    Raises:
        BudgetExceeded: the client made another error of the refusal.
    """
    if "BudgetExceeded" not in {kind.__name__ for kind in type(error).__mro__}:
        _refuse(run, stop)


def _models(given: Runnable[Any, Any]) -> Iterator[object]:
    if isinstance(given, BaseLanguageModel) and not hasattr(given, "inner"):
        yield given
        return
    parts = [getattr(given, name, None) for name in _WRAPPED]
    for part in (*parts, *(getattr(given, "fallbacks", None) or ())):
        if isinstance(part, Runnable):
            yield from _models(part)


def http_clients(model: object) -> Iterator[Any]:
    """The HTTP clients with event hooks below a chat model, sync and async; none for models of another kind."""
    for name in _CLIENTS:
        http = getattr(getattr(model, name, None), "_client", None)
        if isinstance(getattr(http, "event_hooks", None), Mapping):
            yield http


# -- what the hooks see ------------------------------------------------------------------------------------------------


def _request(request: Any) -> Attempt | None:
    """A request is about to leave; the attempt that it is of.

    Raises:
        BudgetExceeded: it repeats another one, and that breaks a limit.
    """
    run = RUNS.get(_CALL.get())
    attempt = run.attempt if run is not None else None
    if run is None or attempt is None:
        return None
    if attempt.status is not None and attempt.status in _REDIRECTS:
        return attempt  # the same request, sent elsewhere
    number = _number(request, attempt)
    if attempt.refused is None:
        if number != attempt.requests:
            _CALL.set(None)  # somebody else uses the client while a stream is read: the stream's requests are over
            return None
        attempt.requests += 1
        if number:
            attempt.refused = attempt.repeat(number, _end(attempt))
    if attempt.refused is not None:
        _refuse(run, attempt.refused)
    attempt.status = attempt.sent = None
    return attempt


def _number(request: Any, attempt: Attempt) -> int:
    """How many requests of the same call went before this one, as its client says; without a word, as was counted."""
    count = request.headers.get(_COUNT, "")
    return int(count) if count.isdecimal() else attempt.requests


def _end(attempt: Attempt) -> Result:
    """What became of the request before."""
    if attempt.status is None:
        outcome = Outcome.REFUSED if attempt.sent is False else Outcome.TIMEOUT
        return Result(outcome=outcome, error="no answer")
    return Result(outcome=outcome_of_status(attempt.status), error=f"status {attempt.status}")


def _refuse(run: Run, stop: StopReport) -> Never:
    raise _passing()(stop, next((task for task in run.tasks if task.id == stop.task_id), run.tasks[0]))


def _passing() -> type[BudgetExceeded]:
    """`BudgetExceeded` in a form that the clients let pass: they repeat and wrap every error but those of their own."""
    from agentbudget.langchain.errors import BudgetExceeded  # noqa: PLC0415 - importing LangGraph is slow

    modules = ((sys.modules.get(module), name) for module, name in _ERRORS)
    theirs = tuple(kind for module, name in modules if (kind := getattr(module, name, None)) is not None)
    return _with(BudgetExceeded, theirs)


@cache
def _with(refusal: type[BudgetExceeded], theirs: tuple[type[Exception], ...]) -> type[BudgetExceeded]:
    return type("BudgetExceeded", (refusal, *theirs), {"__doc__": refusal.__doc__, "__module__": refusal.__module__})


def _response(response: Any) -> None:
    """The head of an answer has arrived."""
    run = RUNS.get(_CALL.get())
    if run is not None and run.attempt is not None:
        run.attempt.status = response.status_code


def _progress(attempt: Attempt, event: str) -> None:
    """What the connection tells: whether anything of the request was sent at all."""
    if event.startswith("connection.") and attempt.sent is None:
        attempt.sent = False
    elif event.endswith(".send_request_headers.started"):
        attempt.sent = True


def _on_request(request: Any) -> None:
    attempt = _request(request)
    if attempt is not None:
        request.extensions.setdefault("trace", lambda event, _: _progress(attempt, event))


async def _on_async_request(request: Any) -> None:
    attempt = _request(request)
    if attempt is not None:

        async def progress(event: str, _: object) -> None:
            _progress(attempt, event)

        request.extensions.setdefault("trace", progress)


async def _on_async_response(response: Any) -> None:
    _response(response)


_SYNC_HOOKS: Final = {"request": _on_request, "response": _response}
_ASYNC_HOOKS: Final = {"request": _on_async_request, "response": _on_async_response}
