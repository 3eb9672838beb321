"""What serves the bridges of a plan: DHCP servers, DHCP clients, and the host's list of name servers."""

from __future__ import annotations

import logging
from pathlib import Path

from domzero.host.network.dhcp_client import DhcpClients
from domzero.host.network.dhcp_server import DhcpServers, configuration
from domzero.host.network.helpers import Helpers
from domzero.host.network.nft import Nft
from domzero.host.network.plan import AddressMode, BridgeSpec, NetworkPlan
from domzero.host.network.protocol import NetworkError
from domzero.host.network.resolver import Resolver
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)


class Services:
    """The services of one backend, whatever its bridges are made of. `directory` is for their files."""

    def __init__(self, thread: NetworkThread, helpers: Helpers, nft: Nft, resolver: Resolver, directory: Path) -> None:
        self._thread = thread
        self._resolver = resolver
        self._servers = DhcpServers(thread, helpers, nft, directory / "server")
        self._clients = DhcpClients(thread, helpers, directory / "client", resolver)

    def check(self, plan: NetworkPlan) -> None:
        """Raises `NetworkError` for a plan that could not be served."""
        for bridge in plan.bridges:
            if bridge.dhcp_server is not None:
                configuration(bridge.name, bridge.dhcp_server, Path("/"))

    async def ensure(self, plan: NetworkPlan) -> None:
        """Start what the plan has, its bridges being there. What runs as it should is left alone."""
        for bridge in plan.bridges:
            if bridge.dhcp_server is not None:
                await self._servers.ensure(bridge.name, bridge.dhcp_server)
            if bridge.addresses.mode is AddressMode.DHCP:
                await self._clients.ensure(bridge.name, bridge.addresses, f"{bridge.uplink}.{bridge.tag}")
            await self._contribute(bridge)

    async def end_others(self, plan: NetworkPlan) -> None:
        """End what runs and is not in the plan."""
        served = {bridge.name for bridge in plan.bridges if bridge.dhcp_server is not None}
        asking = {bridge.name for bridge in plan.bridges if bridge.addresses.mode is AddressMode.DHCP}
        for name in sorted(self._servers.bridges() - served):
            await self._servers.end(name)
        for name in sorted(self._clients.bridges() - asking):
            await self._clients.end(name)
        silent = self._resolver.bridges() - {bridge.name for bridge in plan.bridges}
        for name in sorted(silent):
            await self._thread.run(lambda _, name=name: self._resolver.contribute(name, ()))  # type: ignore[misc]

    async def restore(self, plan: NetworkPlan) -> None:
        """Return to the services of an earlier plan, as far as can be. What cannot be done is logged."""
        for work in (self.ensure, self.end_others):
            try:
                await work(plan)
            except NetworkError as error:
                log.error("the services of the networks before could not be restored: %s", error)

    async def _contribute(self, bridge: BridgeSpec) -> None:
        """Fixed name servers; those of a lease are the client's affair."""
        spec = bridge.addresses
        if spec.mode is AddressMode.DHCP and spec.accept_dns:
            return
        await self._thread.run(lambda _: self._resolver.contribute(bridge.name, spec.dns, spec.domain))
