"""Budgets of the agent itself, set aside: while a check runs, its governors write to books that are thrown away."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agentbudget.estimating.estimator import Estimator
from agentbudget.estimating.vocabulary import Vocabulary
from agentbudget.governor.appraisal import Appraiser, Unpriced
from agentbudget.governor.default import default_governor
from agentbudget.governor.governor import GOVERNORS, Governor
from agentbudget.governor.reports import Reports
from agentbudget.langchain.callback import BudgetCallback
from agentbudget.langchain.middleware import BudgetMiddleware

ONE_AT_A_TIME = threading.Lock()


@contextmanager
def set_aside(budgets: Iterable[object]) -> Iterator[None]:
    """Within the block every governor of the process has a memory ledger, no trace, no sinks, no shared limits, and its
    own prices; afterwards governors and the *budgets* of the agent are as they were.
    """
    default_governor()
    governors, handlers = list(GOVERNORS), list(budgets)
    before = [(governor, vars(governor)) for governor in governors]
    told = [(handler, dict(vars(handler)), _filed(handler)) for handler in handlers]
    for governor in governors:
        governor.__dict__ = vars(_empty_as(governor))
    try:
        yield
    finally:
        for governor, state in before:
            governor.__dict__ = state
        for handler, attributes, filed in told:
            vars(handler).update(attributes)
            _refile(handler, filed)


def _empty_as(governor: Governor) -> Governor:
    empty = Governor(on_unpriced="allow", clock=governor.clock)
    book = governor.appraiser.book
    empty.appraiser = Appraiser(book, Estimator(vocabulary=Vocabulary()), Unpriced.ALLOW)
    return empty


def _filed(handler: object) -> dict[str, object]:
    reports = getattr(handler, "reports", None)
    return dict(reports._tasks) if isinstance(reports, Reports) else {}  # noqa: SLF001 - put back as it was


def _refile(handler: object, filed: dict[str, object]) -> None:
    if isinstance(handler, BudgetCallback | BudgetMiddleware):
        tasks = handler.reports._tasks  # noqa: SLF001 - put back as it was
        for task_id in [each for each in tasks if each not in filed]:
            del tasks[task_id]
