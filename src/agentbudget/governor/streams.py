"""Streams: calls that grow while they run, in what they reserve and for how long."""

from __future__ import annotations

from agentbudget.domain.verdict import StopReport
from agentbudget.governor import plan, record
from agentbudget.governor.calls import Calls
from agentbudget.governor.hold import Hold


class Streams(Calls):
    """The part of a governor that keeps and extends the reservations of calls that are still running."""

    def extend(self, hold: Hold, output_tokens: int) -> StopReport | None:
        """Reserve a stream's growth to *output_tokens* in total; the reason if there is no room.

        What the stream already produced stays charged; the caller ends the stream.
        """
        if hold.resolved or output_tokens <= hold.estimate.output_tokens:
            return None
        after = self.appraiser.with_output(hold.call, hold.estimate, output_tokens)
        growth = plan.growth(hold.call, hold.estimate, after)
        key = f"{hold.key}+{len(hold.extensions) + 1}"
        with self._in_order:
            refused = self._reserve(key, hold.call, hold.lines, growth, hold.tasks[0])
            if refused is None:
                hold.extensions += ((key, growth),)
            else:
                stop, latch = refused
                if self._refused(hold.tasks, hold.call, stop, after, latch, attempt=hold.attempt, started=hold.started):
                    return stop
            hold.estimate = after
            with self.lock:
                self.recorder.emit(hold.tasks, record.extended(hold, self.clock.now()))
        return None

    def grow(self, hold: Hold, *, chunks: int, size: int) -> StopReport | None:
        """A stream has produced *chunks* and *size* bytes: extend its reservation where it comes near its end.

        A declared cap is reserved in full from the start, so a stream under one never asks for more.
        """
        if hold.call.cap is not None:
            return None
        name, held = hold.call.name, hold.estimate.output_tokens
        produced = self.appraiser.estimator.output_so_far(name, chunks=chunks, bytes=size)
        more = self.appraiser.estimator.next_extension(name, held, produced)
        return self.extend(hold, held + more) if more else None

    def keep_alive(self, hold: Hold) -> None:
        """Renew the leases of a call that is still running once half of the lease has passed."""
        now = self.clock.monotonic()
        if hold.resolved or now < hold.renewed + self.lease_seconds / 2:
            return
        hold.renewed = now
        for key, _ in hold.parts:
            self.ledger.renew(key, lease_seconds=self.lease_seconds)
