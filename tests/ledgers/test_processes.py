"""Several processes and threads on one ledger: one cap for all, and answers that fit one order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentbudget.ledgers import open_ledger
from tests.ledgers.linearity import Seen, check
from tests.ledgers.worker import LIMIT, MOST, TEAM, THRESHOLDS

WORKER = Path(__file__).with_name("worker.py")


def started(url: str, name: str, threads: int, calls: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), url, name, str(threads), str(calls)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def output_of(process: subprocess.Popen[str]) -> list[str]:
    return process.communicate(timeout=100)[0].splitlines()


def seen_by(process: subprocess.Popen[str]) -> list[Seen]:
    return seen_in(output_of(process))


def seen_in(lines: list[str]) -> list[Seen]:
    return [Seen.read(json.loads(line)) for line in lines if line.endswith("}")]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger that several processes can share."""
    return f"sqlite:///{tmp_path}/spend.db" if request.param == "sqlite" else request.getfixturevalue("fresh_url")


def test_four_processes_of_32_threads_spend_at_most_the_cap_strand_little_and_raise_each_alarm_once(url: str) -> None:
    workers = [started(url, f"p{number}", threads=32, calls=1000) for number in range(4)]
    lines = [line for worker in workers for line in output_of(worker)]
    seen = seen_in(lines)
    crossed = [line.removeprefix("crossed ") for line in lines if line.startswith("crossed ")]
    assert sorted(crossed, key=int) == [str(threshold) for threshold in THRESHOLDS]
    assert [worker.returncode for worker in workers] == [0] * 4
    ledger = open_ledger(url)
    balance = ledger.balance(TEAM)
    assert balance.settled == sum(one.actual for one in seen)
    assert LIMIT * 0.98 < balance.settled <= LIMIT
    assert (balance.reserved, balance.presumed, balance.overrun) == (0, 0, 0)
    assert check(ledger.journal(), seen, TEAM, LIMIT) == 4 * 32
    assert ledger.verify().differences == ()
    ledger.close()


def test_what_was_answered_before_a_kill_is_in_the_ledger_and_the_others_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/spend.db"
    doomed, other = started(url, "doomed", threads=8, calls=1000), started(url, "other", threads=4, calls=20)
    assert doomed.stdout is not None
    answered = [doomed.stdout.readline() for _ in range(60)]
    doomed.kill()
    answered += doomed.stdout.read().splitlines()
    doomed.wait()
    doomed.stdout.close()
    seen = [Seen.read(json.loads(line)) for line in answered if line.rstrip().endswith("}")]
    others = seen_by(other)
    assert other.returncode == 0
    assert len(others) == 4 * 20 * 2
    ledger = open_ledger(url)
    entries = {(entry.verb, entry.id) for entry in ledger.journal()}
    assert {(one.verb, one.id) for one in [*seen, *others]} <= entries
    balance = ledger.balance(TEAM)
    killed = sum(verb == "reserve" for verb, _ in entries) - sum(verb == "settle" for verb, _ in entries)
    assert 0 <= killed <= 8
    assert (balance.reserved > 0) == (killed > 0)
    assert ledger.verify().differences == ()
    ledger.close()


def test_the_check_of_one_order_sees_an_answer_that_does_not_fit() -> None:
    had_room = Seen(verb="reserve", id="r", amount=MOST, actual=0, answer="refused", start=0.0, end=1.0)
    with pytest.raises(AssertionError, match="had room"):
        check([], [had_room], TEAM, LIMIT)
    unwritten = Seen(verb="settle", id="s", amount=1, actual=1, answer="settled", start=0.0, end=1.0)
    with pytest.raises(AssertionError, match="without an entry"):
        check([], [unwritten], TEAM, LIMIT)
