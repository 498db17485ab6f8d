"""What is refused before anything is spent: URLs, options and servers that cannot keep a ledger."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from agentbudget.errors import ConfigurationError, LedgerError, LedgerUnavailableError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.redis import AsyncRedisLedger, RedisLedger, scripts
from agentbudget.ledgers.redis.options import options_of
from agentbudget.ledgers.redis.talk import failure
from agentbudget.ledgers.redis.verbs import check_server
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import TASK, take


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://u:secret@host:port/0", "cannot be read"),
        ("redis://u:secret@host:99999/0", "cannot be read"),
        ("redis://u:sec/ret@host/0", "cannot be read"),
        ("redis://u:secret@host/mine", "number of a database"),
        ("unix://", "path of a socket"),
        ("redis://u:secret@host?prefx=a", "unknown option 'prefx'.*prefix"),
        ("redis://host?prefix=a{b}", "prefix="),
        ("redis://host?prefix=", "prefix="),
        ("redis://host?prefix=a%0Ab", "prefix="),
        ("redis://host?on_expire=keep", "on_expire='keep'.*charge"),
        ("redis://host?retain_days=soon", "retain_days='soon'"),
        ("redis://host?retain_days=-1", "retain_days"),
        ("redis://host?timeout=0", "timeout"),
        ("redis://host?timeout=nan", "timeout"),
    ],
)
def test_a_url_that_cannot_mean_anything_is_refused_without_its_password(url: str, words: str) -> None:
    for opener in (open_ledger, RedisLedger, AsyncRedisLedger):
        with pytest.raises(ConfigurationError, match=words) as caught:
            opener(url)
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_url_says_where_and_how(tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.touch()
    options = options_of(f"rediss://u:p%40ss@example.org:7000/3?prefix=acme&timeout=0.5&ssl_ca_certs={trusted}")
    assert options.place == "rediss://example.org:7000/3"
    assert options.meta == "{acme}:meta"
    assert "p@ss" not in repr(options)
    assert options.connection["password"] == "p@ss"
    assert options.connection["ssl_ca_certs"] == str(trusted)
    assert "prefix" not in options.connection


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (b"redis_version:6.2.14\r\nmaxmemory_policy:noeviction", "6.2.14.*7.0"),
        (b"# nothing", "unknown"),
        (b"redis_version:7.2.4\r\nserver_name:valkey\r\nmaxmemory_policy:allkeys-lfu\r\n", "allkeys-lfu.*noeviction"),
    ],
)
def test_a_server_that_cannot_keep_a_ledger_is_refused(info: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_server(info, "redis://host")


@pytest.mark.parametrize("version", [b"7.0.0", b"7.2.4", b"8.2.3", b"10.0.1"])
def test_a_server_of_7_or_later_is_accepted(version: bytes) -> None:
    check_server(b"redis_version:" + version + b"\r\nmaxmemory_policy:noeviction\r\n", "redis://host")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ResponseError("MOVED 3999 10.0.0.1:6381"), LedgerUnavailableError, "Cluster.*prefix="),
        (ResponseError("OOM command not allowed"), LedgerUnavailableError, "maxmemory.*settled"),
        (OutOfMemoryError("command not allowed"), LedgerUnavailableError, "maxmemory.*settled"),
        (ResponseError("LOADING the dataset"), LedgerUnavailableError, "3 tries"),
        (ResponseError("NOPERM no permissions"), ConfigurationError, "user or password"),
        (ResponseError("ERR user_script:9: not readable"), LedgerError, "nothing was written"),
        (OSError("no route"), LedgerUnavailableError, "no route"),
    ],
)
def test_an_error_of_the_server_says_what_to_do(error: Exception, kind: type[Exception], words: str) -> None:
    told = failure(error, "redis://host")
    assert type(told) is kind
    assert re.search(f"redis://host: .*{words}", str(told))


def test_open_ledger_opens_it(fresh_url: str) -> None:
    clock = FakeClock()
    ledger = open_ledger(f"{fresh_url}&on_expire=release", clock=clock)
    take(ledger, "a", (TASK, 5, 10))
    clock.advance(60)
    assert ledger.balance(TASK).committed == 0
    ledger.close()


def test_all_scripts_are_of_one_version_even_if_the_package_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts.script.cache_clear()
    scripts._body.cache_clear()
    before = scripts.script(at_maxmemory=False)

    def gone(_: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(scripts, "files", gone)
    assert scripts.script(at_maxmemory=False) == before
    flags, same = scripts.script(at_maxmemory=True).text.split("\n", 1)
    assert (flags, same) == ("#!lua flags=allow-oom", before.text.removeprefix("#!lua\n"))
