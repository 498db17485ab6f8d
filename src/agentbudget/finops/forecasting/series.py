"""Daily spend from recorded history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from agentbudget.finops.dimensions import TagRules, quoted
from agentbudget.finops.history import History


def daily(
    history: History, *, where: Mapping[str, str] | None = None, timezone: str = "UTC", rules: TagRules | None = None
) -> dict[date, int]:
    """Nano-dollars by day of *timezone*, of the calls whose dimensions are as *where* says: `{"team": "cx"}`.

    Raises:
        ConfigurationError: a dimension that does not exist.
    """
    rules = rules or TagRules()
    wanted = [f"{rules.expression(name)} = {quoted(value)}" for name, value in (where or {}).items()]
    found = history.rows(f"""
        SELECT timezone({quoted(timezone)}, ended)::DATE AS day_there, sum(cost)::BIGINT AS cost
        FROM calls WHERE {" AND ".join(wanted) or "true"} GROUP BY ALL ORDER BY ALL
    """)  # noqa: S608 - dimensions are known, values are quoted
    return {row["day_there"]: row["cost"] for row in found}
