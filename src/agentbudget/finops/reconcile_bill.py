"""A provider's bill as a table: FOCUS (CSV or Parquet), or any CSV whose columns are named.

What cannot be read is counted and shown, never dropped: a reconciliation that leaves rows out proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from os import PathLike, fspath
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb

from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.history import History

ROLES = ("day", "end", "model", "provider", "meter", "quantity", "unit", "price", "cost", "currency", "category")
"""What a column of a bill can mean. `day` is when the charge began; `price` is for one `unit`."""

_FOCUS: Mapping[str, tuple[str, ...]] = {
    "day": ("ChargePeriodStart",),
    "end": ("ChargePeriodEnd",),
    "provider": ("ServiceProviderName", "ProviderName"),
    "meter": ("SkuMeter",),
    "quantity": ("PricingQuantity",),
    "unit": ("PricingUnit",),
    "price": ("ContractedUnitPrice",),
    "cost": ("EffectiveCost", "BilledCost"),
    "currency": ("BillingCurrency",),
    "category": ("ChargeCategory",),
}
_USUAL: Mapping[str, tuple[str, ...]] = {
    "day": ("date", "day", "usage_date", "start_time", "timestamp"),
    "model": ("model", "model_name", "model_id", "snapshot"),
    "provider": ("provider",),
    "cost": ("cost", "amount", "cost_usd", "amount_usd", "total"),
    "currency": ("currency",),
}
_MODEL_IDS = ("x_ModelId", "ModelId")
_SYMBOLS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_HAS_ZONE = r":\d\d(\.\d+)?\s*(Z|UTC|[+-]\d\d(:?\d\d)?)$"
_THOUSANDS = r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?"
_LONGEST_DAYS = 31
_MOST = 1000
"""Dollars for one of any currency."""
USAGE = "Usage"
EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BillOptions:
    """How a bill is to be read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Role (`day`, `model`, `cost` …) → column, in front of what is known of FOCUS and of usual names."""
    timezone: str = "UTC"
    """Whose days the bill counts, where its times do not say."""
    currency: str = "USD"
    """Of amounts that name none."""
    rates: Mapping[str, Decimal] = field(default_factory=dict)
    """Dollars for one unit of another currency: `{"EUR": Decimal("1.08")}`."""
    date_format: str | None = None
    """As of `strptime`, where dates are not as in ISO 8601: `%d/%m/%Y`."""
    decimal_comma: bool = False
    """Whether `1.234,56` is one thousand two hundred …"""
    only: Mapping[str, str] = field(default_factory=dict)
    """Column → value: other rows are somebody else's, and are only summed up."""

    def __post_init__(self) -> None:
        if unknown := [role for role in self.columns if role not in ROLES]:
            msg = f"columns: {unknown[0]!r} is none of {', '.join(ROLES)}."
            raise ConfigurationError(msg)
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as problem:
            msg = f"timezone={self.timezone!r}: no such zone, write e.g. Europe/Berlin."
            raise ConfigurationError(msg) from problem
        for currency, rate in self.rates.items():
            if not isinstance(rate, Decimal) or not rate.is_finite() or not 0 < rate < _MOST or rate != round(rate, 9):
                msg = f"rates[{currency!r}]={rate!r}: dollars for one {currency}, a Decimal of at most nine decimals."
                raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A bill that was read into the table `bill` of a history's engine."""

    path: str
    columns: dict[str, str]
    """Role → the column it was read from."""
    month: bool
    """Whether it can only be split by month: some rows cover more than a day."""
    unreadable: int
    """Rows without a usable time or amount."""
    examples: tuple[str, ...]
    left_out: Decimal
    """Amounts of rows that `only` left out, as they are, whatever the currency."""
    shifted: Decimal
    """Amounts of rows that last whole days which begin at another hour than midnight of the time zone."""


