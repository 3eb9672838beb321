"""What the toolstack does by itself survives what the host does to it."""

from __future__ import annotations

from domzero.host.network.protocol import InterfaceInfo, NetworkError
from domzero.host.network.sim import SimNetwork
from domzero.toolstack.housekeeping import round_of_work
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
