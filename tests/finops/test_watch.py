from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.cli import main
from agentbudget.domain.accounts import Account, Charge, Meter
from agentbudget.domain.budget import Limit
from agentbudget.errors import ConfigurationError, LedgerUnavailableError
from agentbudget.finops.alarms import watch as watching
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.config import load
from agentbudget.finops.alarms.rules import Watched
from agentbudget.finops.alarms.sources import LedgerSource, TraceSource
from agentbudget.finops.alarms.state import AlarmState
from agentbudget.ledgers import open_ledger
from agentbudget.trace.files import Problem
from tests.finops.receiver import Receiver, receiving
from tests.finops.traces import DAY, START, called, opened, write

CX = Watched(limit=Limit("cost", "$432", scope="team", window="month"), names={"team": "cx"})
CENT = 10_000_000


def fail(problem: Problem) -> None:
    raise AssertionError(problem)


def spend(file: Path, *, first: float, minutes: int, cents: int, task: str = "t", team: str = "cx") -> None:
    """A call a minute of *cents* each, from *first* on."""
    events = [] if file.exists() else opened(task, at=first, team=team)
    for minute in range(minutes):
        events += called(f"{task}-{first}-{minute}", task, at=first + 60 * minute, cost=cents * CENT)
    write(file, events, append=True)


@pytest.fixture
def state() -> Iterator[AlarmState]:
    with AlarmState() as state:
        yield state


def test_an_alarm_begins_goes_on_and_is_over_as_the_traces_grow(tmp_path: Path, state: AlarmState) -> None:
    traces, start = tmp_path / "traces", START + 9 * DAY
    spend(traces / "t.jsonl", first=start, minutes=120, cents=1)
    eye = watching.Watch([CX], traces=TraceSource(state.db, traces, [CX]), state=state)
    calm = eye.look(start + 120 * 60, on_problem=fail)
    assert (calm.told, calm.goes_on) == ((), ())
    spend(traces / "t.jsonl", first=start + 120 * 60, minutes=60, cents=60)
    begins = eye.look(start + 180 * 60, on_problem=fail)
    assert {alert.kind for alert in begins.told} == {"burn"}
    goes_on = eye.look(start + 181 * 60, on_problem=fail)
    assert goes_on.told == ()
    assert {alert.key for alert in goes_on.goes_on} == {alert.key for alert in begins.told}
    over = eye.look(start + 300 * 60, on_problem=fail)
    over = over if over.told else eye.look(start + 600 * 60, on_problem=fail)
    assert {(alert.key, alert.status) for alert in over.told} <= {(alert.key, "resolved") for alert in begins.told}
    assert over.told


def test_only_calls_of_the_budget_count_each_once(tmp_path: Path, state: AlarmState) -> None:
    traces = tmp_path / "traces"
    spend(traces / "a.jsonl", first=START, minutes=3, cents=1)
    spend(traces / "b.jsonl", first=START, minutes=5, cents=1, task="u", team="fin")
    source = TraceSource(state.db, traces, [CX])
    for _ in range(2):
        source.read(fail, at=START + DAY)
    activity = source.activity(CX)
    assert (activity.cost(START + 3600, 7200), activity.calls(START + 3600, 7200)) == (3 * CENT, 3)
    assert list(source.daily(CX).values()) == [3 * CENT]


def test_what_the_ledger_knows_counts_where_it_is_more(tmp_path: Path, state: AlarmState) -> None:
    traces, at = tmp_path / "traces", START + 9 * DAY
    spend(traces / "t.jsonl", first=at - 3600, minutes=60, cents=2)
    ledger = open_ledger("memory:")
    account = Account((("team", "cx"),), Meter.COST, CX.window(at))
    ledger.settle("elsewhere", [Charge(account, 0, 431 * 10**9)])
    for source, kinds in ((None, set()), (LedgerSource(ledger), {"burn", "exhaustion"})):
        with AlarmState() as fresh:
            eye = watching.Watch([CX], traces=TraceSource(fresh.db, traces, [CX]), state=fresh, ledger=source)
            assert {alert.kind for alert in eye.look(at, on_problem=fail).told} == kinds


