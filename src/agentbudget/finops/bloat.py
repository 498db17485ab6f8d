"""Context bloat: what is paid for tokens that were sent before, and which tool's results they are."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from agentbudget.domain.money import dollars
from agentbudget.finops.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent:
    """Input of the model calls of one kind of task. Tokens."""

    name: str
    """Name of the tasks."""
    model_calls: int
    input_tokens: int
    resent_tokens: int
    """Of them those that the call before had in its context already."""
    cached_tokens: int
    """Of the input those read from the provider's prompt cache."""

    @property
    def share(self) -> float:
        """Re-sent part of the input, from 0 to 1."""
        return self.resent_tokens / self.input_tokens if self.input_tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What results of one tool cost by staying in the context after they were read once.

    An estimate: the bytes of a result, in tokens by the tokens a byte of appended context took in this history, once
    for each model call of the task behind the first that read it.
    """

    tool: str
    calls: int
    bytes: int
    carried_tokens: int
    cost: Decimal
    """Dollars: `carried_tokens` at the average price of an input token of this history, cache reads included."""


_STEPS = """
    SELECT task, task_name, agent, input_tokens, cache_read_tokens,
           lag(input_tokens + output_tokens) OVER (PARTITION BY task, agent ORDER BY ended, call) AS before
    FROM calls WHERE kind = 'model' AND outcome NOT IN ('denied', 'refused', 'cached') AND input_tokens > 0
"""


def resent(history: History) -> list[Resent]:
    """Re-sent input by kind of task, largest first.

    A call re-sends at most what the call before it in the same task and agent had read and written:
    `min(input, input before + output before)`. Contexts that were compacted count as sent anew only where they grew.
    """
    found = history.rows(f"""
        SELECT task_name AS name, count(*) AS model_calls, sum(input_tokens)::BIGINT AS input_tokens,
               sum(least(input_tokens, coalesce(before, 0)))::BIGINT AS resent_tokens,
               sum(cache_read_tokens)::BIGINT AS cached_tokens
        FROM ({_STEPS}) GROUP BY ALL ORDER BY resent_tokens DESC, name
    """)  # noqa: S608 - constant
    return [Resent(**row) for row in found]


def carried(history: History) -> list[Carried]:
    """Tools by what their results cost while they stayed in the context, dearest first."""
    found = history.rows("""
        WITH steps AS (
            SELECT task, agent, ended, input_tokens, cache_read_tokens, output_tokens, appended, price
            FROM calls WHERE kind = 'model' AND input_tokens > 0 AND outcome NOT IN ('denied', 'refused', 'cached')
        ), growth AS (
            SELECT appended,
                   input_tokens
                   - lag(input_tokens + output_tokens) OVER (PARTITION BY task, agent ORDER BY ended) AS tokens
            FROM steps
        ), density AS (
            SELECT coalesce(sum(tokens) / nullif(sum(appended), 0), 0.25) AS rate
            FROM growth WHERE tokens > 0 AND appended > 0
        ), price AS (
            SELECT coalesce(sum(1000 * ((input_tokens - cache_read_tokens) * fresh + cache_read_tokens * cached))
                            / nullif(sum(input_tokens), 0), 0) AS nanos
            FROM (
                SELECT input_tokens, cache_read_tokens, nullif(price, '')->'prices' AS listed,
                       TRY_CAST(listed->>'input' AS DOUBLE) AS fresh,
                       coalesce(TRY_CAST(listed->>'cache_read' AS DOUBLE), fresh) AS cached
                FROM steps WHERE price <> ''
            ) WHERE fresh IS NOT NULL
        ), later AS (
            SELECT tools.name, tools.result_size,
                   (SELECT greatest(count(*) - 1, 0) FROM steps
                    WHERE steps.task = tools.task AND steps.ended > tools.ended) AS times
            FROM calls AS tools WHERE tools.kind = 'tool' AND tools.outcome = 'ok'
        )
        SELECT name AS tool, count(*) AS calls, sum(result_size)::BIGINT AS bytes,
               round(sum(result_size * times) * any_value(rate))::BIGINT AS carried_tokens,
               round(sum(result_size * times) * any_value(rate) * any_value(nanos))::BIGINT AS cost
        FROM later, density, price GROUP BY name ORDER BY carried_tokens DESC, tool
    """)
    return [Carried(**{**row, "cost": dollars(row["cost"])}) for row in found]
