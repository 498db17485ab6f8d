"""What a Redis URL means, what is refused before anything is sent, and that a password is shown to nobody."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest

from agentbudget.errors import ConfigurationError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.redis.options import options_of
from tests.ledgers.servers import Server

SECRET = "hunter2-S3cret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("valkey"), requirepass=SECRET) as one:
        yield one


@pytest.mark.parametrize("url", [f"redis://:123#{SECRET}@127.0.0.1:1", f"redis://:123?{SECRET}@127.0.0.1:1"])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as refused:
        open_ledger(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://host:1", "redis://host:1"),
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://host:1/4", "redis://host:1/4"),
        ("redis://:secret@host:1?db=4", "redis://host:1?db=4"),
        ("redis://host:1/4?db=5", "redis://host:1/4?db=5"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=3", "unix:///run/redis.sock?db=3"),
    ],
)
def test_the_place_of_a_ledger_names_its_database(url: str, place: str) -> None:
    assert options_of(url).place == place


def test_a_database_that_the_server_has_not_is_a_mistake_in_the_url(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="name another database"):
        open_ledger(f"redis://:{SECRET}@127.0.0.1:{server.port}/99")


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_of_certificates_that_is_missing_is_a_mistake_in_the_url(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}='/nowhere.pem': there is no such file"):
        open_ledger(f"rediss://127.0.0.1:1?{option}=/nowhere.pem")


@pytest.mark.parametrize("user", ["eve", ""])
def test_a_refused_password_is_named_by_its_code_and_is_in_no_frame(server: Server, user: str) -> None:
    with pytest.raises(ConfigurationError, match=r"refused the user or password \(WRONGPASS\)") as refused:
        open_ledger(f"redis://{user}:{SECRET}x@127.0.0.1:{server.port}/0")
    told = traceback.TracebackException.from_exception(refused.value, capture_locals=True).__cause__
    assert told is not None
    assert not [frame for frame in told.stack if SECRET in str(frame.locals)]
