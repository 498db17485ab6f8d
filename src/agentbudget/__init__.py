"""An agent-runtime cost governor for LangChain and LangGraph: meter, admit, stop, record.

The public face. Importing it loads no framework; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module

from agentbudget.version import VERSION as __version__  # noqa: N811 - the name Python tools look for

TYPE_CHECKING = False  # as type checkers understand it; importing `typing` would be most of the cost of this module
if TYPE_CHECKING:
    from typing import Any

    from agentbudget.checking.check import check
    from agentbudget.domain.accounts import Meter
    from agentbudget.domain.alerts import Crossing
    from agentbudget.domain.budget import Budget, Limit
    from agentbudget.domain.failure import FailOpen
    from agentbudget.domain.loops import Loops, Thresholds
    from agentbudget.domain.retries import RetryRatio
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
        UnknownOutcomeError,
        UnknownTierError,
    )
    from agentbudget.governor.default import default_governor
    from agentbudget.governor.governor import Governor
    from agentbudget.governor.polling import polling
    from agentbudget.governor.stopping import stop
    from agentbudget.langchain.acting import current_tasks
    from agentbudget.langchain.callback import BudgetCallback
    from agentbudget.langchain.errors import BudgetExceeded
    from agentbudget.langchain.middleware import BudgetMiddleware
    from agentbudget.langchain.model import governed
    from agentbudget.langchain.repeats import idempotent
    from agentbudget.langchain.tasks import guard, task
    from agentbudget.langchain.transport import watch
    from agentbudget.ledgers import open_ledger
    from agentbudget.pricing.declare import price_tool
    from agentbudget.pricing.selfhosted import SelfHosted, Served
    from agentbudget.replay.calibrate import calibrate
    from agentbudget.testing.assertions import assert_no_loops, assert_priced, assert_within
    from agentbudget.trace.reader import Trace
    from agentbudget.trace.report import TaskReport

_HOME = {
    "check": "checking.check",
    "Meter": "domain.accounts",
    "Crossing": "domain.alerts",
    "Budget": "domain.budget",
    "Limit": "domain.budget",
    "FailOpen": "domain.failure",
    "Loops": "domain.loops",
    "Thresholds": "domain.loops",
    "RetryRatio": "domain.retries",
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
    "UnknownOutcomeError": "errors",
    "UnknownTierError": "errors",
    "default_governor": "governor.default",
    "stop": "governor.stopping",
    "Governor": "governor.governor",
    "polling": "governor.polling",
    "current_tasks": "langchain.acting",
    "BudgetCallback": "langchain.callback",
    "BudgetExceeded": "langchain.errors",
    "BudgetMiddleware": "langchain.middleware",
    "governed": "langchain.model",
    "idempotent": "langchain.repeats",
    "guard": "langchain.tasks",
    "task": "langchain.tasks",
    "watch": "langchain.transport",
    "open_ledger": "ledgers",
    "price_tool": "pricing.declare",
    "SelfHosted": "pricing.selfhosted",
    "Served": "pricing.selfhosted",
    "calibrate": "replay.calibrate",
    "assert_no_loops": "testing.assertions",
    "assert_priced": "testing.assertions",
    "assert_within": "testing.assertions",
    "Trace": "trace.reader",
    "TaskReport": "trace.report",
}

__all__ = [
    "AgentBudgetError",
    "Budget",
    "BudgetCallback",
    "BudgetError",
    "BudgetExceeded",
    "BudgetMiddleware",
    "BudgetWarning",
    "ConfigurationError",
    "Crossing",
    "FailOpen",
    "Governor",
    "LedgerError",
    "LedgerUnavailableError",
    "Limit",
    "Loops",
    "Meter",
    "PricingError",
    "ReservationConflictError",
    "RetryRatio",
    "SelfHosted",
    "Served",
    "StopReport",
    "TaskReport",
    "Thresholds",
    "Trace",
    "TraceError",
    "TraceFormatError",
    "TraceVersionError",
    "UnknownModelError",
    "UnknownOutcomeError",
    "UnknownTierError",
    "Usage",
    "__version__",
    "assert_no_loops",
    "assert_priced",
    "assert_within",
    "calibrate",
    "check",
    "current_tasks",
    "default_governor",
    "governed",
    "guard",
    "idempotent",
    "open_ledger",
    "polling",
    "price_tool",
    "stop",
    "task",
    "watch",
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
