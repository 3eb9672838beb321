"""Addresses for the machines of a network of this host, by dnsmasq(8), and their way out by nftables.

dnsmasq runs as long as the bridge does, whether the daemon runs or not. It listens on the bridge's address alone, gives
up its rights, and keeps its leases in a file, so that machines find theirs again when it is started anew.

Masquerading needs the kernel's packet forwarding. That is one switch for the whole machine: it is turned on, and the
log says so, only for a network that asks for it, and turned off again with the last one if it was off before. What
comes from outside reaches the network's machines only in answer to them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from domzero.host import process
from domzero.host.network import files
from domzero.host.network.helpers import Helpers
from domzero.host.network.nft import Nft
from domzero.host.network.plan import DhcpServer
from domzero.host.network.protocol import NetworkError
from domzero.host.network.resolver import is_domain
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
START_SECONDS = 20.0
LEASE = "12h"
USER, GROUP = "nobody", "nogroup"
PROCESS = "pid"
"""The file of the server's process id: written while it is still root, where nobody else can write."""


def configuration(bridge: str, server: DhcpServer, directory: Path) -> str:
    """dnsmasq's file for a network, `directory` being where its other files are.

    Raises `NetworkError` for addresses that are not of one subnet.
    """
    try:
        own = IPv4Interface(server.address)
        first, last = IPv4Address(server.first), IPv4Address(server.last)
    except ValueError as error:
        raise NetworkError(f"the DHCP server of {bridge}: {error}") from error
    if not (first in own.network and last in own.network and first <= last):
        raise NetworkError(f"the DHCP server of {bridge}: {first} to {last} are no addresses of {own.network}")
    if server.domain and not is_domain(server.domain):
        raise NetworkError(f"the DHCP server of {bridge}: {server.domain[:80]!r} is no domain")
    lines = [
        f"interface={bridge}",
        "except-interface=lo",
        "bind-interfaces",
        "no-hosts",
        "no-poll",
        f"user={USER}",
        f"group={GROUP}",
        f"pid-file={directory / PROCESS}",
        f"dhcp-leasefile={directory / 'leases'}",
        f"dhcp-range={first},{last},{own.netmask},{LEASE}",
        "dhcp-authoritative",
        "quiet-dhcp",
        # A machine of that name would be asked for everybody's proxy settings.
        "dhcp-name-match=set:proxy,wpad",
        "dhcp-ignore-names=tag:proxy",
        *([f"domain={server.domain}", f"local=/{server.domain}/"] if server.domain else []),
        *([] if server.masquerade else ["no-resolv", "dhcp-option=option:router"]),
    ]
    return "\n".join([*lines, ""])


def masquerading(bridge: str, server: DhcpServer) -> list[dict[str, Any]]:
    """The nftables commands that let a network's machines out, and nobody in; whatever was set for it before goes."""
    subnet = IPv4Interface(server.address).network
    inside: dict[str, Any] = {"prefix": {"addr": str(subnet.network_address), "len": subnet.prefixlen}}
    source, target = ({"payload": {"protocol": "ip", "field": field}} for field in ("saddr", "daddr"))
    answers = ["established", "related"]
    table = _table(bridge)
    hooks = {
        "out": {"type": "nat", "hook": "postrouting", "prio": 100},
        "through": {"type": "filter", "hook": "forward", "prio": 0},
    }

    def rule(chain: str, *expression: dict[str, Any]) -> dict[str, Any]:
        return {"add": {"rule": {"family": "ip", "table": table, "chain": chain, "expr": list(expression)}}}

    # Where the kernel filters bridged packets too, those between the network's own machines come by here as well.
    outside, inward = _match(_meta("iifname"), bridge, "!="), _match(_meta("oifname"), bridge)
    return [
        *let_in(bridge),
        {"add": {"table": {"family": "ip", "name": table}}},
        *(
            {"add": {"chain": {"family": "ip", "table": table, "name": name, "policy": "accept", **hook}}}
            for name, hook in hooks.items()
        ),
        rule(
            "out",
            _match(_meta("oifname"), bridge, "!="),
            _match(source, inside),
            _match(target, inside, "!="),
            {"masquerade": None},
        ),
        rule("through", outside, inward, _match({"ct": {"key": "state"}}, answers, "in"), {"accept": None}),
        rule("through", outside, inward, {"drop": None}),
    ]


