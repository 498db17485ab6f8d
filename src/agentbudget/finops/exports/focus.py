"""Recorded spend as FOCUS (FinOps Open Cost and Usage Specification) 1.2 or 1.4, in CSV or Parquet.

One row for each meter of a call, or of the calls of an hour, day or month that are alike. `BilledCost` and
`EffectiveCost` of all rows add up to the recorded cost to the nano-dollar; `ListCost` is `ListUnitPrice x
PricingQuantity`, exact. What was avoided or refused is no charge and in no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.exports.meters import REST, metered
from agentbudget.finops.history import History
from agentbudget.finops.schema import KNOWN_TAGS

Version = Literal["1.2", "1.4"]
Level = Literal["call", "hour", "day", "month"]
OnProgress = Callable[[int, int], None]
"""Days done, and in all."""

_METERS = {
    "input": "Input Tokens",
    "cache_read": "Cache Read Input Tokens",
    "cache_write_5m": "Cache Write Input Tokens",
    "cache_write_1h": "Cache Write 1h Input Tokens",
    "input_audio": "Audio Input Tokens",
    "cache_audio_read": "Cache Read Audio Input Tokens",
    "input_image": "Image Input Tokens",
    "output": "Output Tokens",
    "reasoning": "Reasoning Output Tokens",
    "output_audio": "Audio Output Tokens",
    "output_image": "Image Output Tokens",
    "web_search": "Web Searches",
    "request": "Requests",
    REST: "Charges without Metered Usage",
}
_UNITS = {"web_search": "Searches", "request": "Requests", REST: "Requests"}
"""Meters that are not paid by tokens."""
_MONEY = pa.decimal128(38, 15)
_BATCH = 50_000
"""Rows held in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusOptions:
    """How an export is made."""

    account: str
    """`BillingAccountId`: the account that the provider bills."""
    account_name: str = ""
    level: Level = "day"
    """`call`: one row for each meter of every call, with `x_CallId` and `x_TaskId`. Else calls that are alike (tags,
    model, price, agent) within the period are one row a meter."""
    version: Version = "1.2"
    """1.4 names `ServiceProviderName` and `HostProviderName` where 1.2 names `ProviderName` and `PublisherName`."""
    invoice_issuers: dict[str, str] = field(default_factory=dict)
    """Provider → `InvoiceIssuerName`, where another company bills it."""

    def __post_init__(self) -> None:
        if not self.account.strip():
            msg = "account is empty: name the account that the provider bills, e.g. account='org-acme'."
            raise ConfigurationError(msg)
        for name, allowed in (("level", ("call", "hour", "day", "month")), ("version", ("1.2", "1.4"))):
            if getattr(self, name) not in allowed:
                msg = f"{name}={getattr(self, name)!r}: one of {', '.join(allowed)}."
                raise ConfigurationError(msg)


def export_focus(
    history: History,
    target: str | PathLike[str],
    options: FocusOptions,
    *,
    on_progress: OnProgress = lambda _done, _all: None,
) -> int:
    """Write the spend of *history* to *target*, a `.csv` or `.parquet` file, and return the number of rows.

    Memory is bounded: a day at a time (at level `month`: a month). Calls that cost nothing have no row.

    Raises:
        ConfigurationError: the ending of *target* is neither.
    """
    file = Path(target)
    if file.suffix not in {".csv", ".parquet"}:
        msg = f"{file}: a FOCUS file ends in .csv or .parquet."
        raise ConfigurationError(msg)
    rows = 0
    parts = list(_parts(history, options.level))
    csv = file.suffix == ".csv"
    schema = focus_schema(options, csv=csv)
    partial = file.with_name(file.name + ".part")
    writer = pc.CSVWriter(partial, schema) if csv else pq.ParquetWriter(partial, schema)
    with writer:
        for done, where in enumerate(parts, 1):
            query = _query(history, where, options, csv=csv)
            for batch in history.con.sql(query).to_arrow_reader(_BATCH):
                writer.write_batch(batch.cast(schema))
                rows += batch.num_rows
            on_progress(done, len(parts))
    partial.replace(file)
    return rows


def focus_schema(options: FocusOptions, *, csv: bool = False) -> pa.Schema:
    """The columns of an export, in their order. In CSV times are text, as the specification writes them."""
    text = pa.string()
    return pa.schema([(name, text if csv and name.endswith(_TIMES) else _type(name)) for name in _columns(options)])


