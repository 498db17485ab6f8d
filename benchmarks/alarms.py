"""Alarms: how long before a budget breaks a tenfold bug is paged, and how often normal traffic pages anyone.

    python benchmarks/alarms.py [SEEDS]

Synthetic traffic by minute: the shape of a day, bursts of twenty minutes (lognormal, sigma 0.5), a price a call that
varies; the budget is 1.3 times what such a month costs. Each seed is judged once a minute by the rules of `agentbudget
watch`: over 14 days of it that are normal, and from the moment when everything is called ten times as often.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from agentbudget.finops.alarms.activity import Activity
from tests.finops.traces import START
from tests.finops.traffic import BUG_AT, MINUTES, month, traffic, watch, watched

BUG_DAYS, QUIET_DAYS, SEEN_DAYS = 30, 28, 14
PAGES = {"critical", "error"}


def lead(seed: int) -> tuple[int, int, float] | None:
    """Minutes from the bug to the page and from the page to the end of the budget, and the share spent when paged;
    None: the page came too late, or never."""
    budget = watched(1.3 * month(traffic(25, seed=seed)))
    minutes = traffic(BUG_DAYS, seed=seed, bug=10.0)
    activity = Activity(minutes)
    looks = watch(budget, minutes, BUG_AT, BUG_DAYS * MINUTES)
    paged = next((at for at, alerts in looks if any(alert.severity in PAGES for alert in alerts)), None)
    if paged is None:
        return None
    spent = activity.cost(START + paged * 60, paged * 60)
    if spent >= budget.limit.amount:
        return None
    for broke in range(paged, BUG_DAYS * MINUTES):
        if activity.cost(START + broke * 60, broke * 60) >= budget.limit.amount:
            return paged - BUG_AT, broke - paged, spent / budget.limit.amount
    return paged - BUG_AT, BUG_DAYS * MINUTES - paged, spent / budget.limit.amount


def false_alarms(seed: int) -> int:
    """Alarms that begin in 14 days of normal traffic, after 14 days that are only seen."""
    minutes = traffic(QUIET_DAYS, seed=seed)
    budget = watched(1.3 * month(minutes))
    begun, before = 0, set[str]()
    for _, alerts in watch(budget, minutes, SEEN_DAYS * MINUTES, QUIET_DAYS * MINUTES):
        keys = {alert.key for alert in alerts}
        begun += len(keys - before)
        before = keys
    return begun


def main(seeds: int) -> int:
    """Print the table; 1 where a page came too late, or normal traffic paged."""
    heads = ("page after the bug", "lead before it breaks", "spent when paged", "false alarms")
    print(f"{'seed':>4}", *(f"{head:>22}" for head in heads))
    leads, wrong, late = [], 0, 0
    for seed in range(seeds):
        found, false = lead(seed), false_alarms(seed)
        wrong += false
        if found is None:
            late += 1
            print(f"{seed:>4}", *(f"{cell:>22}" for cell in ("too late", "", "", false)))
            continue
        leads.append(found)
        cells = (f"{found[0]} min", f"{found[1] / 60:.1f} h", f"{found[2]:.1%}", false)
        print(f"{seed:>4}", *(f"{cell:>22}" for cell in cells))
    if leads:
        after, ahead = [one[0] for one in leads], [one[1] / 60 for one in leads]
        print(
            f"paged after {min(after)} to {max(after)} minutes (median {median(after):.0f}), "
            f"{min(ahead):.1f} to {max(ahead):.1f} hours before the budget breaks (median {median(ahead):.1f})"
        )
    weeks = seeds * (QUIET_DAYS - SEEN_DAYS) / 7
    print(f"false alarms a week of normal bursty traffic: {wrong / weeks:.2f} ({wrong} in {weeks:.0f} weeks)")
    return int(late > 0 or wrong > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
