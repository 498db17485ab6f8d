"""The shipped testing kit: what this project tests itself with, for those who test agents and backends of their own.

Everything is imported on first use, so that a fake clock does not cost a web server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentbudget.testing.clock import FakeClock
    from agentbudget.testing.ledger_contract import LedgerContract
    from agentbudget.testing.models import ScriptedCall, ScriptedChatModel, scripted_reply
    from agentbudget.testing.provider import ProviderServer
    from agentbudget.testing.races import LedgerRaces, at_once, preempted
    from agentbudget.testing.replies import Generation, Reply, Request, ToolCall
    from agentbudget.testing.validity import anthropic_error, assert_valid_history, openai_error, responses_error

_HOME = {
    "FakeClock": "clock",
    "Generation": "replies",
    "LedgerContract": "ledger_contract",
    "LedgerRaces": "races",
    "ProviderServer": "provider",
    "Reply": "replies",
    "Request": "replies",
    "ScriptedCall": "models",
    "ScriptedChatModel": "models",
    "ToolCall": "replies",
    "anthropic_error": "validity",
    "assert_valid_history": "validity",
    "at_once": "races",
    "openai_error": "validity",
    "preempted": "races",
    "responses_error": "validity",
    "scripted_reply": "models",
}

__all__ = [
    "FakeClock",
    "Generation",
    "LedgerContract",
    "LedgerRaces",
    "ProviderServer",
    "Reply",
    "Request",
    "ScriptedCall",
    "ScriptedChatModel",
    "ToolCall",
    "anthropic_error",
    "assert_valid_history",
    "at_once",
    "openai_error",
    "preempted",
    "responses_error",
    "scripted_reply",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
