"""What a provider billed against what was recorded: by day and model, every dollar of either side in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.history import History
from agentbudget.finops.reconcile_bill import USAGE, Bill, BillOptions, read_bill
from agentbudget.finops.reconcile_names import Names
from agentbudget.finops.reconcile_prices import WrongPrice, wrong_prices
from agentbudget.finops.reconcile_shift import Shift, better_shift
from agentbudget.pricing.book import PriceBook

Status = Literal["both", "unmetered", "unbilled", "unpriced", "foreign"]
"""`both`: recorded and billed. `unmetered`: billed, not recorded. `unbilled`: recorded, not billed. `unpriced`: billed,
and recorded without a price. `foreign`: billed in a currency without a rate."""

TOLERANCE = Decimal("0.005")
"""Share of the money that may differ."""
_ZERO = Decimal(0)
_NANO = "0.000000001::DECIMAL(10, 9)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One day (or month) and model. Exact dollars."""

    period: str
    model: str
    recorded: Decimal
    billed: Decimal
    status: Status

    @property
    def variance(self) -> Decimal:
        """Billed less recorded; nothing is said of what is billed in another currency."""
        return _ZERO if self.status == "foreign" else self.billed - self.recorded

    @property
    def differs(self) -> Decimal:
        """The size of the variance; all of the line where it is not known."""
        return self.recorded + self.billed if self.status == "foreign" else abs(self.variance)

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {
            "period": self.period,
            "model": self.model,
            "recorded": _text(self.recorded),
            "billed": _text(self.billed),
            "variance": _text(self.variance),
            "status": self.status,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Two accounts of the same spend. `recorded` and `billed` are the sums of their lines. Exact dollars."""

    path: str
    bill: Bill
    lines: tuple[Line, ...]
    """Largest difference first."""
    other: dict[str, Decimal]
    """What the bill charges or credits that is no usage, by category: taxes, purchases, credits."""
    foreign: dict[str, Decimal]
    """Amounts in currencies without a rate, each in its own."""
    converted: dict[str, Decimal]
    """Dollars that were converted, by currency."""
    outside: Decimal
    """Recorded before the first or after the last day of the bill: compared with nothing."""
    estimated: Decimal
    """Recorded spend that rests on estimated usage."""
    prices: tuple[WrongPrice, ...]
    unknown_meters: Decimal
    """Billed on meters whose names say nothing: their unit prices are not compared."""
    shift: Shift | None
    """Days that begin at another hour, with which the two agree better."""
    tolerance: Decimal = TOLERANCE
    notes: tuple[str, ...] = field(default=())

    @property
    def recorded(self) -> Decimal:
        """Recorded in the time of the bill."""
        return sum((line.recorded for line in self.lines), start=_ZERO)

    @property
    def billed(self) -> Decimal:
        """Billed usage in dollars, converted amounts included."""
        return sum((line.billed for line in self.lines), start=_ZERO)

    @property
    def differs(self) -> Decimal:
        """What does not match: the sizes of all variances, and what was recorded where another currency was billed."""
        return sum((line.differs for line in self.lines), start=_ZERO)

    @property
    def share(self) -> Decimal:
        """`differs` as a share of the larger of the two sums; 1 where only one of them is nothing."""
        whole = max(abs(self.recorded), abs(self.billed))
        return self.differs / whole if whole else _ZERO

    @property
    def matches(self) -> bool:
        """Whether the two agree within the tolerance, and all of the bill could be read and compared."""
        return self.share <= self.tolerance and not self.foreign and not self.bill.unreadable

    def of(self, status: Status) -> Decimal:
        """Dollars of the lines of *status*: billed ones, else recorded ones."""
        return sum((line.billed or line.recorded for line in self.lines if line.status == status), start=_ZERO)

    def models(self) -> list[Line]:
        """The lines of each model as one, largest difference first; its period is empty.

        What was billed in another currency is a line of its own.
        """
        found: dict[tuple[str, bool], list[Line]] = {}
        for line in self.lines:
            found.setdefault((line.model, line.status == "foreign"), []).append(line)
        rows = [_together(model, lines) for (model, _), lines in found.items()]
        return sorted(rows, key=lambda row: (-row.differs, row.model))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        money = ("recorded", "billed", "differs", "share", "outside", "estimated", "unknown_meters", "tolerance")
        return {
            "path": self.path,
            "bill": self.bill.path,
            "columns": self.bill.columns,
            "matches": self.matches,
            **{name: _text(getattr(self, name)) for name in money},
            "variance": _text(self.billed - self.recorded),
            "unmetered": _text(self.of("unmetered")),
            "unbilled": _text(self.of("unbilled")),
            **{name: _plain(getattr(self, name)) for name in ("other", "foreign", "converted")},
            "unreadable_rows": self.bill.unreadable,
            "left_out": _text(self.bill.left_out),
            "shifted": _text(self.bill.shifted),
            "shift_hours": self.shift.hours if self.shift else None,
            "prices": [wrong.to_dict() for wrong in self.prices],
            "lines": [line.to_dict() for line in self.lines],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from agentbudget.finops.reconcile_text import text  # noqa: PLC0415 - it reads these values

        return text(self)


def reconcile(
    history: History,
    bill: str | PathLike[str],
    options: BillOptions | None = None,
    *,
    prices: Mapping[str, object] | str | Path | None = None,
    aliases: Mapping[str, str] | None = None,
    today: date | None = None,
    tolerance: Decimal = TOLERANCE,
) -> Reconciliation:
    """Compare what *history* recorded with the file *bill*; see `BillOptions` for how it is read.

    Days are those of the bill's time zone. Models are matched as the price book resolves their names, with *aliases*
    for deployments. Usage rows are matched with calls; everything else the bill says is summed up beside.

    Raises:
        ConfigurationError: a bill or an option that cannot be used: what, and what to do.
    """
    if not isinstance(tolerance, Decimal) or not 0 <= tolerance <= 1:
        msg = f"tolerance={tolerance!r}: a share from 0 to 1, as a Decimal."
        raise ConfigurationError(msg)
    options = options or BillOptions()
    found = read_bill(history, bill, options)
    Names(PriceBook(overrides=prices, aliases=aliases), today=today or datetime.now(UTC).date()).table(history)
    _dollars(history, options)
    outcome = _compared(history, found, options, tolerance)
    if outcome.share <= tolerance or found.month:
        return outcome
    return replace(outcome, shift=better_shift(history, outcome.differs, options.timezone))


def _compared(history: History, found: Bill, options: BillOptions, tolerance: Decimal) -> Reconciliation:
    """The bill in the tables `bill`, `bill_dollars` and `names` against the calls of its time."""
    (span,) = history.rows("SELECT min(period) AS first, max(period) AS last FROM bill")
    if span["first"] is None:
        msg = f"{found.path}: no row with a time and an amount ({'; '.join(found.examples) or 'it is empty'})."
        raise ConfigurationError(msg)
    period = _period(options, month=found.month)
    within = f"{period} BETWEEN {quoted(span['first'])} AND {quoted(span['last'])}"
    lines = _lines(history, period, within)
    (rest,) = history.rows(f"""
        SELECT coalesce(sum(cost) FILTER (NOT ({within})), 0) * {_NANO} AS outside,
               coalesce(sum(cost) FILTER (estimated AND {within}), 0) * {_NANO} AS estimated FROM calls
    """)  # noqa: S608 - constants and quoted values
    wrong, unknown = wrong_prices(history, within)
    return Reconciliation(
        path=history.path,
        bill=found,
        lines=tuple(lines),
        other=_sums(history, "category", f"category <> '{USAGE}' AND dollars IS NOT NULL", "dollars"),
        foreign=_sums(history, "currency", "dollars IS NULL", "cost"),
        converted=_sums(history, "currency", "currency <> 'USD' AND dollars IS NOT NULL", "dollars"),
        outside=_exact(rest["outside"]),
        estimated=_exact(rest["estimated"]),
        prices=tuple(wrong),
        unknown_meters=unknown,
        shift=None,
        tolerance=tolerance,
        notes=(f"{len(history.problems):,} lines or files of the traces could not be read",)
        if history.problems
        else (),
    )


def _dollars(history: History, options: BillOptions) -> None:
    """Make the table `bill_dollars`: the bill with the key of its model, and dollars where they are known."""
    rates = " ".join(
        f"WHEN {quoted(currency.upper())} THEN cost::DECIMAL(26, 9) * {rate:f}::DECIMAL(12, 9)"
        for currency, rate in options.rates.items()
    )
    history.con.execute(f"""
        CREATE OR REPLACE TEMP TABLE bill_dollars AS
        SELECT bill.*, key, (CASE currency WHEN 'USD' THEN cost {rates} END)::DECIMAL(38, 18) AS dollars
        FROM bill JOIN names ON side = 'bill' AND names.provider = bill.provider AND names.model = bill.model
    """)  # noqa: S608 - numbers, and quoted names


def _period(options: BillOptions, *, month: bool) -> str:
    """The day or month of a call in the zone of the bill, as SQL."""
    form = "%Y-%m" if month else "%Y-%m-%d"
    return f"strftime(ended AT TIME ZONE {quoted(options.timezone)}, '{form}')"


def _lines(history: History, period: str, within: str) -> list[Line]:
    rows = history.rows(f"""
        WITH ours AS (
            SELECT {period} AS period, key, sum(cost)::DECIMAL(28, 0) * {_NANO} AS recorded,
                   count(*) FILTER (kind = 'model' AND NOT priced) AS unpriced
            FROM calls JOIN names ON side = 'calls' AND names.provider = coalesce(calls.provider, '')
                                  AND names.model = coalesce(nullif(calls.model, ''), calls.name)
            WHERE {within} AND outcome <> 'denied' AND (cost > 0 OR NOT priced) GROUP BY ALL
        ), theirs AS (
            SELECT period, key, coalesce(sum(dollars), 0) AS billed, bool_or(dollars IS NULL) AS hidden
            FROM bill_dollars WHERE category = '{USAGE}' GROUP BY ALL
        )
        SELECT coalesce(ours.period, theirs.period) AS period, coalesce(ours.key, theirs.key) AS model,
               coalesce(recorded, 0) AS recorded, coalesce(billed, 0) AS billed,
               coalesce(unpriced, 0) AS unpriced, coalesce(hidden, false) AS hidden
        FROM ours FULL JOIN theirs ON ours.period = theirs.period AND ours.key = theirs.key
    """)  # noqa: S608 - constants and quoted values
    lines = [
        Line(
            period=row["period"],
            model=row["model"],
            recorded=_exact(row["recorded"]),
            billed=_exact(row["billed"]),
            status=_status(row),
        )
        for row in rows
        if row["recorded"] or row["billed"] or row["hidden"]
    ]
    return sorted(lines, key=lambda line: (-line.differs, line.period, line.model))


def _status(row: Mapping[str, Any]) -> Status:
    if row["hidden"]:
        return "foreign"
    if row["recorded"]:
        return "both" if row["billed"] else "unbilled"
    return "unpriced" if row["unpriced"] else "unmetered"


def _sums(history: History, by: str, where: str, what: str) -> dict[str, Decimal]:
    query = f"SELECT {by} AS name, sum({what}) AS sum FROM bill_dollars WHERE {where} GROUP BY ALL"  # noqa: S608 - constants
    rows = history.rows(query)
    return {row["name"]: _exact(row["sum"]) for row in sorted(rows, key=lambda row: str(row["name"]))}


def _together(model: str, lines: list[Line]) -> Line:
    statuses = {line.status for line in lines}
    return Line(
        period="",
        model=model,
        recorded=sum((line.recorded for line in lines), start=_ZERO),
        billed=sum((line.billed for line in lines), start=_ZERO),
        status=statuses.pop() if len(statuses) == 1 else "both",
    )


def _exact(amount: Decimal | int) -> Decimal:
    """Without the zeros of its column."""
    plain = Decimal(amount).normalize()
    return plain or _ZERO


def _text(amount: Decimal) -> str:
    return f"{_exact(amount):f}"


def _plain(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: _text(amount) for name, amount in amounts.items()}
