"""Stopping a task by hand, from any thread or process that shares its ledger.

Each call of a task on a ledger that other processes can share takes 1 of a mark: an account of the task without a
limit. A stop pins that account to 0, so the next reservation of the task is refused, in whatever process, with no
round trip of its own. Processes that work from slices are told to look.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.ledger import Ledger
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import BudgetWarning, ConfigurationError
from agentbudget.governor.plan import STOPPED, STOPPED_DETAIL, STOPPED_REMEDY, Line
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import recall_slices

if TYPE_CHECKING:
    from agentbudget.governor.governor import Governor
    from agentbudget.governor.task import Task

_METERS: Final = (Meter.MODEL_CALLS, Meter.TOOL_CALLS)
_BY_HAND: Final = ("stopped", "by hand")


def marks_of(task_id: str, ledger: Ledger) -> tuple[Line, ...]:
    """What each call of the task takes so that a stop from elsewhere is seen; nothing where nobody else can stop it."""
    if isinstance(ledger, MemoryLedger):
        return ()
    return tuple(Line.of(account, None, STOPPED, task_id) for account in _accounts(task_id))


def is_idle_mark(account: Account, limit: int | None) -> bool:
    """Whether it only stands ready for a stop by hand that nobody has asked for: of no interest to people."""
    return limit is None and _BY_HAND in account.scope


def stop(task_id: str, *, ledger: str | Ledger | None = None) -> None:
    """Stop a running task by hand, from any thread of its process or from any process that shares its ledger.

    Nothing more is admitted for it and the tasks within it, not even a last answer; the refusal says that it was
    stopped. Calls in flight run to their end and are charged. `Governor.lift` lets it go on.

    Args:
        task_id: `TaskReport.task_id`, or the id that was given to `task`.
        ledger: where the task is kept, by URL or as a ledger, if it runs in another process; by default the ledgers of
            all governors of this process.

    Raises:
        ConfigurationError: no task with this id is open in this process, and no ledger is known that others share.
        LedgerUnavailableError: the ledger is out of reach.
    """
    from agentbudget.governor.governor import GOVERNORS  # noqa: PLC0415 - which imports this module

    governors = list(GOVERNORS)
    here = [found for each in governors if (found := each.find_task(task_id)) and found.is_open]
    for task in here:
        _stop_here(task)
    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    ledgers = [each.ledger for each in governors] if opened is None else [opened]
    if here and opened is None:
        ledgers = [task.governor.ledger for task in here]
    shared = [each for each in ledgers if not isinstance(each, MemoryLedger)]
    if not here and not shared:
        msg = (
            f"task {task_id!r} is not open in this process. If it runs in another one, say which ledger they share: "
            "stop(task_id, ledger='sqlite:///spend.db')."
        )
        raise ConfigurationError(msg)
    try:
        known = [_mark(each, task_id, 0) for each in shared]
        for each in shared:
            recall_slices(each)
    finally:
        if opened is not None and isinstance(ledger, str):
            opened.close()
    if not here and not any(known):
        warnings.warn(
            f"task {task_id!r} has made no call yet that its ledger knows of; it is refused if it begins.",
            BudgetWarning,
            stacklevel=2,
        )


def lift(task: Task) -> None:
    """Take the mark of *task* away, if others may have set it."""
    if task.marks:
        _mark(task.governor.ledger, task.id, None)


def unlatch(task: Task, others: Iterable[Task]) -> bool:
    """Lift the stop of *task*, and where an open one of the *others* within it was refused for it, too; whether there
    was any."""
    found = task.stop is not None
    task.stop, task.last_answer = None, ""
    for each in others:
        if each.stop is not None and each.stop.task_id == task.id and each.is_open and task in each.ancestors:
            each.stop, each.last_answer = None, ""
            found = True
    return found


def _stop_here(task: Task) -> None:
    governor: Governor = task.governor
    by_hand = StopReport(
        limit=STOPPED,
        call=f"task {task.name}",
        detail=STOPPED_DETAIL,
        remedy=STOPPED_REMEDY,
        task_id=task.id,
        task=task.name,
    )
    with governor.lock:
        task.last_answer = "used"
        task.stop = None  # a stop by hand is final, whatever stop there was
        governor.stop_task(task, by_hand)


def _mark(ledger: Ledger, task_id: str, limit: int | None) -> bool:
    """Pin the marks of the task; whether the ledger knew of a call of it."""
    seen = [ledger.set_limit(account, limit) for account in _accounts(task_id)]
    return any(balance.committed for balance in seen)


def _accounts(task_id: str) -> list[Account]:
    return [Account((("task", task_id), _BY_HAND), meter) for meter in _METERS]
