"""`agentbudget ledger`: what it shows, changes and refuses, over a SQLite file and a real server."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.cli import main
from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.windows import Window
from agentbudget.ledgers import open_ledger
from agentbudget.testing import FakeClock, ScriptedChatModel, scripted_reply
from tests.ledgers.servers import Server

USER = Account((("user", "u42"),), Meter.COST, "2020-11")
TASK = Account((("task", "t1"), ("tool", "search")), Meter.TOOL_CALLS)
SECRET = "hunter2-is-no-password"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A ledger with some spend, a reservation and an overrun."""
    url = f"sqlite:///{tmp_path}/spend.db"
    ledger = open_ledger(url, clock=FakeClock(1_780_000_000.0))
    ledger.reserve("=cmd|' /C calc'!A0", [Posting(USER, 5_000_000, 10**9), Posting(TASK, 1, 3)], lease_seconds=1e6)
    ledger.settle("=cmd|' /C calc'!A0", [Charge(USER, 5_000_000, 12_300_000), Charge(TASK, 1, 1)])
    ledger.reserve("b\nc", [Posting(USER, 1_000_000, 10**9)], lease_seconds=1e9)
    ledger.close()
    return url


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command; its exit code, output and errors."""

    def call(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["ledger", *argv])
        except SystemExit as left:
            code = int(left.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_show_prints_the_balances_as_a_table(run: Any, url: str) -> None:
    code, out, err = run("show", url)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "scope                 meter       window   limit  settled  reserved  presumed  overrun  available",
        "task t1, tool search  tool_calls  -            3        1         0         0        0          2",
        "user u42              cost        2020-11  $1.00  $0.0123   $0.0010     $0.00  $0.0073    $0.9867",
    ]


def test_show_tells_of_a_stop_by_hand_only_where_there_is_one(run: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/stops.db"
    governor = ab.Governor(ledger=url)
    for task_id in ("going-on", "stopped"):
        with ab.task("t", max_cost="$1", task_id=task_id, governor=governor):
            ScriptedChatModel(script=[scripted_reply("ok")]).invoke("Go.")
    ab.stop("stopped", ledger=url)
    governor.close()
    by_hand = [line.partition(",")[0] for line in run("show", url)[1].splitlines() if "by hand" in line]
    assert by_hand == ["task stopped", "task stopped"]


def test_show_as_json_gives_nano_dollars_and_filters_choose(run: Any, url: str) -> None:
    code, out, _ = run("show", url, "--json", "--scope", "user")
    (shown,) = json.loads(out)
    assert code == 0
    assert (shown["scope"], shown["window"], shown["settled"]) == ([["user", "u42"]], "2020-11", 12_300_000)
    assert json.loads(run("show", url, "--json", "--scope", "user=other")[1]) == []
    assert len(json.loads(run("show", url, "--json", "--meter", "tool_calls")[1])) == 1
    assert len(json.loads(run("show", url, "--json", "--window", "2020-11")[1])) == 1


def test_verify_proves_every_balance(run: Any, url: str) -> None:
    assert run("verify", url) == (0, "2 accounts, 3 entries: every balance is proved.\n", "")
    assert json.loads(run("verify", url, "--json")[1])["ok"] is True


def test_verify_names_what_differs_and_exits_1(run: Any, url: str) -> None:
    db = sqlite3.connect(url.removeprefix("sqlite:///"))
    db.execute("UPDATE account SET settled = settled + 7 WHERE key LIKE 'user%'")
    db.commit()
    db.close()
    code, out, _ = run("verify", url)
    assert code == 1
    assert "user:u42|cost|2020-11: settled is 12300007, its records say 12300000" in out


def test_a_top_up_counts_once_per_grant(run: Any, url: str) -> None:
    for _ in range(2):
        code, out, _ = run(
            "top-up", url, "--scope", "user=u42", "--window", "2020-11", "--amount", "$5", "--grant", "g"
        )
        assert code == 0
        assert "$6.00" in out
    code, _, err = run("top-up", url, "--scope", "user=u42", "--window", "2020-11", "--amount", "$6", "--grant", "g")
    assert code == 2
    assert "grant 'g'" in err


def test_a_limit_is_set_and_lifted_whatever_the_code_declares(run: Any, url: str) -> None:
    account = ("--scope", "task=t1", "--scope", "tool=search", "--meter", "tool_calls")
    assert json.loads(run("set-limit", url, *account, "--amount", "9", "--json")[1])["limit"] == 9
    assert json.loads(run("set-limit", url, *account, "--none", "--json")[1])["limit"] is None


def test_the_window_of_now_can_be_named(run: Any, url: str) -> None:
    shown = json.loads(run("set-limit", url, "--scope", "user=u42", "--window", "month", "--timezone", "Europe/Berlin",
                           "--amount", "$1", "--json")[1])  # fmt: skip
    assert shown["window"].endswith(" Europe/Berlin")
    assert shown["limit"] == 10**9


def test_explain_says_which_limit_is_the_tightest(run: Any, url: str) -> None:
    ledger = open_ledger(url)
    for window in (Window.DAY.key(0.0), ""):
        ledger.set_limit(Account((("user", "u42"),), Meter.COST, window), 10**6)
    ledger.set_limit(Account((("team", "cx"),), Meter.COST), 10**6)
    ledger.close()
    code, out, _ = run("explain", url, "--scope", "user=u42", "--scope", "plan=free")
    assert code == 0
    assert out.splitlines()[:2] == [
        "1 limit applies to user 'u42', plan 'free', the tightest first (100 % of it is left):",
        "  1. cost of user 'u42': $0.0010 left of $0.0010 (nothing spent)",
    ], "a window that is over limits nothing"
    assert json.loads(run("explain", url, "--scope", "user=u42", "--json")[1])["limits"][0]["available"] == 10**6
    assert run("explain", url)[1] == "No limit applies to a call without scopes.\n"


def test_export_writes_the_journal_as_json_lines(run: Any, url: str, tmp_path: Path) -> None:
    code, out, _ = run("export", url)
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [entry["verb"] for entry in entries] == ["reserve", "settle", "reserve"]
    assert entries[1]["lines"] == [{"account": "task:t1/tool:search|tool_calls|", "amount": 1},
                                   {"account": "user:u42|cost|2020-11", "amount": 12_300_000}]  # fmt: skip
    assert run("export", url, "--output", str(tmp_path / "journal.jsonl")) == (0, "", "")
    assert (tmp_path / "journal.jsonl").read_text() == out


def test_export_as_csv_is_a_row_a_line_and_no_cell_is_a_formula(run: Any, url: str, tmp_path: Path) -> None:
    target = tmp_path / "journal.csv"
    assert run("export", url, "--format", "csv", "--output", str(target))[0] == 0
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["'=cmd|' /C calc'!A0"] * 4 + ["b\nc"]
    assert rows[0]["scope"] == "task=t1/tool=search"
    assert rows[3] | {} == {
        "sequence": "2", "at": "2026-05-28T20:26:40+00:00", "verb": "settle", "id": "'=cmd|' /C calc'!A0",
        "scope": "user=u42", "meter": "cost", "window": "2020-11", "amount": "12300000",
    }  # fmt: skip


def test_collect_shows_first_and_forgets_when_told(run: Any, url: str) -> None:
    ledger = open_ledger(url)
    over = [Account((("user", "u1"),), Meter.COST, key) for key in ("2020-01", "2020-01-02T03+0000")]
    for account in [*over, Account((("user", "u1"),), Meter.COST, Window.MONTH.key(4e9))]:
        ledger.set_limit(account, 5)
    code, out, _ = run("collect", url, "--over-for", "30")
    assert code == 0
    assert "3 accounts: nothing forgotten; add --yes" in out
    assert set(over) < set(ledger.accounts())
    assert "2 forgotten. Where something is reserved" in run("collect", url, "--over-for", "30", "--yes")[1]
    assert not set(over) & set(ledger.accounts())
    assert json.loads(run("collect", url, "--scope", "task=t1", "--yes", "--json")[1])["forgotten"] == 1
    assert json.loads(run("collect", url, "--scope", "user=u42", "--yes", "--json")[1])["forgotten"] == 0, "reserved"
    assert ledger.verify().ok
    ledger.close()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["show", "sqlite:///nowhere.db"], "no such file"),
        (["show", "mysql://host"], "scheme 'mysql'"),
        (["show", "memory:"], "lives in the process"),
        (["show"], "AGENTBUDGET_LEDGER"),
        (["show", "redis://host/0?prefx=a"], "unknown option 'prefx'"),
        (["top-up", "URL", "--scope", "user", "--amount", "$1"], "KIND=NAME"),
        (["top-up", "URL", "--scope", "user=u", "--amount", "-1"], "--amount"),
        (["top-up", "URL", "--scope", "user=u", "--amount", "$1.5", "--meter", "model_calls"], "whole number"),
        (["set-limit", "URL", "--scope", "user=u", "--amount", "$9007200"], "largest amount"),
        (["set-limit", "URL", "--scope", "user=u", "--amount", "$1", "--window", "novembre"], "2026-11"),
        (
            ["set-limit", "URL", "--scope", "user=u", "--amount", "$1", "--window", "day", "--timezone", "X"],
            "time zone",
        ),
        (["set-limit", "URL", "--scope", "user=a\x1bb", "--amount", "$1"], "control characters"),
        (["set-limit", "URL", "--scope", "user=u"], "--amount"),
        (["collect", "URL"], "--over-for"),
        (["export", "URL", "--output", "no/such/folder/x"], "--output"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_mistake_exits_2_says_what_to_do_and_changes_nothing(
    run: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = run("export", url)[1]
    code, out, err = run(*[url if word == "URL" else word for word in argv])
    assert (code, out) == (2, "")
    assert told in err
    assert not (tmp_path / "nowhere.db").exists()
    assert run("export", url)[1] == before


def test_the_url_can_come_from_the_environment(run: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUDGET_LEDGER", url)
    assert run("verify")[0] == 0


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a password."""
    with Server(tmp_path_factory.mktemp("valkey"), requirepass=SECRET) as server:
        yield server


def test_a_server_is_read_like_a_file_and_its_password_is_never_shown(run: Any, locked: Server) -> None:
    ledger = open_ledger(locked.url)
    ledger.reserve("a", [Posting(USER, 5, 10**9)], lease_seconds=60)
    ledger.close()
    for argv in (["show"], ["verify"], ["explain", "--scope", "user=u42"], ["export"]):
        code, out, err = run(argv[0], locked.url, *argv[1:])
        assert (code, err) == (0, "")
        assert SECRET not in out
    wrong = locked.url.replace(SECRET, f"{SECRET}-wrong")
    for url in (wrong, wrong.replace(str(locked.port), "1"), wrong + "?prefx=1"):
        code, out, err = run("show", url)
        assert (code, out) == (2, "")
        assert SECRET not in err
