"""The meter: one handler that reserves before every call, charges after it, and refuses what does not fit."""

from __future__ import annotations

import asyncio
from typing import Any, Never
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult

from agentbudget.domain.verdict import StopReport
from agentbudget.governor.hold import Hold
from agentbudget.governor.values import UNSAID, Call, Kind, Outcome, Result
from agentbudget.langchain import ambient, content, identity, nesting, transport
from agentbudget.langchain.handover import OFFERED
from agentbudget.langchain.layers import is_node, is_retried, layered
from agentbudget.langchain.outcome import bubbles_up, outcome_of
from agentbudget.langchain.parts import text_size
from agentbudget.langchain.request import model_call, tool_call
from agentbudget.langchain.runs import RUNS, Attempt, Run, cancelled, reserve
from agentbudget.langchain.usage import NO_ANSWER, Answer, read_result

_LOOK_EVERY_BYTES = 256
"""How much a stream may produce between two looks at its reservation."""


class MeteringHandler(BaseCallbackHandler):
    """Meters and gates every model and tool call it hears of, for the tasks the run belongs to.

    A sync handler that runs inline and raises: the only kind that stops a call on every path of LangChain. Safe under
    threads; compared by identity; never blocks.
    """

    raise_error = True
    run_inline = True

    def open_root(self, run: Run, root: identity.Root) -> None:
        """*run* is the first run this handler sees of its tree: open or join a task for it. Nothing by default."""

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

    def _enter(
        self,
        run_id: UUID,
        parent_id: UUID | None,
        metadata: dict[str, Any] | None,
        *,
        inputs: object = identity.NO_INPUT,
        bare: bool = False,
        name: str = "",
    ) -> Run:
        """The run, with its place in the tree and the tasks that pay for it."""
        parent = RUNS.find(parent_id) if parent_id is not None else None
        if parent is None:
            parent = identity.parent_of(parent_id)
        run = RUNS.enter(run_id, parent)
        for task in reversed(ambient.TASKS.get()):
            if task not in run.tasks:
                run.add(task)
        if parent is None and not bare:
            identity.begin_tree(run)
        if self not in run.seen:
            run.seen = (*run.seen, self)
            orphan = parent is None and parent_id is not None
            self.open_root(run, identity.Root(inputs, metadata or {}, bare, orphan, name))
        if bare and not run.tasks:
            RUNS.leave(run_id)  # nobody pays, so nobody need hear of its end, which may never be told
        return run

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
            )
        self._admit(run, call, batch=kwargs.get("batch_size", 1))

    def _admit(self, run: Run, call: Call, *, batch: int = 1) -> None:
        siblings = RUNS.siblings(run, batch) if batch > 1 else []
        call = ambient.placed(call)
        for task in run.tasks:
            if task.failed or task.budget.has_shape:
                call = self._in_shape(run, call, siblings)
                break
        attempt, tasks = run.attempt, run.tasks
        if attempt is None:
            attempt = Attempt(call, self)
            offered = OFFERED.get()
            if offered is not None and offered.awaits(call):
                offered.adopt(attempt, tasks)
                offered.end = lambda why: self._lost(run, why)
        else:
            attempt.call = call
        if attempt.holds:
            tasks = tuple([task for task in tasks if not attempt.pays(task)])
        try:
            stop = reserve(attempt, tasks)
        except BaseException:
            self._end_unbegun(run, siblings, "failed")
            raise
        if stop is not None:
            self._deny(run, stop, siblings)
        if run.attempt is None:
            RUNS.begin(run, attempt)
            siblings.append(run)
            self._watch(run, attempt)
            if call.kind is Kind.MODEL:
                transport.calling(run, batch)

    def _in_shape(self, run: Run, call: Call, siblings: list[Run]) -> Call:
        """*call* with the layer that repeats it; refused where it does not fit the shape of its tasks."""
        call = layered(call, run)
        if (misfit := nesting.refused(run, call)) is not None:
            self._deny(run, misfit, siblings)
        return call

    def _deny(self, run: Run, stop: StopReport, siblings: list[Run]) -> Never:
        """Refuse the run."""
        from agentbudget.langchain.errors import BudgetExceeded  # noqa: PLC0415 - importing LangGraph is slow

        task = next((task for task in run.tasks if task.id == stop.task_id), run.tasks[0])
        self._end_unbegun(run, siblings, "stopped")
        raise BudgetExceeded(stop, task)

    def _end_unbegun(self, run: Run, siblings: list[Run], status: str) -> None:
        """The call is not made. The host tells no end of it, nor of its siblings in the same `generate`: they end
        here."""
        for ended in (*siblings, run):
            RUNS.leave(ended.id)
            attempt = RUNS.finish(ended)
            if attempt is not None:
                attempt.release()
            self._close(ended, status)
        siblings.clear()

    def _watch(self, run: Run, attempt: Attempt) -> None:
        """A cancelled `ainvoke` tells no end: listen for the end of the asyncio task that makes the call.

        The task that begins a stream may be over with its first chunk; the rest is asked for by others.
        """
        if asyncio._get_running_loop() is not None and (task := asyncio.current_task()) is not None:  # noqa: SLF001 - the documented cheap check

            def over(ended: asyncio.Task[object]) -> None:
                if ended.cancelled() or not attempt.chunks:
                    self._lost(run, "CancelledError")

            attempt.watch(task, over)
        for stale in RUNS.stale():
            self._lost(stale, "lease expired")

    def _lost(self, run: Run, why: str) -> None:
        RUNS.leave(run.id)
        attempt = RUNS.finish(run)
        if attempt is not None:
            self._settle(run, attempt, cancelled(why), status="cancelled")

    def _extend(self, run: Run, attempt: Attempt, hold: Hold) -> None:
        governor = hold.tasks[0].governor
        governor.keep_alive(hold)
        stop = governor.grow(hold, chunks=attempt.chunks, size=attempt.bytes)
        if stop is not None:
            from agentbudget.langchain.errors import BudgetExceeded  # noqa: PLC0415 - importing LangGraph is slow

            raise BudgetExceeded(stop, next((t for t in run.tasks if t.id == stop.task_id), run.tasks[0]))

    def _settle(self, run: Run, attempt: Attempt, result: Result, *, status: str) -> None:
        attempt.settle(result, flush=not run.opened)
        if run.opened:
            self._close(run, status)

    def _close(self, run: Run, status: str) -> None:
        """End the tasks that end with *run*."""
        for task, reports in reversed(run.opened):
            if task.governor.leave(task, status):
                reports.file(task)


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
