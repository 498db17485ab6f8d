"""An agent-runtime cost governor for LangChain and LangGraph: meter, admit, stop, record.

The public face. Importing it loads no framework; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentbudget.version import VERSION as __version__  # noqa: N811 - the name Python tools look for

if TYPE_CHECKING:
    from agentbudget.domain.accounts import Meter
    from agentbudget.domain.budget import Budget, Limit
    from agentbudget.domain.usage import Usage
    from agentbudget.domain.verdict import StopReport
    from agentbudget.errors import (
        AgentBudgetError,
        BudgetError,
        BudgetWarning,
        ConfigurationError,
        LedgerError,
        LedgerUnavailableError,
        PricingError,
        ReservationConflictError,
        TraceError,
        TraceFormatError,
        TraceVersionError,
        UnknownModelError,
        UnknownTierError,
    )
    from agentbudget.governor.default import default_governor
    from agentbudget.governor.governor import Governor
    from agentbudget.langchain.callback import BudgetCallback
    from agentbudget.langchain.errors import BudgetExceeded
    from agentbudget.langchain.tasks import guard, task
    from agentbudget.ledgers import open_ledger
    from agentbudget.pricing.declare import price_tool
    from agentbudget.trace.reader import Trace
    from agentbudget.trace.report import TaskReport

_HOME = {
    "Meter": "domain.accounts",
    "Budget": "domain.budget",
    "Limit": "domain.budget",
    "Usage": "domain.usage",
    "StopReport": "domain.verdict",
    "AgentBudgetError": "errors",
    "BudgetError": "errors",
    "BudgetWarning": "errors",
    "ConfigurationError": "errors",
    "LedgerError": "errors",
    "LedgerUnavailableError": "errors",
    "PricingError": "errors",
    "ReservationConflictError": "errors",
    "TraceError": "errors",
    "TraceFormatError": "errors",
    "TraceVersionError": "errors",
    "UnknownModelError": "errors",
    "UnknownTierError": "errors",
    "default_governor": "governor.default",
    "Governor": "governor.governor",
    "BudgetCallback": "langchain.callback",
    "BudgetExceeded": "langchain.errors",
    "guard": "langchain.tasks",
    "task": "langchain.tasks",
    "open_ledger": "ledgers",
    "price_tool": "pricing.declare",
    "Trace": "trace.reader",
    "TaskReport": "trace.report",
}

__all__ = [
    "AgentBudgetError",
    "Budget",
    "BudgetCallback",
    "BudgetError",
    "BudgetExceeded",
    "BudgetWarning",
    "ConfigurationError",
    "Governor",
    "LedgerError",
    "LedgerUnavailableError",
    "Limit",
    "Meter",
    "PricingError",
    "ReservationConflictError",
    "StopReport",
    "TaskReport",
    "Trace",
    "TraceError",
    "TraceFormatError",
    "TraceVersionError",
    "UnknownModelError",
    "UnknownTierError",
    "Usage",
    "__version__",
    "default_governor",
    "guard",
    "open_ledger",
    "price_tool",
    "task",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        msg = f"module 'agentbudget' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"agentbudget.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
