"""Every verb as a plan: what is sent, and what the reply means. Without I/O, and the same for both ledgers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, check_alert_at
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Granted, OnExpire, Refused, ReservationState, Settled
from agentbudget.errors import ConfigurationError, LedgerError, LedgerSchemaError, ReservationNotFoundError
from agentbudget.ledgers import plan
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.redis import replies
from agentbudget.ledgers.redis.options import Options
from agentbudget.ledgers.redis.talk import Command, Exchange, Plan, Verb, ask, exchange, verb
from agentbudget.ledgers.redis.terms import factor, shown

SCHEMA = "2"
OLDEST = (7, 0)
"""The first servers whose scripts may settle at maxmemory (`allow-oom`)."""
PAGE = 5_000
"""Journal entries a reply."""
READINGS = 5
WHOLE = 1_000_000
"""The size of a verb that goes alone."""
DAY = 86_400 * replies.SECOND
MAX_LEASE = 2**52
"""Longer leases end after this time, 142 years."""


class Verbs:
    """The plans of one ledger. A *clock* replaces the server's, for tests."""

    def __init__(self, options: Options, clock: Clock | None = None) -> None:
        self.options = options
        policy = "X" if options.on_expire is OnExpire.CHARGE else "Y"
        self._now = _time_of(clock)
        retained = [str(round(days * DAY)) for days in (options.retain_days, options.retain_tasks_days)]
        self._settings = (policy, *retained)

    def exchange(self, verbs: Sequence[Verb]) -> Exchange:
        """Have *verbs* carried out together; the reply of each, or the error in its place."""
        return exchange(verbs, self._head())

    def open(self) -> Plan[None]:
        """Refuse a server or a stored ledger that cannot keep the laws.

        Raises:
            ConfigurationError: too old, an evicting server, or a ledger whose expiry means something else.
            LedgerSchemaError: stored by an incompatible version.
        """
        place = self.options.place
        check_server((yield from ask(("INFO",), place=place)), place)
        schema, on_expire = yield from self._ask("open", SCHEMA, self.options.on_expire.value)
        if schema.decode() != SCHEMA:
            raise LedgerSchemaError(
                f"{place}: the ledger {self.options.prefix!r} has schema {schema.decode()}, this version reads "
                f"{SCHEMA}; upgrade agentbudget, or choose another ?prefix=."
            )
        if on_expire.decode() != self.options.on_expire:
            raise ConfigurationError(
                f"{place}: the ledger {self.options.prefix!r} was made with on_expire={on_expire.decode()!r}; "
                "use the same everywhere, or choose another ?prefix=."
            )

    def reserve(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float
    ) -> Plan[Granted | Refused]:
        """See `Ledger.reserve`."""
        plan.check_id(reservation_id)
        plan.check_lease(lease_seconds)
        lines: list[str | int] = []
        limits = []
        total = 0
        for account, amount, limit in postings:
            if not _fits(amount) or not (limit is None or _fits(limit)):
                break
            key = account.key
            total += factor(key) * amount
            lines += (key, amount)
            limits.append(plan.NO_LIMIT if limit is None else limit)
        if not lines or len(limits) != len(postings) or len(set(lines[::2])) != len(postings):
            plan.check_postings(postings)  # names the error
        reply = yield from self._ask(
            "reserve", reservation_id, _micros(lease_seconds), shown(total), limits, lines, size=len(limits)
        )
        return replies.granted(reply, reservation_id, postings)

    def settle(self, reservation_id: str, charges: Sequence[Charge], alert_at: AlertAt | None = None) -> Plan[Settled]:
        """See `Ledger.settle`."""
        plan.check_id(reservation_id)
        lines: list[str | int] = []
        held = []
        keys = set()
        terms = spent = 0
        for account, reserved, actual in charges:
            if not _fits(reserved) or not _fits(actual):
                break
            key = account.key
            keys.add(key)
            if reserved or actual:
                terms += factor(key) * reserved
                spent += factor(key) * actual
                lines += (key, actual)
                held.append(reserved)
        if not keys or len(keys) != len(charges):
            plan.check_charges(charges)  # names the error
        watched = "" if not alert_at else _watched(charges, alert_at)
        reply = yield from self._ask(
            "settle", reservation_id, shown(terms), shown(spent), watched, held, lines, size=len(held)
        )
        return replies.settled(reply, reservation_id)

    def release(self, reservation_id: str) -> Plan[ReservationState]:
        """See `Ledger.release`."""
        plan.check_id(reservation_id)
        return replies.state((yield from self._ask("release", reservation_id)))

    def renew(self, reservation_id: str, lease_seconds: float) -> Plan[ReservationState]:
        """See `Ledger.renew`."""
        plan.check_id(reservation_id)
        plan.check_lease(lease_seconds)
        reply = yield from self._ask("renew", reservation_id, _micros(lease_seconds))
        if reply is None:
            raise ReservationNotFoundError(f"no reservation {reservation_id!r} to renew: reserve it first.")
        return replies.state(reply)

    def top_up(self, grant_id: str, account: Account, amount: int) -> Plan[Balance]:
        """See `Ledger.top_up`."""
        plan.check_id(grant_id, what="grant_id")
        plan.check_amount(amount, what=f"top-up amount of {account}")
        reply = yield from self._ask("top_up", grant_id, account.key, amount)
        return replies.topped_up(reply, grant_id, account)

    def set_limit(self, account: Account, limit: int | None) -> Plan[Balance]:
        """See `Ledger.set_limit`."""
        plan.check_limit(limit)
        reply = yield from self._ask("set_limit", account.key, plan.NO_LIMIT if limit is None else limit)
        return replies.balance(reply)

    def balance(self, account: Account) -> Plan[Balance]:
        """See `Ledger.balance`."""
        return replies.balance((yield from self._ask("balance", account.key)))

    def collect(self, accounts: Sequence[Account]) -> Plan[int]:
        """See `Ledger.collect`."""
        dropped: int = yield from self._ask("collect", [account.key for account in accounts], size=WHOLE)
        return dropped

    def accounts(self) -> Plan[list[Account]]:
        """See `Ledger.accounts`."""
        _, _, found = yield from self._ask("read", "0", 0, size=WHOLE)
        return [account_of(key.decode()) for _, key, *_ in found]

    def read(self) -> Plan[replies.Snapshot]:
        """Everything, as of one moment: read anew where something was forgotten between two pages.

        Raises:
            LedgerError: that happened every time.
        """
        for _ in range(READINGS):
            entries: list[Any] = []
            epochs = set()
            last = "0"
            while True:
                epoch, page, accounts = yield from self._ask("read", last, PAGE, size=WHOLE)
                epochs.add(epoch)
                entries += page
                if len(page) < PAGE:
                    break
                last = page[-1][0].decode()
            if len(epochs) == 1:
                return replies.Snapshot(replies.stored(accounts), entries)
        raise LedgerError(f"{self.options.place}: the journal changed during each of {READINGS} readings; try again.")

    def _ask(self, name: str, *arguments: Any, size: int = 1) -> Plan[Any]:
        return ask(verb(name, *arguments, size=size), place=self.options.place)

    def _head(self) -> Command:
        return (self.options.meta, self._now(), *self._settings)


