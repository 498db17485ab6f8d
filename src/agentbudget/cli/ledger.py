"""`agentbudget ledger`: balances, proofs, limits and the journal of a ledger."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from agentbudget.cli.ledger_account import account_named, account_used, pair
from agentbudget.domain.accounts import Account, Balance, Meter, normal
from agentbudget.domain.ledger import JournalEntry, Ledger
from agentbudget.domain.money import nanos
from agentbudget.domain.windows import window_end
from agentbudget.errors import ConfigurationError
from agentbudget.governor.explanation import Standing, explanation_of
from agentbudget.governor.stopping import is_idle_mark
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.slices import recall_slices
from agentbudget.ledgers.slices.recall import RECALL

ENVIRONMENT = "AGENTBUDGET_LEDGER"
_URL_HELP = f"the ledger's URL; by default what {ENVIRONMENT} says, since everybody can read a command line"
_COLUMNS = ("limit", "settled", "reserved", "presumed", "overrun", "available")
_SECONDS_A_DAY = 86_400
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula."""


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser("ledger", help="balances, proofs, limits and the journal of a ledger")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    show = _verb(verbs, "show", _show, "what each account may spend, has spent and has reserved")
    _add_filter(show)
    _verb(verbs, "verify", _verify, "prove every balance from the journal")
    top_up = _verb(verbs, "top-up", _top_up, "add to the limit of an account, once per grant")
    _add_account(top_up)
    top_up.add_argument("--amount", required=True, help="dollars for cost ('$5'), units otherwise")
    top_up.add_argument("--grant", default="", help="id of the grant; the same again adds nothing (default: a new one)")
    set_limit = _verb(verbs, "set-limit", _set_limit, "set the limit of an account, whatever the code declares")
    _add_account(set_limit)
    amount = set_limit.add_mutually_exclusive_group(required=True)
    amount.add_argument("--amount", help="dollars for cost ('$20'), units otherwise")
    amount.add_argument("--none", action="store_true", help="no limit")
    explain = _verb(
        verbs, "explain", _explain, "which limits a call with these scopes meets, and which is the tightest"
    )
    explain.add_argument("--scope", action="append", default=[], metavar="KIND=NAME", help="e.g. user=u42; repeat it")
    export = _verb(verbs, "export", _export, "the journal, an entry a line", json_too=False)
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    export.add_argument("--output", metavar="FILE", help="write to FILE instead of printing")
    collect = _verb(verbs, "collect", _collect, "forget accounts that are over, with their entries")
    _add_filter(collect)
    collect.add_argument("--over-for", type=float, metavar="DAYS", help="only windows that ended at least DAYS ago")
    collect.add_argument("--yes", action="store_true", help="do it; without, only show what would be forgotten")


def _verb(
    verbs: Any, name: str, run: Callable[..., int], about: str, *, json_too: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=about, description=about.capitalize() + ".")
    parser.add_argument("url", nargs="?", default=os.environ.get(ENVIRONMENT, ""), help=_URL_HELP)
    if json_too:
        parser.add_argument("--json", action="store_true", help="JSON, for machines; amounts in nano-dollars or units")
    parser.set_defaults(run=run)
    return parser


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scope", action="append", default=[], metavar="KIND[=NAME]", help="only accounts with it")
    parser.add_argument("--meter", choices=[meter.value for meter in Meter], help="only this meter")
    parser.add_argument("--window", help="only windows whose key begins so, e.g. 2026-11")


