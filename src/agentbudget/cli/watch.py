"""`agentbudget watch`: look at budgets, and page before one breaks."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from typing import Any

from agentbudget.trace.files import Problem


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser("watch", help="watch budgets and raise alarms before one breaks")
    parser.add_argument("config", metavar="WATCH.toml", help="budgets, receivers, traces and ledger")
    parser.add_argument("--once", action="store_true", help="one look, for cron; exit code 1 where something fires")
    parser.add_argument("--json", action="store_true", help="one JSON object a look, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look once or for ever."""
    from agentbudget.finops.alarms import config, watch
    from agentbudget.finops.alarms.delivery import Delivery, deliver
    from agentbudget.finops.alarms.sources import LedgerSource, TraceSource
    from agentbudget.finops.alarms.state import AlarmState
    from agentbudget.ledgers import open_ledger

    found = config.load(args.config)
    with ExitStack() as cleanup:
        state = cleanup.enter_context(AlarmState(found.state))
        ledger = None
        if found.ledger is not None:
            book = open_ledger(found.ledger)
            cleanup.callback(book.close)
            ledger = LedgerSource(book)
        traces = TraceSource(state.db, found.traces, found.watched)
        eye = watch.Watch(found.watched, traces=traces, state=state, ledger=ledger)
        if args.once:
            look = eye.look(time.time(), on_problem=_complain)
            _show(look, as_json=args.json)
            failures = [deliver(alert, sink) for alert in look.told for sink in found.sinks]
            failures += [deliver(alert, sink) for alert in look.goes_on for sink in found.sinks if sink.resends]
            return int(bool(state.firing) or any(failures))
        loud = Delivery(found.sinks)
        again = Delivery([sink for sink in found.sinks if sink.resends])
        print(f"watching {len(found.watched)} budgets every {found.every:g} s; stop with Ctrl-C", file=sys.stderr)

        def tell(look: watch.Look) -> None:
            _show(look, as_json=args.json)
            for alert in look.told:
                loud.put(alert)
            for alert in look.goes_on:
                again.put(alert)

        try:
            watch.run(eye, tell, every=found.every, clock=time.time, sleep=time.sleep, on_problem=_complain)
        except KeyboardInterrupt:
            return 0
        finally:
            loud.drain(5.0)
    return 0


def _show(look: Any, *, as_json: bool) -> None:
    if as_json:
        told = {name: [alert.to_dict() for alert in getattr(look, name)] for name in ("told", "goes_on")}
        print(json.dumps({"at": look.at, **told}), flush=True)
        return
    for alert in (*look.told, *look.goes_on):
        mark = "resolved" if alert.status == "resolved" else alert.severity
        print(f"{alert.time}  {mark:9} {alert.summary}", flush=True)
    if not look.told and not look.goes_on:
        print("all budgets are fine", flush=True)


def _complain(problem: Problem) -> None:
    print(f"agentbudget: skipped {problem}", file=sys.stderr)
