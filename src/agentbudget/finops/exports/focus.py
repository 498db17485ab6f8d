"""Recorded spend as FOCUS (FinOps Open Cost and Usage Specification) 1.2 or 1.4, in CSV or Parquet.

One row for each meter of a call, or of the calls of an hour, day or month that are alike. `BilledCost` and
`EffectiveCost` of all rows add up to the recorded cost to the nano-dollar; `ListCost` is `ListUnitPrice x
PricingQuantity`, exact. What was avoided or refused is no charge and in no row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Literal

import pyarrow as pa

from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.exports.lines import DOLLARS, MONEY, TEXT, TIME, Level, OnProgress, write_lines
from agentbudget.finops.history import History

Version = Literal["1.2", "1.4"]
_DECIMALS = ("Cost", "Price", "Quantity")
_TIMES = ("Start", "End")


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

    Memory is bounded. Calls that cost nothing have no row.

    Raises:
        ConfigurationError: the ending of *target* is neither.
    """
    return write_lines(history, target, focus_columns(options), options.level, on_progress=on_progress)


def focus_columns(options: FocusOptions) -> dict[str, tuple[pa.DataType, str]]:
    """Column → its type and SQL over `lines`, in their order."""
    parties = ("Provider", "Publisher") if options.version == "1.2" else ("ServiceProvider", "HostProvider")
    period = "HOUR" if options.level == "call" else options.level.upper()
    columns = {
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
        "BilledCost": DOLLARS,
        "EffectiveCost": DOLLARS,
        "ListCost": "list_cost",
        "ContractedCost": "list_cost",
        "ListUnitPrice": "unit",
        "ContractedUnitPrice": "unit",
        "PricingCategory": "'Standard'",
        "PricingCurrency": "'USD'",
        "PricingCurrencyContractedUnitPrice": "unit",
        "PricingCurrencyEffectiveCost": DOLLARS,
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
    return {name: (_type(name), value) for name, value in columns.items()}


def _type(column: str) -> pa.DataType:
    if column.endswith(_DECIMALS):
        return MONEY
    return TIME if column.endswith(_TIMES) else TEXT


def _issuer(issuers: dict[str, str]) -> str:
    if not issuers:
        return "provider"
    known = " ".join(f"WHEN {quoted(provider)} THEN {quoted(issuer)}" for provider, issuer in issuers.items())
    return f"CASE provider {known} ELSE provider END"
