"""Names on a bill and in a record, brought to one: as the price book resolves them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from agentbudget.errors import PricingError
from agentbudget.finops.history import History
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.names import canonical_provider, lookups, undated

_SELLERS = {"microsoft": "azure", "amazon web services": "aws", "google cloud": "google"}
"""Sellers as bills name them, and the provider that they are."""

_UNKNOWN = {"", "unknown"}


class Names:
    """One name for each (provider, model), whoever wrote it."""

    def __init__(self, book: PriceBook, *, today: date) -> None:
        self._book = book
        self._today = today

    def key(self, provider: str, model: str) -> str:
        """`openai/gpt-4o` for `gpt-4o-2024-08-06` of `OpenAI`: the entry of the price data that prices it.

        A name that no price is known for keeps its own, in lower case and without the date of a snapshot.
        """
        said = provider.strip().lower()
        hint = _SELLERS.get(said, said)
        known = None if hint in _UNKNOWN else hint
        try:
            found = self._book.rates(model, provider=known, on=self._today).ref
        except PricingError:
            place = lookups(model, known)[0]
            return f"{place.provider or canonical_provider(known) or known or '?'}/{undated(place.model)}"
        return f"{found.provider}/{found.model}"

    def table(self, history: History) -> None:
        """Make the temporary table `names` (`side`, `provider`, `model`, `key`) for `bill` and `calls`.

        A bill that names no provider means the one that was recorded with a model of that name, where there is one.
        """
        recorded = _pairs(
            history.rows("SELECT DISTINCT provider, coalesce(nullif(model, ''), name) AS model FROM calls")
        )
        billed = _pairs(history.rows("SELECT DISTINCT provider, model FROM bill"))
        ours = {pair: self.key(*pair) for pair in recorded}
        theirs = {pair: self._theirs(pair, set(ours.values())) for pair in billed}
        history.con.execute(
            "CREATE OR REPLACE TEMP TABLE names (side VARCHAR, provider VARCHAR, model VARCHAR, key VARCHAR)"
        )
        rows = [
            (side, *pair, key) for side, pairs in (("calls", ours), ("bill", theirs)) for pair, key in pairs.items()
        ]
        if rows:
            history.con.executemany("INSERT INTO names VALUES (?, ?, ?, ?)", rows)

    def _theirs(self, pair: tuple[str, str], recorded: set[str]) -> str:
        provider, model = pair
        if not model:
            return "(no model)"
        key = self.key(provider, model)
        if provider or key in recorded:
            return key
        same = {each for each in recorded if each.partition("/")[2] == key.partition("/")[2]}
        return same.pop() if len(same) == 1 else key


def _pairs(rows: Iterable[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["provider"] or "", row["model"] or "") for row in rows]