def read_bill(history: History, path: str | PathLike[str], options: BillOptions) -> Bill:
    """Make the temporary table `bill`: `row, period, provider, model, meter, quantity, size, price, cost, currency,
    category` (amounts as `DECIMAL(38, 18)`, `price` for `size` units), and say what it is.

    Raises:
        ConfigurationError: no such file, not readable, a column that is missing, a row that covers several months.
    """
    source = _source(path)
    try:
        history.con.execute(f"CREATE OR REPLACE TEMP VIEW bill_file AS SELECT * FROM {source}")  # noqa: S608 - quoted
        names = [row["column_name"] for row in history.rows("DESCRIBE bill_file")]
    except duckdb.Error as problem:
        msg = f"{path}: not a readable bill ({str(problem).splitlines()[0]})."
        raise ConfigurationError(msg) from problem
    columns = _columns(names, options, fspath(path))
    missing = [name for name in options.only if name not in names]
    if missing:
        msg = f"{path}: only: no column {missing[0]!r}; there are {', '.join(names)}."
        raise ConfigurationError(msg)
    only = " AND ".join(f"{_ident(name)} = {quoted(value)}" for name, value in options.only.items()) or "true"
    history.con.execute(_parsed(columns, names, options, only))
    (row,) = history.rows("SELECT max(days) AS longest FROM bill_rows WHERE ours AND cost IS NOT NULL")
    longest = row["longest"] or 0
    if longest > _LONGEST_DAYS:
        msg = f"{path}: a row covers {longest:.0f} days: export the bill by day or by month."
        raise ConfigurationError(msg)
    month = longest > 1
    history.con.execute(_table(month=month))
    return _described(history, fspath(path), columns, month=month)


def _source(path: str | PathLike[str]) -> str:
    name = quoted(fspath(path))
    if fspath(path).endswith(".parquet"):
        return f"read_parquet({name})"
    return f"read_csv({name}, all_varchar = true, header = true, quote = '\"', escape = '\"')"


def _columns(names: list[str], options: BillOptions, path: str) -> dict[str, str]:
    """Which column is what."""
    focus = "ChargePeriodStart" in names
    usual = {name.lower().replace(" ", "_"): name for name in reversed(names)}
    found: dict[str, str] = {}
    for role in ROLES:
        wanted = options.columns.get(role)
        if wanted is not None and wanted not in names:
            msg = f"{path}: {role}={wanted!r}: no such column; there are {', '.join(names)}."
            raise ConfigurationError(msg)
        known = [name for name in _FOCUS.get(role, ()) if name in names] if focus else []
        guessed = [usual[name] for name in _USUAL.get(role, ()) if name in usual] if not focus else []
        chosen = wanted or next(iter([*known, *guessed]), None)
        if chosen is not None:
            found[role] = chosen
    for role in ("day", "cost") if focus else ("day", "model", "cost"):
        if role not in found:
            msg = (
                f"{path}: which column is the {role}? There are {', '.join(names)}. "
                "Say it: --columns day=DATE,model=MODEL,cost=AMOUNT."
            )
            raise ConfigurationError(msg)
    return found


def _parsed(columns: Mapping[str, str], names: list[str], options: BillOptions, only: str) -> str:
    """SQL that makes `bill_rows`: cells as values."""

    def cell(role: str) -> str:
        return f"nullif(trim({_ident(columns[role])}::VARCHAR), '')" if role in columns else "NULL::VARCHAR"

    symbols = " ".join(f"WHEN contains({cell('cost')}, '{sign}') THEN '{code}'" for sign, code in _SYMBOLS.items())
    zone = quoted(options.timezone)
    when, end = (_time(cell(role), options, zone) for role in ("day", "end"))
    return f"""
        CREATE OR REPLACE TEMP TABLE bill_rows AS
        SELECT row_number() OVER () + 1 AS row, coalesce({only}, false) AS ours,
               {cell("day")} AS day_text, {cell("cost")} AS cost_text,
               {when} AS began, date_diff('second', {when}, {end}) / 86400.0 AS days,
               coalesce({cell("provider")}, '') AS provider, coalesce({_model(columns, names, cell)}, '') AS model,
               coalesce({cell("meter")}, '') AS meter, coalesce({cell("unit")}, '') AS unit,
               {_amount(cell("quantity"), options)} AS quantity, {_amount(cell("price"), options)} AS price,
               {_amount(cell("cost"), options)} AS cost,
               upper(coalesce({cell("currency")}, nullif(regexp_extract({cell("cost")}, '[A-Z]{{3}}'), ''),
                     CASE {symbols} END, {quoted(options.currency)})) AS currency,
               coalesce({cell("category")}, '{USAGE}') AS category
        FROM bill_file
    """  # noqa: S608 - columns are quoted