def _watched(charges: Sequence[Charge], alert_at: AlertAt) -> str:
    """The thresholds of each charge that is sent, by the account's key, which has no spaces."""
    check_alert_at(alert_at)
    sent = [account for account, reserved, actual in charges if reserved or actual]
    return " ".join(
        f"{account.key} {','.join(map(str, alert_at[account]))}" for account in sent if alert_at.get(account)
    )


def check_server(info: bytes, place: str) -> None:
    """Refuse a server whose *info* (the reply to INFO) says that it cannot keep a ledger.

    Raises:
        ConfigurationError: older than 7.0, or its maxmemory-policy may evict reservations.
    """
    told = _parse_info(info)
    version = told.get("redis_version", "")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise ConfigurationError(
            f"{place}: the server is version {version or 'unknown'}; a ledger needs Redis 7.0 or later, or Valkey."
        )
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(
            f"{place}: the server's maxmemory-policy is {policy!r}, which may evict what was spent; "
            "set it to 'noeviction', or use a server of its own for the ledger."
        )


def _parse_info(info: bytes) -> Mapping[str, str]:
    lines = [line.partition(":") for line in info.decode(errors="replace").splitlines()]
    return {name: value for name, colon, value in lines if colon}


def _fits(amount: object) -> bool:
    return type(amount) is int and 0 <= amount <= plan.MAX_AMOUNT


def _micros(seconds: float) -> int:
    return min(math.ceil(seconds * replies.SECOND), MAX_LEASE)


def _time_of(clock: Clock | None) -> Callable[[], str]:
    """What scripts are told about the time: nothing, unless a test brings its own."""
    if clock is None:
        return str
    epoch = clock.now() - clock.monotonic()
    return lambda: str(round((epoch + clock.monotonic()) * replies.SECOND))
