"""The replay's book and the memory ledger answer alike."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.ledger import Refused
from agentbudget.governor import plan
from agentbudget.governor.plan import NOTHING, Amounts, Line
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.replay.book import Book, settle, shortfall, take

ACCOUNTS = [Account((("task", name),), meter) for name in ("a", "b") for meter in (Meter.COST, Meter.MODEL_CALLS)]
LIMITS = st.sampled_from([None, 0, 5, 20])
STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 3), LIMITS), min_size=1, max_size=4, unique_by=lambda line: line[0]),
        st.integers(0, 12),
        st.integers(0, 20),
        st.sampled_from(["settle", "release", "hold", "top up"]),
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_the_book_and_the_memory_ledger_give_the_same_answers_and_balances(
    steps: list[tuple[list[tuple[int, int | None]], int, int, str]],
) -> None:
    book, ledger = Book(), MemoryLedger()
    for number, (chosen, cost, actual_cost, then) in enumerate(steps):
        lines = [Line.of(ACCOUNTS[index], limit, "limit") for index, limit in chosen]
        amounts, actual = Amounts(cost=cost, model_calls=1), Amounts(cost=actual_cost, model_calls=1)
        entries = book.entries(lines)
        postings = plan.postings_for(lines, amounts)
        key = f"c{number}"
        short = take(entries, amounts)
        answer = ledger.reserve(key, postings, lease_seconds=1e9) if postings else None
        assert (short is not None) == isinstance(answer, Refused)
        if short is not None:
            assert isinstance(answer, Refused)
            assert shortfall(entries[short], amounts) == answer.shortfalls[0]
        elif then == "settle":
            settle(entries, amounts, actual)
            if charges := plan.charges_for(lines, amounts, actual):
                ledger.settle(key, charges)
        elif then == "release":
            settle(entries, amounts, NOTHING)
            ledger.release(key)
        if then == "top up":
            for _ in range(2):
                book.top_up(f"g{number}", lines[0].account, 3)
                ledger.top_up(f"g{number}", lines[0].account, 3)
    for account in ledger.accounts():
        found, told = book.row(account).balance(None), ledger.balance(account)
        assert replace(found, limit=None) == replace(told, limit=None), "a refusal leaves another limit declared"
