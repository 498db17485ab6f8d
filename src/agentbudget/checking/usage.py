"""Whether usage arrives: each model whose own client can be heard is asked once plainly and once streaming."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda

from agentbudget.checking.findings import Finding, Severity
from agentbudget.checking.reach import Found
from agentbudget.checking.rules import name_of
from agentbudget.checking.runs import GREETING, Runner
from agentbudget.checking.stage import Stage
from agentbudget.checking.twins import speaks_http


def usage_arrives(found: Found, seconds: float) -> Iterator[Finding]:
    """A model whose streams end without usage."""
    model = found.thing
    if not isinstance(model, BaseChatModel) or not speaks_http(model):
        return
    stage = Stage(answer=GREETING, run_tools=frozenset())
    outcome = Runner(agent=RunnableLambda(partial(_streams_usage, model)), inputs=GREETING, seconds=seconds).run(stage)
    if outcome.error is None and outcome.result is False:
        yield Finding(
            code="usage-missing",
            severity=Severity.WARNING,
            what=f"Streams of {name_of(model)} end without usage: its base URL is not OpenAI's own, so LangChain does "
            "not ask for it.",
            where=found.where,
            why="streamed calls (and every call under stream_mode='messages') are charged by an estimate instead of "
            "what the provider counts.",
            fix="stream_usage=True on the model, if the server behind the URL knows stream_options.",
        )


def _streams_usage(model: BaseChatModel, asked: str) -> bool:
    arrived = [chunk.usage_metadata is not None for chunk in model.stream(asked)]  # read to the end
    return any(arrived)