def test_the_loop_looks_at_a_steady_pace_until_it_is_stopped(tmp_path: Path, state: AlarmState) -> None:
    now, looks, pauses = [START], list[watching.Look](), list[float]()

    def tell(look: watching.Look) -> None:
        looks.append(look)
        now[0] += 7

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    eye = watching.Watch([CX], traces=TraceSource(state.db, tmp_path / "none", [CX]), state=state)
    watching.run(
        eye, tell, every=60, clock=lambda: now[0], sleep=sleep, on_problem=fail, stopped=lambda: len(looks) == 3
    )
    assert [look.at - START for look in looks] == [0, 60, 120]
    assert pauses == [53, 53, 53]


FINE = '[[budget]]\namount = 1\nscope = { team = "x" }\nwindow = "day"\n'
CONFIG = """
traces = "{traces}"
state = "{state}"

[[budget]]
amount = "$432"
scope = {{ team = "cx" }}
window = "month"
minimum = "$0.10"

[[sink]]
kind = "webhook"
url = "{url}"
secret = "env:ALARM_SECRET"
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def test_one_look_from_cron_tells_the_receivers_once_and_its_exit_code_says_what_fires(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALARM_SECRET", "s3cret")
    at = START + 9 * DAY
    monkeypatch.setattr("time.time", lambda: at)
    file, traces = tmp_path / "watch.toml", tmp_path / "traces"
    file.write_text(CONFIG.format(traces=traces, state=tmp_path / "alarms.sqlite", url=receiver.url))
    assert main(["watch", str(file), "--once"]) == 0
    assert capsys.readouterr().out == "all budgets are fine\n"
    spend(traces / "t.jsonl", first=at - 3600, minutes=60, cents=50)
    assert main(["watch", str(file), "--once", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {alert["kind"] for alert in told["told"]} == {"burn"}
    assert len(receiver.requests) == len(told["told"])
    assert "X-Agentbudget-Signature" in receiver.requests[0][1]
    assert main(["watch", str(file), "--once"]) == 1
    assert len(receiver.requests) == len(told["told"])
    assert "times faster than" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[", "not a watch file"),
        ("", "nothing to watch"),
        ("every = 1\n[[budget]]", "every=1"),
        ("bugdet = 1", "did you mean 'budget'"),
        ('[[budget]]\nscope = { team = "x" }', "budget 1: 'amount' is missing"),
        ('[[budget]]\namount = "abc"\nscope = { team = "x" }\nwindow = "day"', "budget 1:"),
        ('[[budget]]\namount = 1\nscope = "team"\nwindow = "day"', "scope='team'"),
        ('[[budget]]\namount = 1\nscope = { team = "x" }', "by hour, day, week or month"),
        (
            FINE + '[[sink]]\nkind = "fax"',
            "sink 1: kind='fax'",
        ),
        (
            FINE + '[[sink]]\nkind = "slack"\nurl = "env:NOPE"',
            "variable NOPE is not set",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "watch.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="watch.toml") as error:
        load(file, environment={})
    assert said in str(error.value)


def test_every_kind_of_receiver_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    sinks = [
        'kind = "log"',
        'kind = "webhook"\nurl = "https://example.com"',
        'kind = "slack"\nurl = "env:SLACK"',
        'kind = "pagerduty"\nrouting_key = "env:KEY"',
        'kind = "alertmanager"\nurl = "http://127.0.0.1:9093"',
    ]
    budget = '[[budget]]\namount = 5\nscope = { team = "x" }\nwindow = "day"\nreact_hours = 2\n'
    budget += '[[budget.planned]]\nname = "launch"\nstart = 2026-12-01\nend = 2026-12-02\nfactor = 3.0\n'
    file.write_text(budget + "".join(f"[[sink]]\n{sink}\n" for sink in sinks))
    found = load(file, environment={"SLACK": "https://hooks.example.com/x", "KEY": "k"})
    assert [sink.name for sink in found.sinks] == ["log", "webhook", "slack", "pagerduty", "alertmanager"]
    (watched,) = found.watched
    assert (watched.react, watched.planned[0].factor) == (7200, 3.0)


def test_two_windows_of_one_team_count_its_spend_once(tmp_path: Path, state: AlarmState) -> None:
    day = Watched(limit=Limit("cost", "$432", scope="team", window="day"), names={"team": "cx"})
    spend(tmp_path / "traces" / "t.jsonl", first=START, minutes=10, cents=1)
    eye = watching.Watch([CX, day], traces=TraceSource(state.db, tmp_path / "traces", [CX, day]), state=state)
    eye.look(START + 3600, on_problem=fail)
    assert [eye.standing(each, START + 3600).spent for each in (CX, day)] == [10 * CENT, 10 * CENT]


@pytest.mark.parametrize("wild", [1e12, START + 400 * DAY, 0.0, -1e12])
def test_one_call_with_a_wrong_clock_silences_no_alarm(wild: float, tmp_path: Path, state: AlarmState) -> None:
    spend(tmp_path / "traces" / "t.jsonl", first=START, minutes=180, cents=60)
    write(tmp_path / "traces" / "wild.jsonl", [*opened("w", team="cx"), *called("w", "w", at=wild)])
    tokyo = Watched(limit=Limit("cost", "$432", scope="team", window="month", timezone="Asia/Tokyo"), names=CX.names)
    eye = watching.Watch([tokyo], traces=TraceSource(state.db, tmp_path / "traces", [tokyo]), state=state)
    for minute in (180, 181):
        look = eye.look(START + minute * 60, on_problem=fail)
        assert {alert.kind for alert in (*look.told, *look.goes_on)} == {"burn"}


def test_an_alarm_of_a_clock_that_was_ahead_for_a_moment_is_told_again_and_ends(state: AlarmState) -> None:
    alert = Alert(key="k", kind="burn", severity="critical", scope="team=cx", summary="burns", at=START)
    assert state.update([alert], at=START)[0] == [alert]
    assert state.update([alert], at=START + 2000 * DAY)[0] == [alert]
    assert state.update([alert], at=START + 60)[0] == []
    assert state.update([alert], at=START + DAY + 60)[0] == [alert]
    assert [each.status for each in state.update([], at=START + 2 * DAY)[0]] == ["resolved"]


def test_an_alarm_that_cannot_be_kept_leaves_the_state_usable(state: AlarmState) -> None:
    good = Alert(key="k", kind="burn", severity="critical", scope="team=cx", summary="burns", at=START)
    with pytest.raises(TypeError):
        state.update([good, dataclasses.replace(good, details={"odd": object()})], at=START)
    assert state.update([good], at=START)[0] == [good]


def test_before_anything_was_spent_all_is_fine(tmp_path: Path, state: AlarmState) -> None:
    (tmp_path / "traces").mkdir()
    for folder in ("traces", "missing"):
        eye = watching.Watch([CX], traces=TraceSource(state.db, tmp_path / folder, [CX]), state=state)
        assert eye.look(START, on_problem=fail).told == ()


def test_a_state_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no database, " * 100, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"state=.*other.* cannot be used"):
        AlarmState(tmp_path / "other")


def test_a_watch_outlives_a_look_that_fails(tmp_path: Path, state: AlarmState) -> None:
    class Away(LedgerSource):
        def standing(self, watched: Watched, at: float) -> tuple[int, int | None]:
            if at == START:
                msg = "the ledger is out of reach"
                raise LedgerUnavailableError(msg)
            return super().standing(watched, at)

    times = iter([START, START, START + 60, START + 60])
    looks: list[watching.Look] = []
    problems: list[Problem] = []
    with contextlib.closing(open_ledger("memory:")) as ledger:
        eye = watching.Watch([CX], traces=TraceSource(state.db, tmp_path, [CX]), state=state, ledger=Away(ledger))
        watching.run(
            eye,
            looks.append,
            every=60,
            clock=lambda: next(times),
            sleep=lambda _: None,
            on_problem=problems.append,
            stopped=lambda: bool(looks),
        )
    assert [problem.reason for problem in problems] == ["the ledger is out of reach"]
    assert [look.at for look in looks] == [START + 60]
