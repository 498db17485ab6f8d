"""Retry budgets: how often one operation may be tried, and how many retries many tasks may make together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.retries import RetryRatio
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import LedgerUnavailableError
from agentbudget.governor import plan
from agentbudget.governor.plan import Line
from agentbudget.governor.values import Called, Kind

if TYPE_CHECKING:
    from agentbudget.domain.ledger import Ledger
    from agentbudget.governor.task import Task

_OPTION = "max_retries_per_call"


def too_often(tasks: Iterable[Task], call: Called, attempt: int) -> tuple[StopReport, Task] | None:
    """Why the *attempt*-th attempt of *call* is one too many, and for which of *tasks*; None: it is not."""
    if attempt == 1:
        return None
    for task in tasks:
        most = task.budget.max_retries_per_call
        if most is not None and attempt - 1 > most:
            stop = plan.refusal(call, _OPTION, task, remedy=f"raise {_OPTION} to at least {attempt - 1} (1 more)")
            stop = replace(stop, scope=f"task {task.id}", meter=Meter.RETRIES.value, limit_amount=most)
            return replace(stop, requested=1, settled=attempt - 2), task
    return None


def ratio_lines(
    ratios: Iterable[RetryRatio], tasks: Sequence[Task], call: Called, *, retry: bool, ledger: Ledger, at: float
) -> list[Line]:
    """What *call* of *tasks* counts in the shared *ratios*, and how far a *retry* may fill them."""
    names = {**plan.names_of(tasks), call.kind: call.name}
    lines = []
    for ratio in ratios:
        accounts = ratio.accounts(names, at=at)
        if not accounts:
            continue
        counted = accounts[Meter.TOOL_CALLS if call.kind is Kind.TOOL else Meter.MODEL_CALLS]
        lines.append(Line.of(counted, None, "calls"))
        if retry:
            calls = _calls(accounts, ledger)
            lines.append(Line.of(accounts[Meter.RETRIES], ratio.most(calls), ratio.label(calls)))
    return lines


def _calls(accounts: Mapping[Meter, Account], ledger: Ledger) -> int:
    """Attempts so far that were no retries; 0 where the ledger cannot be reached, which the reservation will say."""
    try:
        made = {meter: ledger.balance(account).committed for meter, account in accounts.items()}
    except LedgerUnavailableError:
        return 0
    return made[Meter.MODEL_CALLS] + made[Meter.TOOL_CALLS] - made[Meter.RETRIES]
