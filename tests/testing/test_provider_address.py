"""The address of a stand-in is its own: clients of LangChain are shared by address."""

from __future__ import annotations

from agentbudget.testing import ProviderServer
from agentbudget.testing.provider import _listening


def test_no_two_servers_of_a_process_have_one_address() -> None:
    ports = []
    with ProviderServer() as provider:
        for _ in range(1000):  # enough for the system to hand out some port twice, but once in e**17 runs
            server = _listening(provider)
            server.server_close()
            ports.append(server.server_port)
    assert len(set(ports)) == len(ports)