def _columns(options: FocusOptions) -> dict[str, str]:
    """Column → SQL over the rows of `_grouped`."""
    parties = ("Provider", "Publisher") if options.version == "1.2" else ("ServiceProvider", "HostProvider")
    period = "HOUR" if options.level == "call" else options.level.upper()
    return {
        "BillingAccountId": quoted(options.account),
        "BillingAccountName": quoted(options.account_name) if options.account_name else "NULL",
        "BillingCurrency": "'USD'",
        "BillingPeriodStart": "date_trunc('month', period)",
        "BillingPeriodEnd": "date_trunc('month', period) + INTERVAL 1 MONTH",
        "ChargePeriodStart": "period",
        "ChargePeriodEnd": f"period + INTERVAL 1 {period}",
        "ChargeCategory": "'Usage'",
        "ChargeClass": "NULL",
        "ChargeDescription": "thing || ' ' || lower(meter)",
        "ChargeFrequency": "'Usage-Based'",
        "BilledCost": _DOLLARS,
        "EffectiveCost": _DOLLARS,
        "ListCost": "list_cost",
        "ContractedCost": "list_cost",
        "ListUnitPrice": "unit",
        "ContractedUnitPrice": "unit",
        "PricingCategory": "'Standard'",
        "PricingCurrency": "'USD'",
        "PricingCurrencyContractedUnitPrice": "unit",
        "PricingCurrencyEffectiveCost": _DOLLARS,
        "PricingCurrencyListUnitPrice": "unit",
        "PricingQuantity": "quantity * per",
        "PricingUnit": "CASE WHEN per = 1 THEN units ELSE '1000000 Tokens' END",
        "CommitmentDiscountStatus": "NULL",
        "ConsumedQuantity": "quantity",
        "ConsumedUnit": "units",
        "SkuId": "sku",
        "SkuPriceId": "sku || '/' || tier",
        "SkuMeter": "meter",
        "SkuPriceDetails": "to_json({'x_ModelId': thing, 'x_ProcessingTier': tier})::VARCHAR",
        "InvoiceId": "NULL",
        "InvoiceIssuerName": _issuer(options.invoice_issuers),
        **{f"{party}Name": "provider" for party in parties},
        "ServiceCategory": "'AI and Machine Learning'",
        "ServiceSubcategory": "'Generative AI'",
        "ServiceName": "provider || ' API'",
        "SubAccountId": "team",
        "SubAccountName": "team",
        "SubAccountType": "CASE WHEN team IS NOT NULL THEN 'Team' END",
        "Tags": "tags",
        "x_Agent": "agent",
        "x_Task": "task_name",
        "x_ProcessingTier": "tier",
        "x_Estimated": "estimated::VARCHAR",
        **({"x_CallId": "call", "x_TaskId": "task"} if options.level == "call" else {}),
    }


_DOLLARS = "billed * 0.000000001::DECIMAL(10, 9)"
_DECIMALS = ("Cost", "Price", "Quantity")
_TIMES = ("Start", "End")


def _type(column: str) -> pa.DataType:
    if column.endswith(_DECIMALS):
        return _MONEY
    return pa.timestamp("s", tz="UTC") if column.endswith(_TIMES) else pa.string()


def _query(history: History, where: str, options: FocusOptions, *, csv: bool) -> str:
    """SQL of the export's rows for the calls that *where* takes."""
    made = []
    for name, value in _columns(options).items():
        if _type(name) == _MONEY:
            made.append(f"({value})::DECIMAL(38, 15) AS {name}")
        elif _type(name) == pa.string():
            made.append(f"({_harmless(value) if csv else value})::VARCHAR AS {name}")
        else:
            time = f"strftime({value}, '%Y-%m-%dT%H:%M:%SZ')" if csv else value
            made.append(f"{time} AS {name}")
    return f"SELECT {', '.join(made)} FROM ({_grouped(history, where, options.level)})"  # noqa: S608 - our own columns


def _grouped(history: History, where: str, level: Level) -> str:
    """Meters of calls that are alike as one row; at level `call` each stays alone."""
    alone = ", call, task" if level == "call" else ""
    known = ", ".join(f"{{'key': '{tag}', 'value': {tag}}}" for tag in KNOWN_TAGS)
    meters = " ".join(f"WHEN '{bucket}' THEN '{meter}'" for bucket, meter in _METERS.items())
    units = " ".join(f"WHEN '{bucket}' THEN '{unit}'" for bucket, unit in _UNITS.items())
    single = ", ".join(quoted(bucket) for bucket in _UNITS)
    return f"""
        SELECT date_trunc('{"hour" if level == "call" else level}', ended) AS period,
               coalesce(nullif(provider, ''), 'unknown') AS provider, coalesce(nullif(model, ''), name) AS thing,
               coalesce(nullif(tier, ''), 'standard') AS tier, nullif(agent, '') AS agent,
               nullif(task_name, '') AS task_name, team, estimated, unit{alone},
               to_json(map_from_entries(list_sort(list_concat(
                   list_filter([{known}], lambda tag: tag.value IS NOT NULL), map_entries(tags)
               ))))::VARCHAR AS tags,
               CASE bucket {meters} END AS meter,
               CASE bucket {units} ELSE 'Tokens' END AS units,
               coalesce(nullif(provider, ''), 'unknown') || '/' || coalesce(nullif(model, ''), name) || '/'
                   || replace(bucket, '_', '-') AS sku,
               CASE WHEN bucket IN ({single}) THEN 1 ELSE 0.000001 END::DECIMAL(7, 6) AS per,
               sum(quantity)::DECIMAL(18, 0) AS quantity, sum(list_cost)::DECIMAL(38, 15) AS list_cost,
               sum(billed)::DECIMAL(19, 0) AS billed
        FROM ({metered(history, where=where)}) GROUP BY ALL ORDER BY ALL
    """  # noqa: S608 - constants


def _parts(history: History, level: Level) -> Iterator[str]:
    """Conditions that cut the history into parts none of which shares a period with another."""
    start = "date_trunc('month', day)::DATE" if level == "month" else "day"
    for row in history.rows(f"SELECT DISTINCT {start} AS first FROM calls ORDER BY first"):  # noqa: S608 - constant
        first: date = row["first"]
        yield f"{start} = DATE '{first}'"


def _issuer(issuers: dict[str, str]) -> str:
    if not issuers:
        return "provider"
    known = " ".join(f"WHEN {quoted(provider)} THEN {quoted(issuer)}" for provider, issuer in issuers.items())
    return f"CASE provider {known} ELSE provider END"


def _harmless(text: str) -> str:
    """*text* so that no spreadsheet takes it for a formula: an apostrophe before `= + - @`, tab and return."""
    return f"CASE WHEN regexp_matches({text}, '^[=+@\\t\\r-]') THEN '''' || {text} ELSE {text} END"
