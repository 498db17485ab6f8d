"""The Redis ledger for threads: each call blocks until the server has answered."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import RedisError
from redis.retry import Retry

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Granted, JournalEntry, OnExpire, Refused, ReservationState, Settled, Verification
from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers.redis import replies
from agentbudget.ledgers.redis.options import Options, options_of
from agentbudget.ledgers.redis.talk import Command, Plan, Verb, is_usable_after
from agentbudget.ledgers.redis.verbs import Verbs

Answer = TypeVar("Answer")


class RedisLedger:
    """A `Ledger` on a Redis or Valkey server, 7.0 or later.

    Safe under threads and after a fork: each call borrows a connection, and a child process makes its own. A lost
    connection is made anew and the verb sent again under the same id, three times in all.

    Args:
        url: `redis://`, `rediss://` or `unix://`; options `prefix`, `on_expire`, `retain_days` and
            `timeout` (seconds).
        clock: replaces the server's clock, for tests.

    Raises:
        ConfigurationError: a URL, user, password, server or stored ledger that cannot be used.
        LedgerUnavailableError: no answer.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._options = options_of(url)
        self._verbs = Verbs(self._options, clock)
        self._idle: deque[Connection] = deque()
        self._pid = os.getpid()
        self._closed = False
        self._carry_out(self._verbs.open())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.place!r}, prefix={self._options.prefix!r})"

    @property
    def name(self) -> str:
        """The same wherever its server is, which may move."""
        return f"Redis prefix {self._options.prefix}"

    @property
    def on_expire(self) -> OnExpire:
        """What an expired reservation means."""
        return self._options.on_expire

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve`."""
        return self._carry_out(self._verbs.reserve(reservation_id, postings, lease_seconds))

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent; see `Ledger.settle`."""
        return self._carry_out(self._verbs.settle(reservation_id, charges, alert_at))

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; see `Ledger.release`."""
        return self._carry_out(self._verbs.release(reservation_id))

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew; see `Ledger.renew`."""
        return self._carry_out(self._verbs.renew(reservation_id, lease_seconds))

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add *amount* to the limit, once per *grant_id*; see `Ledger.top_up`."""
        return self._carry_out(self._verbs.top_up(grant_id, account, amount))

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*; see `Ledger.set_limit`."""
        return self._carry_out(self._verbs.set_limit(account, limit))

    def balance(self, account: Account) -> Balance:
        """The balance now; an unknown account has spent nothing."""
        return self._carry_out(self._verbs.balance(account))

    def accounts(self) -> Iterator[Account]:
        """Every account with a record, as of this moment."""
        return iter(self._carry_out(self._verbs.accounts()))

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget *accounts* of which nothing is reserved; see `Ledger.collect`."""
        return self._carry_out(self._verbs.collect(accounts))

    def journal(self) -> Iterator[JournalEntry]:
        """Every retained entry in order, as of this moment; all of them are read first."""
        return replies.journal(self._carry_out(self._verbs.read()))

    def verify(self) -> Verification:
        """Recompute every balance from the journal, as of this moment."""
        return replies.verification(self._carry_out(self._verbs.read()))

    def close(self) -> None:
        """Close the connections; later calls raise `LedgerUnavailableError`."""
        self._closed = True
        while self._idle:
            self._idle.pop().disconnect()  # type: ignore[no-untyped-call]  # redis-py

    def _carry_out(self, plan: Plan[Answer]) -> Answer:
        try:
            step = next(plan)
            while True:
                if isinstance(step, float):
                    time.sleep(step)
                    step = next(plan)
                else:
                    step = plan.send(self._send(step))
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def _send(self, request: Verb | Command) -> Any:
        """The reply, or the error where there is none."""
        if isinstance(request, tuple):
            return self._command(request)
        exchange = self._verbs.exchange([request])
        try:
            command = next(exchange)
            while True:
                command = exchange.send(self._command(command))
        except StopIteration as done:
            return done.value[0]

    def _command(self, command: Command) -> Any:
        if self._closed:
            raise LedgerUnavailableError(f"{self!r} is closed; open another.")
        connection = self._borrow()
        try:
            connection.send_command(*command)  # type: ignore[no-untyped-call]  # redis-py
            reply = connection.read_response()
        except (RedisError, OSError) as error:  # the plan decides what it means
            if is_usable_after(error):
                self._idle.append(connection)
            else:
                connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py
            return error
        except BaseException:
            # Its reply may still come, and would be taken for the next one's.
            connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py
            raise
        self._idle.append(connection)
        return reply

    def _borrow(self) -> Connection:
        if os.getpid() != self._pid:  # forked: the parent's connections are not ours to use or to shut down
            self._idle = deque()
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._options)


def connect(options: Options) -> Connection:
    """A connection that opens itself when it is first used, and does not retry by itself."""
    arguments = dict(options.connection)
    kind = arguments.pop("connection_class", Connection)
    made: Connection = kind(
        **arguments,
        socket_timeout=options.timeout,
        socket_connect_timeout=options.timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return made
