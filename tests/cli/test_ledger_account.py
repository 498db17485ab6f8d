"""`agentbudget ledger set-limit` and `top-up` change what calls really count, or say that they would not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.cli import main
from agentbudget.domain.accounts import Account, Charge, Posting

LIMITS = (
    ab.Limit("cost", "$200", scope="team", window="month", timezone="Europe/Berlin"),
    ab.Limit("cost", "$9", scope="team", window="hour", timezone="Europe/Berlin"),
    ab.Limit("model_calls", 5, scope=("user", "model")),
)
NAMES = {"team": "cx", "user": "u42", "model": "gpt-5"}
NOW = 1_795_384_592.0


def used(limit: ab.Limit, at: float = NOW) -> Account:
    account = limit.account(NAMES, at=at)
    assert account is not None
    return account


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/spend.db"
    ledger = ab.open_ledger(url)
    for number, limit in enumerate(LIMITS):
        ledger.reserve(f"r{number}", [Posting(used(limit), 1, limit.amount)], lease_seconds=60)
        ledger.settle(f"r{number}", [Charge(used(limit), 1, 1)])
    ledger.close()
    return url


def limits(url: str) -> dict[str, int | None]:
    ledger = ab.open_ledger(url)
    found = {account.key: ledger.balance(account).limit for account in ledger.accounts()}
    ledger.close()
    return found


@pytest.mark.parametrize("verb", ["set-limit", "top-up"])
@pytest.mark.parametrize("window", [["--window", "month"], ["--window", "2026-11"], []])
def test_a_window_that_no_call_counts_is_said_with_the_one_that_calls_do(
    verb: str, window: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", verb, url, "--scope", "team=cx", *window, "--amount", "$5"]) == 0
    told = capsys.readouterr().err
    assert "no call has counted the cost of team 'cx'" in told
    assert "Europe/Berlin" in told


def test_the_next_month_of_a_limit_may_be_set_before_it_begins(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = "2030-01 Europe/Berlin"
    assert main(["ledger", "set-limit", url, "--scope", "team=cx", "--window", key, "--amount", "$5"]) == 0
    assert limits(url)[Account((("team", "cx"),), LIMITS[0].meter, key).key] == 5 * 10**9
    assert not capsys.readouterr().err


def test_an_hour_of_another_season_is_of_the_same_limit(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    summer = used(LIMITS[1], at=NOW + 200 * 86_400).window
    assert "+0200" in summer
    assert main(["ledger", "set-limit", url, "--scope", "team=cx", "--window", summer, "--amount", "$5"]) == 0
    assert not capsys.readouterr().err


def test_scopes_may_be_named_in_any_order(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    scopes = ["--scope", "model=gpt-5", "--scope", "user=u42"]
    assert main(["ledger", "set-limit", url, *scopes, "--meter", "model_calls", "--amount", "99", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settled"] == 1
    assert limits(url)[used(LIMITS[2]).key] == 99


def test_what_nobody_used_yet_may_be_limited(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "set-limit", url, "--scope", "team=other", "--window", "day", "--amount", "$5"]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "window", ["2026-13", "2026-1", "2026-W54", "2026-11 Mars/Base", "2026-11-22T10:5+0000", "year"]
)
def test_a_key_that_no_window_has_is_refused(window: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "set-limit", url, "--scope", "x=y", "--window", window, "--amount", "$5"]) == 2
    assert "--window" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["-5", "nan", "inf"])
def test_a_window_that_runs_is_never_forgotten(days: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = limits(url)
    assert main(["ledger", "collect", url, f"--over-for={days}", "--yes"]) == 2
    assert "--over-for" in capsys.readouterr().err
    assert limits(url) == before