def _meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def _match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def let_in(bridge: str) -> list[dict[str, Any]]:
    """The commands that take away what `masquerading` set, if anything."""
    table = {"table": {"family": "ip", "name": _table(bridge)}}
    return [{"add": table}, {"delete": table}]


class DhcpServers:
    """The servers of one backend. `directory` holds their files; everything in it is made when it is needed."""

    def __init__(self, thread: NetworkThread, helpers: Helpers, nft: Nft, directory: Path) -> None:
        self._thread = thread
        self._helpers = helpers
        self._nft = nft
        self._directory = directory

    def bridges(self) -> frozenset[str]:
        """The bridges that have a server, or had when the daemon last looked."""
        return frozenset(path.parent.name for path in self._directory.glob("*/*.conf"))

    async def ensure(self, bridge: str, server: DhcpServer) -> None:
        """See that a bridge, which has its address, is served just so. Raises `NetworkError`."""
        directory = self._directory / bridge
        text = configuration(bridge, server, directory)
        digest = hashlib.sha256(f"{text}{server}".encode()).hexdigest()[:12]
        path = directory / f"{digest}.conf"
        argv = self._thread.command(["dnsmasq", f"--conf-file={path}"])
        running = self._helpers.find(self._sign(bridge), directory / PROCESS)
        if path.exists() and [_program(argv)] == [_program(line) for line in running.values()]:
            return
        await self.end(bridge)
        files.write(path, text)
        try:
            if server.masquerade:
                await self._nft.change(masquerading(bridge, server))
                await self._thread.run(lambda _: self._forward(bridge))
            await process.run(argv, timeout=START_SECONDS)
        except (process.ProcessError, NetworkError) as error:
            await self.end(bridge)
            raise NetworkError(f"the DHCP server of {bridge} cannot be started: {error}") from error

    async def end(self, bridge: str) -> None:
        """See that a bridge has no server. The leases are kept."""
        await self._helpers.end(self._sign(bridge), self._directory / bridge / PROCESS)
        if (self._directory / bridge / "forwarding").exists():
            await self._nft.change(let_in(bridge))
            await self._thread.run(lambda _: self._no_longer_forward(bridge))
        for path in [*(self._directory / bridge).glob("*.conf"), self._directory / bridge / PROCESS]:
            files.remove(path)

    def _sign(self, bridge: str) -> str:
        return f"--conf-file={self._directory / bridge}/"

    def _forward(self, bridge: str) -> None:
        """Turn forwarding on for the whole machine, and note for whom."""
        others = [files.read(path) for path in self._directory.glob("*/forwarding")]
        before = next(filter(None, others), None) or _switch()
        files.write(self._directory / bridge / "forwarding", before)
        if _switch() == "0":
            log.warning("net.ipv4.ip_forward is turned on for the whole machine: network %s masquerades", bridge)
            _set_switch("1")

    def _no_longer_forward(self, bridge: str) -> None:
        before = files.read(self._directory / bridge / "forwarding")
        files.remove(self._directory / bridge / "forwarding")
        if before == "0" and not any(self._directory.glob("*/forwarding")):
            log.warning("net.ipv4.ip_forward is turned off again: no network masquerades any more")
            _set_switch("0")


def _table(bridge: str) -> str:
    return f"domzero-{bridge}"


def _program(argv: Sequence[str]) -> tuple[str, ...]:
    """A command line without what led to it."""
    return tuple(argv[argv.index("dnsmasq") :]) if "dnsmasq" in argv else tuple(argv)


def _switch() -> str:
    return (files.read(FORWARDING) or "0").strip()


def _set_switch(value: str) -> None:
    try:
        FORWARDING.write_text(value)
    except OSError as error:
        raise NetworkError(f"packet forwarding cannot be set: {error.strerror}") from error
