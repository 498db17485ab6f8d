"""The meter: one handler that reserves before every call, charges after it, and refuses what does not fit."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult

from agentbudget.governor.values import UNSAID, Outcome, Result
from agentbudget.langchain import content, identity, transport
from agentbudget.langchain.gate import Gate
from agentbudget.langchain.handover import OFFERED
from agentbudget.langchain.layers import is_node, is_retried
from agentbudget.langchain.outcome import bubbles_up, outcome_of
from agentbudget.langchain.parts import text_size
from agentbudget.langchain.request import model_call, tool_call
from agentbudget.langchain.runs import RUNS, Attempt, Run, cancelled
from agentbudget.langchain.usage import NO_ANSWER, Answer, read_result

_LOOK_EVERY_BYTES = 256
"""How much a stream may produce between two looks at its reservation."""


class MeteringHandler(Gate):
    """Meters and gates every model and tool call it hears of, for the tasks the run belongs to.

    Safe under threads; compared by identity; never blocks.
    """

    def announce(self, run_id: UUID, parent_run_id: UUID | None, metadata: dict[str, Any] | None) -> Run:
        """A model call with this id is being planned: the run, with the tasks that will pay for it."""
        return self._enter(run_id, parent_run_id, metadata, bare=True)

    def withdraw(self, run: Run, status: str) -> None:
        """The announced call was not made; nothing where its start was heard."""
        if run.attempt is None and RUNS.leave(run.id) is not None:
            self._close(run, status)

    # -- runs that only carry others -----------------------------------------------------------------------------

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chain, graph, node or retriever begins."""
        run = self._enter(run_id, parent_run_id, metadata, inputs=inputs, name=kwargs.get("name") or "")
        if tags:
            run.node = run.node or is_node(tags)
            run.retried = is_retried(tags)
        run.blank = inputs is None

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """It ended."""
        run = RUNS.leave(run_id)
        if run is not None and run.opened:
            RUNS.finish_under(run, cancelled("never ended"))
            self._close(run, "interrupted" if run.interrupted else "completed")

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed, was cancelled, interrupted or stopped. Calls below it that never told their end ended with it."""
        run = RUNS.leave(run_id)
        if run is None:
            return
        name = type(error).__name__
        if name == "GraphInterrupt":
            run.interrupted = run.root.interrupted = True
        RUNS.finish_under(run, cancelled(name))
        self._close(run, identity.status_of(error))

    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A retriever begins; a model may be called inside."""
        self._enter(run_id, parent_run_id, metadata, inputs=query, name=kwargs.get("name") or "")

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """It ended."""
        self.on_chain_end(documents, run_id=run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed."""
        self.on_chain_error(error, run_id=run_id)

    # -- model calls ---------------------------------------------------------------------------------------------

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is about to be called: reserve or refuse.

        Raises:
            BudgetExceeded: the call would break a limit; it is not made.
        """
        run = self._enter(run_id, parent_run_id, metadata, bare=True)
        if run.tasks:
            self._ask(run, messages[0], serialized, parent_run_id, tags, metadata, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A text completion model is about to be called: reserve or refuse.

        Raises:
            BudgetExceeded: the call would break a limit; it is not made.
        """
        run = self._enter(run_id, parent_run_id, metadata, bare=True)
        if run.tasks:
            self._ask(run, [HumanMessage(prompts[0])], serialized, parent_run_id, tags, metadata, kwargs)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        """A stream grew: keep its lease, extend its reservation, stop it where there is no room.

        Raises:
            BudgetExceeded: no room for more; what was produced stays charged.
        """
        run = RUNS.get(run_id)
        attempt = run.attempt if run is not None else None
        if run is None or attempt is None or attempt.heard_by is not self:
            return
        attempt.chunks += 1
        attempt.bytes += _chunk_size(token, chunk)
        if attempt.bytes >= attempt.next_look:
            attempt.next_look = attempt.bytes + _LOOK_EVERY_BYTES
            for hold in attempt.holds:
                self._extend(run, attempt, hold)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """The model answered: charge what it reported."""
        ended = RUNS.end(run_id)
        if ended is None:
            return
        run, attempt = ended
        answer = read_result(response)
        outcome = Outcome.CACHED if answer.cached else Outcome.OK
        told = content.of_answer(run.tasks, answer.said)
        self._settle(run, attempt, _result(outcome, answer, attempt, told, lane=run.lane), status="completed")

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """The call failed: charge what the error carries, what was streamed, or the estimate; nothing if refused."""
        ended = RUNS.end(run_id)
        if ended is None:
            return
        run, attempt = ended
        outcome = outcome_of(error)
        response = kwargs.get("response")
        answer = read_result(response) if response is not None and outcome is not Outcome.REFUSED else NO_ANSWER
        told = content.of_error(run.tasks, error)
        result = _result(outcome, answer, attempt, told, error=type(error).__name__)
        status = identity.status_of(error) if attempt.refused is None else "stopped"
        self._settle(run, attempt, result, status=status)
        if attempt.refused is not None:
            transport.unwrap(run, attempt.refused, error)

    # -- tool calls ----------------------------------------------------------------------------------------------

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool is about to run: count it, reserve its price, or refuse.

        Raises:
            BudgetExceeded: the call would break a limit; the tool does not run.
        """
        run = self._enter(run_id, parent_run_id, metadata, bare=True)
        if run.tasks:
            name = kwargs.get("name") or (serialized or {}).get("name") or "tool"
            arguments = inputs if inputs is not None else {"input": input_str}
            told = content.of_arguments(run.tasks, arguments)
            if run.attempt is not None:
                call = content.retold(run.attempt.call, told)
            else:
                call = tool_call(
                    run.hex,
                    name,
                    arguments,
                    parent=_parent(run, parent_run_id),
                    within=run.within,
                    tags=tags,
                    metadata=metadata,
                    tool_call_id=kwargs.get("tool_call_id"),
                    told=told,
                )
            self._admit(run, call)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The tool returned."""
        ended = RUNS.end(run_id)
        if ended is None:
            return
        run, attempt = ended
        said = getattr(output, "content", output)
        told = content.of_output(run.tasks, output)
        result = Result(
            outcome=Outcome.ERROR if getattr(output, "status", "success") == "error" else Outcome.OK,
            value=output,
            said=said,
            lane=run.lane,
            result=told.hashed,
            size=len(said) if type(said) is str and said.isascii() else text_size(said),
            content=told.content,
        )
        self._settle(run, attempt, result, status="completed")

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """The tool failed, or something in it was stopped."""
        ended = RUNS.end(run_id)
        if ended is None:
            return
        run, attempt = ended
        told = content.of_error(run.tasks, error)
        result = Result(
            outcome=Outcome.CANCELLED if isinstance(error, asyncio.CancelledError) else Outcome.ERROR,
            error=type(error).__name__,
            said=UNSAID if bubbles_up(error) else error,
            lane=run.lane,
            result=told.hashed,
            content=told.content,
        )
        RUNS.finish_under(run, cancelled(type(error).__name__))
        self._settle(run, attempt, result, status=identity.status_of(error))

    # -- inside --------------------------------------------------------------------------------------------------

    def _ask(
        self,
        run: Run,
        messages: list[BaseMessage],
        serialized: dict[str, Any] | None,
        parent_id: UUID | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        kwargs: dict[str, Any],
    ) -> None:
        """Reserve or refuse the call of a model with *messages*."""
        params = kwargs.get("invocation_params")
        told = content.of_request(run.tasks, messages, params or {})
        if run.attempt is not None:
            call = content.retold(run.attempt.call, told)
        else:
            offered = OFFERED.get()
            call = model_call(
                run.hex,
                messages,
                serialized=serialized,
                parent=_parent(run, parent_id),
                within=run.within,
                tags=tags,
                metadata=metadata,
                params=params,
                told=told,
                planned=offered.planned if offered is not None else None,
            )
        self._admit(run, call, batch=kwargs.get("batch_size", 1))


def _result(
    outcome: str,
    answer: Answer,
    attempt: Attempt,
    told: content.Told,
    *,
    error: str = "",
    lane: str = "",
) -> Result:
    unseen = attempt.call.hidden_retries if not attempt.requests else 0
    timed_out = outcome is Outcome.TIMEOUT and answer.usage is None
    return Result(
        outcome=outcome,
        usage=answer.usage,
        problem=answer.problem,
        model=answer.model,
        tier=answer.tier,
        error=error,
        attempts=1 + unseen if timed_out else 1,
        chunks=attempt.chunks,
        bytes=max(answer.size, attempt.bytes),
        lane=lane,
        unparsable=answer.unparsable,
        result=told.hashed,
        content=told.content,
    )


def _parent(run: Run, parent_id: UUID | None) -> str:
    """The id of the parent that the host named, as traces have it; empty where it named none."""
    if parent_id is None:
        return ""
    around = run.parent
    return around.hex if around is not None and around.key == parent_id.int else parent_id.hex


def _chunk_size(token: Any, chunk: Any) -> int:
    """UTF-8 bytes that a chunk adds: text, or the arguments of a tool call."""
    size = text_size(token)
    for part in getattr(getattr(chunk, "message", None), "tool_call_chunks", None) or ():
        size += len(part.get("name") or "") + len(part.get("args") or "")
    return size
