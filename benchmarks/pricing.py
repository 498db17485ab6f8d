"""What pricing one call costs after the first: against a dictionary look-up, and against `genai_prices.calc_price`.

Interleaved rounds, medians of CPU time per call. Asserts the bar: finding the rates and pricing the usage take less
than a microsecond together.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from statistics import median
from time import process_time_ns

from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from agentbudget.domain.usage import Usage
from agentbudget.pricing.book import PriceBook

ROUNDS = 15
BAR_US = 1.0
DAY = date(2026, 11, 1)
MOMENT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def cases() -> dict[str, tuple[int, Callable[[], object]]]:
    """Name to (calls a round, what to call)."""
    book = PriceBook()
    rates = book.rates("claude-sonnet-4-5", provider="anthropic", on=DAY)
    usage = Usage(
        input_tokens=5_000, output_tokens=300, cache_read_tokens=4_000, cache_write_5m_tokens=500, reasoning_tokens=100
    )
    media = Usage(input_tokens=5_000, output_tokens=300, web_searches=2)
    theirs = TheirUsage(input_tokens=5_000, output_tokens=300, cache_read_tokens=4_000, cache_write_tokens=500)
    floor = {("claude-sonnet-4-5", "anthropic", None, None, DAY): rates}

    def calc() -> object:
        return calc_price(theirs, "claude-sonnet-4-5", provider_id="anthropic", genai_request_timestamp=MOMENT)

    return {
        "floor: one look-up in a dictionary": (
            50_000,
            lambda: floor["claude-sonnet-4-5", "anthropic", None, None, DAY],
        ),
        "cost of a text call": (50_000, lambda: rates.cost(usage)),
        "cost with web searches": (20_000, lambda: rates.cost(media)),
        "rates again": (50_000, lambda: book.rates("claude-sonnet-4-5", provider="anthropic", on=DAY)),
        "rates again, then cost": (
            50_000,
            lambda: book.rates("claude-sonnet-4-5", provider="anthropic", on=DAY).cost(usage),
        ),
        "upper bound": (20_000, lambda: rates.upper_bound(input_tokens=5_000, output_tokens=300)),
        "genai_prices.calc_price": (200, calc),
    }


def main() -> None:
    table = cases()
    taken: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(ROUNDS):
        for name, (calls, call) in table.items():
            started = process_time_ns()
            for _ in range(calls):
                call()
            taken[name].append((process_time_ns() - started) / calls / 1_000)
    floor = median(taken["floor: one look-up in a dictionary"])
    for name, times in taken.items():
        print(f"{name:36} {median(times):9.3f} us  {median(times) / floor:7.1f} x the look-up")
    assert median(taken["rates again, then cost"]) < BAR_US, f"pricing one call takes {BAR_US} us or more"


if __name__ == "__main__":
    main()
