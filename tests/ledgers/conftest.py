"""A real Redis or Valkey for the tests of this folder; none is a failure, never a skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledgers.proxy import Proxy
from tests.ledgers.servers import Server, fresh


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that all tests share: AGENTBUDGET_REDIS_URL, or the one of the test extra."""
    given = os.environ.get("AGENTBUDGET_REDIS_URL")
    if given:
        yield given
        return
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def fresh_url(redis_url: str) -> str:
    """An empty ledger on that server."""
    return fresh(redis_url)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may break."""
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy
