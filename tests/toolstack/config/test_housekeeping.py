"""What the toolstack does by itself survives what the host does to it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator

import pytest

from domzero.host.network.protocol import InterfaceInfo, NetworkError
from domzero.host.network.sim import SimNetwork
from domzero.toolstack.host.logs import RESUME_INTERVAL
from domzero.toolstack.housekeeping import keep_house, round_of_work
from domzero.toolstack.network.interfaces import refresh_interfaces_if_possible
from tests.toolstack.vm.world import World


class MuteNetwork(SimNetwork):
    """A kernel that does not list its interfaces, as one does that is short of memory."""

    async def interfaces(self) -> list[InterfaceInfo]:
        raise NetworkError("interfaces cannot be listed: No buffer space available")


async def test_interfaces_that_cannot_be_read_end_nothing(host: World) -> None:
    before = {ref: row.record for ref, row in host.stack.database.rows("PIF").items()}
    host.stack.network = MuteNetwork(host.clock)
    await round_of_work(host.stack)
    await refresh_interfaces_if_possible(host.stack)
    assert {ref: row.record for ref, row in host.stack.database.rows("PIF").items()} == before


@pytest.fixture
def syslog_server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        yield server


async def test_the_log_goes_on_to_its_server_after_a_start(host: World, syslog_server: socket.socket) -> None:
    """Also where the server cannot be found at first, as when the network comes up later than the host."""
    host.change("host", host.stack.host, logging={"syslog_destination": "127.0.0.1:0"})
    house = asyncio.create_task(keep_house(host.stack))
    try:
        await host.settle()
        port = syslog_server.getsockname()[1]
        host.change("host", host.stack.host, logging={"syslog_destination": f"127.0.0.1:{port}"})
        await host.clock.advance(RESUME_INTERVAL)
        await host.settle()
        logging.getLogger("domzero.tests").warning("a line for the server")
        while b"a line for the server" not in await asyncio.to_thread(syslog_server.recv, 4096):
            continue  # The host may have had something to say before.
    finally:
        house.cancel()
        await asyncio.wait({house})
        host.stack.control.send_log_to("")