def _add_account(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scope", action="append", required=True, metavar="KIND=NAME", help="e.g. user=u42; repeat it")
    parser.add_argument("--meter", choices=[meter.value for meter in Meter], default=Meter.COST.value)
    parser.add_argument("--window", default="", help="its key (2026-11), or day, month ... for the one of now")
    parser.add_argument("--timezone", default="UTC", help="of a window that is named")


# -- verbs -------------------------------------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    with _opened(args.url) as ledger:
        found = [(account, ledger.balance(account)) for account in _filtered(ledger, args)]
    if args.json:
        print(json.dumps([_plain(account, balance) for account, balance in found], indent=2))
    else:
        print(_table([each for each in found if each[0] != RECALL and not is_idle_mark(each[0], each[1].limit)]))
    return 0


def _verify(args: argparse.Namespace) -> int:
    with _opened(args.url) as ledger:
        proof = ledger.verify()
    if args.json:
        plain = {"ok": proof.ok, "accounts": proof.accounts, "entries": proof.entries, "differences": proof.differences}
        print(json.dumps(plain, indent=2))
    else:
        outcome = "every balance is proved" if proof.ok else f"{len(proof.differences)} balances differ"
        print(f"{proof.accounts:,} accounts, {proof.entries:,} entries: {outcome}.")
        for difference in proof.differences:
            print(f"  {difference}")
    return 0 if proof.ok else 1


def _top_up(args: argparse.Namespace) -> int:
    account = _account(args)
    amount = _amount(account, args.amount)
    with _opened(args.url) as ledger:
        account = _used(ledger, account)
        return _changed(args, account, ledger.top_up(args.grant or uuid.uuid4().hex, account, amount))


def _set_limit(args: argparse.Namespace) -> int:
    account = _account(args)
    amount = None if args.none else _amount(account, args.amount)
    with _opened(args.url) as ledger:
        account = _used(ledger, account)
        balance = ledger.set_limit(account, amount)
        recall_slices(ledger)
        return _changed(args, account, balance)


def _explain(args: argparse.Namespace) -> int:
    names = dict(pair(text) for text in args.scope)
    now = time.time()
    with _opened(args.url) as ledger:
        asked = [account for account in ledger.accounts() if set(account.scope) <= set(names.items())]
        current = [account for account in asked if (window_end(account.window) or now + 1) > now]
        balances = [(account, ledger.balance(account)) for account in current]
    told = explanation_of(
        names,
        [Standing(account=account, balance=balance) for account, balance in balances if balance.limit is not None],
    )
    print(json.dumps(told.to_dict(), indent=2) if args.json else told)
    return 0


def _export(args: argparse.Namespace) -> int:
    write = _write_csv if args.format == "csv" else _write_lines
    with _opened(args.url) as ledger:
        entries = ledger.journal()
        if args.output is None:
            write(entries, sys.stdout)
            return 0
        try:
            with Path(args.output).open("w", encoding="utf-8", newline="") as file:
                write(entries, file)
        except OSError as error:
            raise ConfigurationError(f"--output {args.output!r}: {error.strerror}.") from error
    return 0


def _collect(args: argparse.Namespace) -> int:
    if not args.scope and args.over_for is None:
        raise ConfigurationError("collect: say what: --scope task=ID, --over-for DAYS, or both.")
    if args.over_for is not None and not 0 <= args.over_for < math.inf:
        raise ConfigurationError(f"--over-for {args.over_for:g}: a number of days, 0 or more.")
    with _opened(args.url) as ledger:
        found = [
            account for account in _filtered(ledger, args) if args.over_for is None or _is_over(account, args.over_for)
        ]
        dropped = ledger.collect(found) if args.yes else 0
    if args.json:
        print(json.dumps({"found": [account.key for account in found], "forgotten": dropped}, indent=2))
        return 0
    for account in found:
        print(account)
    told = f"{dropped:,} forgotten" if args.yes else "nothing forgotten; add --yes to do it"
    print(f"{len(found):,} accounts: {told}. Where something is reserved an account stays.")
    return 0


# -- reading arguments -------------------------------------------------------------------------------------------------


@contextmanager
def _opened(url: str) -> Iterator[Ledger]:
    """The ledger, which must exist: a misspelt file is not made anew."""
    if not url:
        raise ConfigurationError(f"ledger: no URL; give one, or set {ENVIRONMENT}.")
    parts = urlsplit(url)
    if parts.scheme == "memory":
        raise ConfigurationError("ledger: 'memory:' lives in the process that uses it; nobody else can look into it.")
    path = unquote(parts.path).removeprefix("/")
    if parts.scheme == "sqlite" and path and not Path(path).exists():
        raise ConfigurationError(f"ledger {path!r}: no such file.")
    ledger = open_ledger(url)
    try:
        yield ledger
    finally:
        ledger.close()


def _account(args: argparse.Namespace) -> Account:
    return account_named(args.scope, args.meter, args.window, args.timezone)


def _used(ledger: Ledger, account: Account) -> Account:
    """*account* as calls know it; what may be a mistake is said."""
    account, note = account_used(ledger, account)
    if note:
        print(note, file=sys.stderr)
    return account


def _amount(account: Account, text: str) -> int:
    if account.meter is Meter.COST:
        return nanos(text, what="--amount")
    if not text.isascii() or not text.isdecimal():
        raise ConfigurationError(f"--amount {text!r}: a whole number of {account.meter.value}.")
    return int(text)


def _filtered(ledger: Ledger, args: argparse.Namespace) -> list[Account]:
    """The accounts that the filters of *args* let pass, sorted."""
    wanted = [pair(text) if "=" in text else (normal(text), None) for text in args.scope]
    found = []
    for account in ledger.accounts():
        scope = dict(account.scope)
        if all(kind in scope and name in (None, scope[kind]) for kind, name in wanted) and (
            (args.meter in (None, account.meter.value)) and account.window.startswith(args.window or "")
        ):
            found.append(account)
    return sorted(found, key=lambda account: (account.scope, account.meter, account.window))


def _is_over(account: Account, days: float) -> bool:
    end = window_end(account.window)
    return end is not None and end <= time.time() - days * _SECONDS_A_DAY


# -- printing ----------------------------------------------------------------------------------------------------------


def _changed(args: argparse.Namespace, account: Account, balance: Balance) -> int:
    print(json.dumps(_plain(account, balance), indent=2) if args.json else _table([(account, balance)]))
    return 0


def _plain(account: Account, balance: Balance) -> dict[str, Any]:
    columns = {name: getattr(balance, name) for name in (*_COLUMNS, "cut")}
    scope = [list(pair) for pair in account.scope]
    return {"scope": scope, "meter": account.meter.value, "window": account.window, **columns}


def _table(found: Sequence[tuple[Account, Balance]]) -> str:
    """The balances in columns that line up, amounts to the right."""
    rows: list[tuple[str, ...]] = [("scope", "meter", "window", *_COLUMNS)]
    for account, balance in found:
        amounts = (getattr(balance, name) for name in _COLUMNS)
        shown = ("-" if amount is None else account.meter.show(amount) for amount in amounts)
        scope = ", ".join(f"{kind} {name}" for kind, name in account.scope)
        rows.append((scope, account.meter.value, account.window or "-", *shown))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = len(rows[0]) - len(_COLUMNS)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _write_lines(entries: Iterable[JournalEntry], file: Any) -> None:
    for entry in entries:
        plain: Mapping[str, Any] = {
            "sequence": entry.sequence,
            "at": entry.at,
            "verb": entry.verb,
            "id": entry.id,
            "lines": [{"account": key, "amount": amount} for key, amount in entry.lines],
        }
        file.write(json.dumps(plain) + "\n")


def _write_csv(entries: Iterable[JournalEntry], file: Any) -> None:
    """One row a line of an entry; an entry without lines is a row without an account."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["sequence", "at", "verb", "id", "scope", "meter", "window", "amount"])
    for entry in entries:
        at = datetime.fromtimestamp(entry.at, UTC).isoformat()
        for key, amount in entry.lines or (("", ""),):
            account = account_of(key) if key else None
            scope = "/".join(f"{kind}={name}" for kind, name in account.scope) if account else ""
            meter, window = (account.meter.value, account.window) if account else ("", "")
            rows.writerow([entry.sequence, at, entry.verb, _cell(entry.id), _cell(scope), meter, window, amount])


def _cell(text: str) -> str:
    """*text* as a spreadsheet shows it, never as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
