"""A shared limit as an AWS budget, so that the people who watch the cloud bill see it where they look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentbudget.domain.accounts import Meter
from agentbudget.domain.budget import Limit
from agentbudget.domain.money import dollars
from agentbudget.domain.windows import Window
from agentbudget.errors import ConfigurationError

_UNITS = {Window.DAY: "DAILY", Window.MONTH: "MONTHLY"}
_MOST_SUBSCRIBERS = 11
"""One SNS topic and ten addresses, by the API."""
_ALERTS = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


def to_aws_budget(
    limit: Limit, *, account: str, name: str, tag: str, value: str, emails: Sequence[str] = ()
) -> dict[str, Any]:
    """The parameters of `CreateBudget` for *limit* of the resources tagged *tag*=*value*.

    With *emails*: notifications at 80 % and 100 % of actual spend and at 100 % of the forecast; *limit*'s own
    thresholds (`alert_at`) take the place of the first two.

    Raises:
        ConfigurationError: a limit that AWS cannot hold (no cost, or another window), or too many addresses.
    """
    if limit.meter is not Meter.COST:
        msg = f"meter={limit.meter.value!r}: an AWS budget is of money; give a limit with meter='cost'."
        raise ConfigurationError(msg)
    if limit.window not in _UNITS:
        msg = f"window={limit.window.value!r}: an AWS budget counts by day or month."
        raise ConfigurationError(msg)
    if len(emails) > _MOST_SUBSCRIBERS - 1:
        msg = f"{len(emails)} addresses: a notification has at most {_MOST_SUBSCRIBERS - 1}."
        raise ConfigurationError(msg)
    budget = {
        "BudgetName": name,
        "BudgetType": "COST",
        "TimeUnit": _UNITS[limit.window],
        "BudgetLimit": {"Amount": f"{dollars(limit.amount).normalize():f}", "Unit": "USD"},
        "FilterExpression": {"Tags": {"Key": tag, "Values": [value], "MatchOptions": ["EQUALS"]}},
    }
    own = [("ACTUAL", share / 100) for share in limit.alert_at]
    alerts = [*own, _ALERTS[-1]] if own else list(_ALERTS)
    notifications = [_notification(kind, percent, emails) for kind, percent in alerts] if emails else []
    told = {"AccountId": account, "Budget": budget}
    return {**told, "NotificationsWithSubscribers": notifications} if notifications else told


def _notification(kind: str, percent: float, emails: Sequence[str]) -> dict[str, Any]:
    return {
        "Notification": {
            "NotificationType": kind,
            "ComparisonOperator": "GREATER_THAN",
            "Threshold": float(percent),
            "ThresholdType": "PERCENTAGE",
        },
        "Subscribers": [{"SubscriptionType": "EMAIL", "Address": address} for address in emails],
    }
