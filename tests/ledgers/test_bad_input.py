"""What cannot be meant is refused before anything is paid, and says what to write instead."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import MAX_NAME_BYTES, Account, Meter, check_name
from agentbudget.errors import ConfigurationError
from agentbudget.ledgers.sqlite import SqliteLedger
from agentbudget.testing import ScriptedChatModel, scripted_reply

COMPOSED = "Zo\u00eb"
TYPED_OTHERWISE = unicodedata.normalize("NFD", COMPOSED)


# -- the URL of a ledger -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["sqlite", "SQLITE", "SqLite"])
def test_a_scheme_may_be_written_in_any_case(tmp_path: Path, scheme: str) -> None:
    ledger = ab.open_ledger(f"{scheme}:///{tmp_path}/spend.db")
    assert isinstance(ledger, SqliteLedger)
    assert ledger.path == tmp_path / "spend.db"
    ledger.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (":memory:", "Did you mean 'memory:'"),
        ("valkey://localhost", "Did you mean 'redis:'"),
        ("Sqlit:///spend.db", "Did you mean 'sqlite:'"),
        ("spend.db", "sqlite:///spend.db"),
        ("postgresql://user:s3cret@host/db", "known: memory:"),
        ("sqlite:/var/lib/spend.db", "from here or in full"),
        (f"sqlite:///{'x' * 300}.db", "name another file"),
        (None, "no scheme"),
    ],
)
def test_a_url_that_means_no_ledger_says_what_to_write(url: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ab.open_ledger(url)
    assert says in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_folder_is_no_ledger_and_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder; name a file in it"):
        ab.open_ledger(f"sqlite:///{tmp_path}")


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"amount": 0}, "amount=0"),
        ({"amount": "$9007199.254740992"}, "the largest amount"),
        ({"meter": "model_calls", "amount": None}, "amount=None"),
        ({"scope": None}, "scope=None"),
        ({"scope": 5}, "scope=5"),
        ({"scope": {"user", "model"}}, "several in a tuple"),
        ({"scope": ("user", "user")}, "name each scope once"),
        ({"timezone": None}, "timezone=None"),
        ({"alert_at": 0.8}, "alert_at=0.8"),
        ({"alert_at": None}, "alert_at=None"),
    ],
)
def test_a_limit_that_means_nothing_is_refused_by_the_name_of_its_option(given: dict[str, Any], says: str) -> None:
    options = {"meter": "cost", "amount": "$1", "scope": "user", **given}
    with pytest.raises(ConfigurationError) as refused:
        ab.Limit(options.pop("meter"), options.pop("amount"), **options)
    assert says in str(refused.value)


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_is_one_account_however_it_was_typed() -> None:
    assert COMPOSED != TYPED_OTHERWISE
    limit = ab.Limit("cost", "$1", scope="user")
    typed = [limit.account({"user": name}, at=0) for name in (COMPOSED, TYPED_OTHERWISE)]
    assert typed == [Account((("user", COMPOSED),), Meter.COST)] * 2
    governor = ab.Governor(limits=[limit])
    for name in (COMPOSED, TYPED_OTHERWISE):
        with ab.task("answer", governor=governor, user=name):
            ScriptedChatModel(script=[scripted_reply("Yes.")]).invoke("Is it?")
    assert len([account for account in governor.ledger.accounts() if account.scope[0][0] == "user"]) == 1
    governor.close()


def test_a_limit_for_a_plan_applies_however_the_plan_was_typed() -> None:
    limit = ab.Limit("cost", "$1", scope="user", where={"plan": TYPED_OTHERWISE})
    for plan in (COMPOSED, TYPED_OTHERWISE):
        assert limit.account({"user": "u", "plan": plan}, at=0) is not None
    assert limit.account({"user": "u", "plan": "Zoe"}, at=0) is None
    governor = ab.Governor(limits=[limit])
    assert len(governor.explain(user="u", plan=TYPED_OTHERWISE).limits) == 1
    governor.close()


def test_a_name_is_as_long_as_it_is_kept() -> None:
    short = "e\u0301" * (MAX_NAME_BYTES // 2)  # three bytes each as typed, two as kept
    assert check_name(short, what="user") == "\u00e9" * (MAX_NAME_BYTES // 2)
