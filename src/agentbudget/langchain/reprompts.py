"""Re-prompts of structured output: an agent asks again because the answer did not fit its schema.

`create_agent` answers such a reply with a tool's message that carries the error, and calls the model once more. The
reply before is paid, and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agentbudget.governor.values import FIRST, Again
from agentbudget.langchain.usage import to_usage

LAYER: Final = "structured_output"
_SAID: Final = (
    "Error: Failed to parse structured output for tool ",
    "Error: Model incorrectly returned multiple structured responses ",
)
"""What LangChain writes for `handle_errors=True` or an error class; texts of one's own are not recognised."""
_RUN: Final = "lc_run--"
_ID_LENGTH: Final = 36


def asked_again(messages: Sequence[BaseMessage]) -> Again:
    """The attempt that a request with *messages* is; `FIRST` where it asks for no structured output anew."""
    if not messages or not _is_error(messages[-1]):
        return FIRST
    thrown: list[AIMessage] = []
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            thrown.append(message)
        elif not _is_error(message):
            break
    if not thrown:
        return FIRST
    used = thrown[0].usage_metadata
    usage = to_usage(used)[0] if used is not None else None
    return Again(_call_id(thrown[-1]), len(thrown) + 1, usage)


def _is_error(message: BaseMessage) -> bool:
    said = message.content if isinstance(message, ToolMessage) else None
    return isinstance(said, str) and said.startswith(_SAID)


def _call_id(message: AIMessage) -> str:
    """The id of the call that *message* answered, as far as LangChain left it there."""
    name = message.id or ""
    return name[len(_RUN) :][:_ID_LENGTH].replace("-", "") if name.startswith(_RUN) else name
