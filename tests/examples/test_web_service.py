"""The web service with plans, over loopback: who is over a limit is told which one and when to come back."""

from __future__ import annotations

import importlib.util
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.testing import FakeClock

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/web_service.py"
Ask = Callable[..., tuple[int, dict[str, Any], Any]]
NOON = 1_780_056_000.0  # 2026-05-29 12:00 UTC


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("web_service", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON + 20)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def ask(example: ModuleType, clock: FakeClock, told: list[str], tmp_path: Path) -> Iterator[Ask]:
    """Sends one request to the running service."""
    governor = ab.Governor(
        ledger=f"sqlite:///{tmp_path}/spend.db?synchronous=normal",
        limits=example.LIMITS,
        clock=clock,
        on_threshold=lambda crossing: told.append(str(crossing)),
    )
    with example.Service(governor) as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def send(user: str, plan: str = "free", path: str = "/ask") -> tuple[int, dict[str, Any], Any]:
            request = urllib.request.Request(
                f"http://127.0.0.1:{service.server_port}{path}",
                data=b"What is a ledger?" if path == "/ask" else None,
                headers={"X-User": user, "X-Plan": plan},
            )
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status, json.load(answer), answer.headers
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code, json.load(refused), refused.headers

        yield send
        service.shutdown()
        thread.join()
    governor.close()


def test_the_rate_of_a_plan_is_kept_and_the_refusal_names_the_limit_and_when_it_ends(
    ask: Ask, clock: FakeClock
) -> None:
    assert [ask("ada")[0] for _ in range(3)] == [200, 200, 200]
    status, body, headers = ask("ada")
    assert status == 429
    assert body["limit"] == "the user limit on model_calls"
    assert (body["scope"], body["window"], body["resets_at"]) == ("user ada", "2026-05-29T12:00+0000", NOON + 60)
    assert headers["Retry-After"] == "40"
    assert ask("ada", "pro")[0] == 200, "another plan has limits of its own"
    assert ask("grace")[0] == 200, "and so has another user"
    clock.advance(int(headers["Retry-After"]))
    assert ask("ada")[0] == 200


def test_money_runs_out_by_the_hour_and_is_there_again_with_the_next(ask: Ask, clock: FakeClock) -> None:
    while True:
        status, body, headers = ask("ada")
        if status == 429 and "cost" in body["limit"]:
            break
        assert clock.now() < NOON + 3600, body
        clock.advance(20)
    assert body["limit"] == "the user limit on cost"
    assert body["window"] == "2026-05-29T12+0000"
    assert int(headers["Retry-After"]) == NOON + 3600 - clock.now()
    clock.advance(int(headers["Retry-After"]))
    assert ask("ada")[0] == 200


def test_many_requests_at_once_of_a_user_nobody_knows_get_what_the_plan_allows(ask: Ask) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: ask("nobody")[0], range(12)))
    assert (statuses.count(200), statuses.count(429)) == (3, 9)


def test_the_limits_of_a_user_can_be_asked_for(ask: Ask) -> None:
    ask("ada")
    status, body, _ = ask("ada", path="/limits")
    assert status == 200
    shown = {(one["meter"], one["window"]): one["available"] for one in body["limits"]}
    assert shown["model_calls", "2026-05-29T12:00+0000"] == 2
    assert len(shown) == 4
    assert next(one["limit"] for one in body["others"]).endswith("where plan is 'pro'")


@pytest.mark.parametrize(("user", "plan"), [("", "free"), ("ada", "gold"), ("x" * 300, "free")])
def test_a_bad_request_is_told_so_and_costs_nothing(ask: Ask, user: str, plan: str) -> None:
    assert ask(user, plan)[0] == 400


def test_alarms_come_once_over_all_requests(ask: Ask, clock: FakeClock, told: list[str], example: ModuleType) -> None:
    for _ in range(400):
        status, body, _ = ask("ada")
        if status == 429 and body["window"] == "2026-05-29":
            break
        clock.advance(20 if status == 200 else body["resets_at"] - clock.now())
    assert [line[:60] for line in told] == ["cost of user 'ada' in 2026-05-29 reached 80% of $0.05: $0.04"]
