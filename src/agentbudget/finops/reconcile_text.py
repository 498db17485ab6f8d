"""A reconciliation for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.finops.reconcile import Line, Reconciliation, Status
from agentbudget.trace.rendering import shown

MOST_LINES = 20
_WORDS = {
    "both": "",
    "unmetered": "billed, not recorded",
    "unbilled": "recorded, not billed",
    "unpriced": "recorded without a price",
    "foreign": "billed in another currency",
}
_WIDEST = 36


def text(found: Reconciliation) -> str:
    """The verdict, models, the days that differ most, prices, and everything that could not be compared."""
    verdict = "matches" if found.matches else "does not match"
    allowed = f"({found.share:.2%} of the money; {found.tolerance:.2%} is allowed)"
    variance = _money(found.billed - found.recorded, sign=True)
    lines = [
        f"{shown(found.bill.path)} {verdict}: {_money(found.differs)} differs {allowed}",
        f"  billed {_money(found.billed)}, recorded {_money(found.recorded)}, variance {variance}",
        f"  read as {', '.join(f'{role}={shown(column)}' for role, column in found.bill.columns.items())}",
        "",
        *_table(found.models(), ""),
    ]
    differing = [line for line in found.lines if line.differs]
    if differing:
        lines += ["", *_table(differing[:MOST_LINES], "month" if found.bill.month else "day")]
        if len(differing) > MOST_LINES:
            rest = sum((line.differs for line in differing[MOST_LINES:]), start=Decimal(0))
            lines.append(f"… and {len(differing) - MOST_LINES:,} more lines, in which {_money(rest)} differs")
    return "\n".join([*lines, *_prices(found), *_notes(found)])


def _table(rows: Sequence[Line], period: str) -> list[str]:
    head = ([period] if period else []) + ["model", "billed", "recorded", "variance", ""]
    cells = [head] + [
        ([row.period] if period else [])
        + [
            _cut(row.model),
            _money(row.billed),
            _money(row.recorded),
            "?" if row.status == "foreign" else _money(row.variance, sign=True),
            _WORDS[row.status],
        ]
        for row in rows
    ]
    left = {0, len(head) - 1} | ({1} if period else set())
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _prices(found: Reconciliation) -> Iterator[str]:
    for number, wrong in enumerate(found.prices[:MOST_LINES]):
        if not number:
            yield ""
            yield "unit prices that were recorded otherwise (dollars for a million tokens, or for one search):"
        yield (
            f"  {_cut(wrong.model)} {wrong.meter}: billed {_plain(wrong.billed)}, recorded {_plain(wrong.recorded)} "
            f"({shown(wrong.source.strip()) or 'unknown source'}); the record is off by "
            f"{_money(wrong.effect, sign=True)} for it"
        )
    if len(found.prices) > MOST_LINES:
        yield f"  … and {len(found.prices) - MOST_LINES:,} more"


def _notes(found: Reconciliation) -> list[str]:
    notes = list(_said(found))
    return ["", *notes] if notes else []


def _said(found: Reconciliation) -> Iterator[str]:
    of_billed, of_recorded = abs(found.billed), abs(found.recorded)
    gaps: tuple[tuple[Status, str, Decimal], ...] = (
        ("unmetered", "billed, and no such call is recorded", of_billed),
        ("unpriced", "billed, and recorded without a price: declare it with Governor(prices=...)", of_billed),
        ("unbilled", "recorded, and not billed", of_recorded),
    )
    for status, where, whole in gaps:
        amount = found.of(status)
        if amount:
            yield f"{_part(amount, whole)} {where}"
    for currency, amount in found.foreign.items():
        hidden = sum((line.recorded for line in found.lines if line.status == "foreign"), start=Decimal(0))
        yield (
            f"{currency} {amount:f} is in another currency and compared with nothing: {_part(hidden, of_recorded)} was "
            f"recorded there; give a rate, --rate {currency}=DOLLARS"
        )
    for currency, amount in found.converted.items():
        yield f"{_part(amount, of_billed)} was billed in {currency} and converted at the rate given"
    for category, amount in found.other.items():
        yield f"{_money(amount, sign=True)} is billed as {shown(category)}: no usage, compared with nothing"
    yield from _unsure(found)


def _unsure(found: Reconciliation) -> Iterator[str]:
    bill = found.bill
    if bill.unreadable:
        yield f"{bill.unreadable:,} rows of the bill have no usable time or amount: {shown('; '.join(bill.examples))}"
    if bill.left_out:
        yield f"{bill.left_out.normalize():f} is in rows that --only left out"
    if bill.shifted:
        yield (
            f"{_part(bill.shifted, found.billed)} is in days that begin at another hour than midnight here: the "
            "bill is in another time zone, say it with --timezone"
        )
    if found.shift is not None:
        yield (
            f"days that begin {abs(found.shift.hours)} hours {'later' if found.shift.hours > 0 else 'earlier'} would "
            f"leave {_money(found.shift.differs)} of difference: is the bill in another time zone (--timezone)?"
        )
    if found.outside:
        yield f"{_money(found.outside)} was recorded outside of the days of the bill, and is compared with nothing"
    if found.estimated:
        yield f"{_part(found.estimated, found.recorded)} of the record rests on estimated usage"
    if found.unknown_meters:
        yield f"{_part(found.unknown_meters, found.billed)} is on meters of other names: their prices are not compared"
    yield from found.notes


def _part(amount: Decimal, whole: Decimal) -> str:
    return f"{_money(amount)} ({abs(amount / whole):.2%})" if whole else _money(amount)


def _money(amount: Decimal, *, sign: bool = False) -> str:
    """Dollars, rounded to the nano-dollar; what is less is shown as it is."""
    nanos = round(amount * NANOS_PER_DOLLAR)
    if not nanos and amount:
        return f"${amount:f}" if amount > 0 else f"-${-amount:f}"
    return f"+{format_dollars(nanos)}" if sign and nanos > 0 else format_dollars(nanos)


def _plain(price: Decimal) -> str:
    """A price for people: no more than nine decimals, no zeros behind."""
    return f"{round(price, 9).normalize():f}"


def _cut(name: str) -> str:
    safe = shown(name)
    return safe if len(safe) <= _WIDEST else f"{safe[: _WIDEST - 1]}…"
