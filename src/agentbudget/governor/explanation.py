"""Which limits a call has to pass, how much room each has, and which is the tightest: in numbers and in words."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from agentbudget.domain.accounts import Account, Balance, Meter, Posting
from agentbudget.domain.budget import Limit, is_named
from agentbudget.domain.ledger import Granted, Ledger
from agentbudget.domain.windows import window_end, zone
from agentbudget.governor.plan import Line, lines_of, tightest
from agentbudget.ledgers.plan import MAX_AMOUNT

RULE = (
    "A call has to fit into all of them. Where several count the same, the smallest holds; a limit set in the ledger "
    "wins over the declared one, and top-ups add to it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One limit that applies, as it stands now. Amounts are in the unit of the account's meter."""

    account: Account
    balance: Balance
    declared: int | None = None
    """What the code declares; the limit in force, `balance.limit`, may have been set or topped up in the ledger."""

    @property
    def available(self) -> int:
        """What may still be reserved."""
        return self.balance.available or 0

    @property
    def share_left(self) -> Fraction:
        """How much of the limit is left, from 0 to 1."""
        return Fraction(self.available, self.balance.limit) if self.balance.limit else Fraction(0)

    @property
    def resets_at(self) -> float | None:
        """When counting restarts, in seconds since 1970 UTC; None: never."""
        return window_end(self.account.window)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        balance = self.balance
        columns = {name: getattr(balance, name) for name in ("settled", "reserved", "presumed", "overrun", "cut")}
        return {
            "scope": [list(pair) for pair in self.account.scope],
            "meter": self.account.meter.value,
            "window": self.account.window,
            "limit": balance.limit,
            "declared": self.declared,
            "available": self.available,
            **columns,
            "resets_at": self.resets_at,
        }

    def __str__(self) -> str:
        balance, show = self.balance, self.account.meter.show
        taken = [(balance.settled, "spent"), (balance.reserved, "reserved"), (balance.presumed, "presumed spent")]
        parts = [f"{show(amount)} {word}" for amount, word in taken if amount] or ["nothing spent"]
        if self.declared is not None and self.declared != balance.limit:
            parts.append(f"declared as {show(self.declared)}")
        until = f", until {_moment(self.resets_at, self.account.window)}" if self.resets_at else ""
        return f"{self.account}: {show(self.available)} left of {show(balance.limit or 0)} ({', '.join(parts)}){until}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What limits a call; printed, it says so in words."""

    names: Mapping[str, str]
    """The scopes that were asked about."""
    limits: tuple[Standing, ...]
    """What applies, the tightest first: by the share of the limit that is left."""
    others: tuple[tuple[str, str], ...] = ()
    """Limits that do not apply, and why."""

    @property
    def tightest(self) -> Standing | None:
        """The limit with the smallest share left; None where none applies."""
        return self.limits[0] if self.limits else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "names": dict(self.names),
            "limits": [standing.to_dict() for standing in self.limits],
            "others": [{"limit": limit, "why": why} for limit, why in self.others],
            "rule": RULE,
        }

    def __str__(self) -> str:
        whom = ", ".join(f"{kind} {name!r}" for kind, name in self.names.items()) or "a call without scopes"
        lines = [f"No limit applies to {whom}."]
        if self.tightest is not None:
            share = f"{float(self.tightest.share_left) * 100:.0f} %"
            many = "1 limit applies" if len(self.limits) == 1 else f"{len(self.limits)} limits apply"
            lines = [f"{many} to {whom}, the tightest first ({share} of it is left):"]
            lines += [f"  {number}. {standing}" for number, standing in enumerate(self.limits, 1)]
            lines.append(RULE)
        lines += [f"Does not apply: {limit}, since {why}." for limit, why in self.others]
        return "\n".join(lines)


def explain(
    ledger: Ledger, limits: Sequence[Limit], names: Mapping[str, str], *, own: Sequence[Line], at: float
) -> Explanation:
    """Which of the shared *limits*, beside a task's *own*, a call with the scopes *names* meets at the time *at*."""
    lines = tightest([*own, *lines_of(limits, names, at=at)])
    others = not_applying(limits, names) + superseded(limits, names, lines, at=at)
    return explanation_of(names, standings(ledger, lines), others)


def explanation_of(
    names: Mapping[str, str], found: Iterable[Standing], others: Sequence[tuple[str, str]] = ()
) -> Explanation:
    """The explanation of limits as they were *found*: the tightest first."""
    return Explanation(names=names, limits=tuple(sorted(found, key=lambda one: one.share_left)), others=tuple(others))


def standings(ledger: Ledger, lines: Sequence[Line]) -> list[Standing]:
    """How the limits of *lines* stand, as of one moment.

    Asked of the ledger as a reservation of everything, which is refused with the balances and leaves no record; so the
    limit in force is the one that a call of these lines would meet.
    """
    if not lines:
        return []
    probe = uuid.uuid4().hex
    answer = ledger.reserve(
        probe, [Posting(line.account, MAX_AMOUNT, line.within) for line in lines], lease_seconds=1.0
    )
    if isinstance(answer, Granted):  # limits as large as can be, and nothing spent
        ledger.release(probe)
        return [Standing(account=line.account, balance=Balance(limit=MAX_AMOUNT), declared=line.most) for line in lines]
    seen = {short.account: short.balance for short in answer.shortfalls}
    return [
        Standing(account=line.account, balance=seen[line.account], declared=line.within)
        for line in lines
        if line.account in seen and seen[line.account].limit is not None
    ]


def not_applying(limits: Iterable[Limit], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those of *limits* that mean nothing for *names*, and why."""
    found = []
    for limit in limits:
        other = [
            f"{tag} is {_told(names.get(tag))}" for tag, value in limit.where.items() if not is_named(names, tag, value)
        ]
        missing = [f"no {kind} is named" for kind in limit.scope if kind not in names]
        if other or missing:
            found.append((described(limit), " and ".join([*missing, *other])))
    return found


def superseded(
    limits: Iterable[Limit], names: Mapping[str, str], lines: Iterable[Line], *, at: float
) -> list[tuple[str, str]]:
    """Those of *limits* whose account has a smaller limit among *lines*."""
    holding = {line.account: line for line in lines}
    found = []
    for limit in limits:
        account = limit.account(names, at=at)
        line = holding.get(account) if account is not None else None
        if line is not None and line.within is not None and line.within < limit.amount:
            found.append((described(limit), f"{limit.meter.show(line.within)} for the same is smaller"))
    return found


def described(limit: Limit) -> str:
    """*limit* in words."""
    window = f" a {limit.window.value}" if limit.window.value != "never" else ""
    where = "".join(f" where {tag} is {value!r}" for tag, value in limit.where.items())
    unit = "" if limit.meter is Meter.COST else f" {limit.meter.value}"
    return f"{limit.meter.show(limit.amount)}{unit}{window} for each {'/'.join(limit.scope)}{where}"


def _told(value: str | None) -> str:
    return "not said" if value is None else repr(value)


def _moment(at: float, window: str) -> str:
    timezone = window.partition(" ")[2] or "UTC"
    return f"{datetime.fromtimestamp(at, zone(timezone)):%Y-%m-%d %H:%M} {timezone}"
