"""From the settlement that crosses a threshold to the receiver, over threads, governors and a failing receiver."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import agentbudget as ab
from agentbudget.finops.alarms.delivery import Delivery
from agentbudget.finops.alarms.sinks import webhook
from tests.finops.receiver import receiving

WORKERS, CALLS = 8, 5
ANSWER = AIMessage(
    content="Done.",
    usage_metadata={"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
    response_metadata={"model_name": "gpt-4o"},
)
"""Costs $0.0035."""


def governor(ledger: str, delivery: Delivery) -> ab.Governor:
    limit = ab.Limit("cost", "$0.20", scope="team", window="month", alert_at=("25%", "50%", "400%"))
    return ab.Governor(ledger=ledger, limits=[limit], on_threshold=delivery.crossed)


def work(governors: list[ab.Governor]) -> None:
    """All workers at once, each on one of *governors* in turn; closing those hands over what was crossed."""
    together = threading.Barrier(WORKERS)

    def agent(number: int) -> None:
        model = GenericFakeChatModel(messages=iter(lambda: ANSWER, None), name="gpt-4o")
        together.wait()
        for _ in range(CALLS):
            with ab.task("job", team="cx", max_cost="$1", governor=governors[number % len(governors)]):
                model.invoke("What is next?", max_tokens=100)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(agent, range(WORKERS)))
    for each in governors:
        each.close()


def test_each_threshold_is_told_once_whichever_thread_settles_it() -> None:
    with receiving() as receiver:
        delivery = Delivery([webhook(receiver.url)])
        work([governor("memory:", delivery)])
        assert delivery.drain(20)
        told = [alert for _, _, body in receiver.requests for alert in body["alerts"]]
    assert sorted(one["details"]["threshold"] for one in told) == ["25%", "50%"], told
    assert all(one["severity"] == "warning" and one["scope"] == "team=cx" for one in told)
    assert not delivery.failures


def test_governors_that_share_a_ledger_tell_once_together(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'spend.db'}"
    with receiving() as receiver:
        delivery = Delivery([webhook(receiver.url)])
        work([governor(url, delivery) for _ in range(2)])
        assert delivery.drain(20)
        assert len(receiver.requests) == 2


def test_a_receiver_that_is_down_for_a_while_is_told_and_no_call_waits_for_it() -> None:
    with receiving() as receiver:
        receiver.answers += [503, 503, 503]
        paused: list[float] = []
        delivery = Delivery([webhook(receiver.url)], sleep=paused.append)
        work([governor("memory:", delivery)])
        assert delivery.drain(20)
        assert len(receiver.requests) == 5
    assert len(paused) == 3