def _model(columns: Mapping[str, str], names: list[str], cell: Any) -> str:
    """The model of a row: its column, else what FOCUS knows of it, most telling first."""
    if "model" in columns:
        return str(cell("model"))
    told = []
    if "SkuPriceDetails" in names:
        told = [f"json_extract_string(TRY_CAST(SkuPriceDetails AS JSON), '$.{name}')" for name in _MODEL_IDS]
    told += [_ident(name) for name in ("SkuId", "ChargeDescription") if name in names]
    return f"coalesce({', '.join(told)})" if told else "NULL"


def _time(text: str, options: BillOptions, zone: str) -> str:
    """A cell as local time of the bill's zone: converted where it says its zone, else taken as it is."""
    if options.date_format is not None:
        return f"try_strptime({text}, {quoted(options.date_format)})"
    return (
        f"CASE WHEN regexp_matches({text}, '{_HAS_ZONE}') THEN TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE {zone} "
        f"ELSE TRY_CAST({text} AS TIMESTAMP) END"
    )


def _amount(text: str, options: BillOptions) -> str:
    """A cell as an exact number; null where it could mean two things."""
    bare = f"regexp_replace({text}, '[$€£¥]|[A-Za-z]{{3}}|\\s', '', 'g')"
    if options.decimal_comma:
        plain = f"replace(replace({bare}, '.', ''), ',', '.')"
    else:
        plain = f"CASE WHEN regexp_full_match({bare}, '{_THOUSANDS}') THEN replace({bare}, ',', '') ELSE {bare} END"
    return f"TRY_CAST({plain} AS DECIMAL(38, 18))"


def _table(*, month: bool) -> str:
    period = "strftime(began, '%Y-%m')" if month else "strftime(began, '%Y-%m-%d')"
    number = "TRY_CAST(replace(regexp_extract(unit, '^[\\d,]+'), ',', '') AS BIGINT)"
    return f"""
        CREATE OR REPLACE TEMP TABLE bill AS
        SELECT row, {period} AS period, provider, model, meter, quantity, price, cost, currency, category,
               coalesce({number}, 1) * CASE WHEN regexp_matches(unit, '^[\\d,]+\\s*K\\b') THEN 1000
                                            WHEN regexp_matches(unit, '^[\\d,]+\\s*M\\b') THEN 1000000
                                            ELSE 1 END AS size
        FROM bill_rows WHERE ours AND began IS NOT NULL AND cost IS NOT NULL
    """  # noqa: S608 - constants


def _described(history: History, path: str, columns: dict[str, str], *, month: bool) -> Bill:
    bad = "ours AND (began IS NULL OR cost IS NULL)"
    (row,) = history.rows(f"""
        SELECT count(*) FILTER ({bad}) AS unreadable,
               coalesce(sum(cost) FILTER (NOT ours), 0) AS left_out,
               coalesce(sum(cost) FILTER (ours AND days >= 0.99 AND began <> date_trunc('day', began)), 0) AS shifted
        FROM bill_rows
    """)  # noqa: S608 - constants
    first = f"SELECT row, day_text, cost_text FROM bill_rows WHERE {bad} ORDER BY row LIMIT {EXAMPLES}"  # noqa: S608 - as above
    shown = history.rows(first)
    return Bill(
        path=path,
        columns=columns,
        month=month,
        unreadable=row["unreadable"],
        examples=tuple(f"row {each['row']}: {each['day_text']!r}, {each['cost_text']!r}" for each in shown),
        left_out=row["left_out"],
        shifted=row["shifted"],
    )


def _ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def rate(text: str) -> tuple[str, Decimal]:
    """`EUR=1.08` as a currency and the dollars for one of it.

    Raises:
        ConfigurationError: it is none.
    """
    currency, _, amount = text.partition("=")
    try:
        return currency.strip().upper(), Decimal(amount)
    except InvalidOperation:
        msg = f"{text!r}: write CURRENCY=DOLLARS, e.g. EUR=1.08."
        raise ConfigurationError(msg) from None
