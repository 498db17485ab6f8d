"""Every error a user may catch, on one screen. Framework-free.

`BudgetExceeded` (in `agentbudget.langchain.errors`) also derives from a LangGraph class, so that no
retry policy, fallback or error handler of the host swallows it; it derives from `BudgetError` too.
"""

from __future__ import annotations


class AgentBudgetError(Exception):
    """Root of everything agentbudget raises on purpose."""


class ConfigurationError(AgentBudgetError, ValueError):
    """A limit, price or option that cannot mean anything. Raised at construction, before anything is paid."""


class BudgetError(AgentBudgetError):
    """A call was refused: a limit, a latch, an unpriced model or a ledger out of reach."""


class PricingError(AgentBudgetError):
    """A price could not be found or used."""


class UnknownModelError(PricingError, LookupError):
    """No price source knows this model. The message says how to price it."""


class UnknownTierError(PricingError, LookupError):
    """The model is priced, but not in this service tier."""


class UnpricedUsageError(PricingError, LookupError):
    """The model is priced, but not one kind of usage that the call had. The message names it."""


class LedgerError(AgentBudgetError):
    """The ledger refused a write or could not be reached."""


class LedgerUnavailableError(LedgerError):
    """The ledger is out of reach. The cause is chained; `fail=` of the governor decides what happens."""


class ReservationConflictError(LedgerError):
    """The same reservation id was used again with other terms."""


class ReservationNotFoundError(LedgerError, LookupError):
    """The verb needs a live reservation and there is none with this id."""


class LedgerSchemaError(LedgerError):
    """The stored ledger was written by an incompatible version."""


class TraceError(AgentBudgetError):
    """A trace could not be written or read."""


class TraceFormatError(TraceError, ValueError):
    """Not a trace of this project, or no usable line in it."""


class TraceVersionError(TraceError, ValueError):
    """The trace was written by a newer schema than this version reads."""


class UnknownOutcomeError(AgentBudgetError):
    """A call that must not be repeated was begun before, and nobody knows whether it took effect.

    The message says what to do. `key` is what `Once.forget` and `Once.resolve` take.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class BudgetWarning(UserWarning):
    """Something is not governed the way the user probably meant. The message names the fix."""
