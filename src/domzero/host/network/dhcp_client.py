"""Addresses for the host itself, by DHCP: busybox's udhcpc, one for each bridge that asks for it.

The client outlives the daemon. What it learns is carried out by `domzero.host.network.lease`, through a small script
that names the settings of the bridge.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from domzero.host.network import files
from domzero.host.network.helpers import Helpers
from domzero.host.network.plan import AddressSpec
from domzero.host.network.protocol import NetworkError
from domzero.host.network.resolver import Resolver
from domzero.host.network.worker import NetworkThread

CLIENTS: Sequence[Sequence[str]] = (("udhcpc",), ("busybox", "udhcpc"))
OPTIONS = ("-t", "5", "-T", "3", "-A", "10")
"""Five requests three seconds apart, then again after ten seconds, for ever."""

CLASSLESS_ROUTES = "121"
"""RFC 3442."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """What the script needs to know of its bridge. Paths are absolute."""

    interface: str
    accept_dns: bool
    accept_gateway: bool
    resolver: str
    """The list of name servers, empty when it is not to be touched."""
    contributions: str
    uplink: str
    """Where the bridge leads: another uplink is another network, and needs another lease."""


class DhcpClients:
    """The clients of one backend. `directory` holds their files; `resolver` gets the name servers."""

    def __init__(self, thread: NetworkThread, helpers: Helpers, directory: Path, resolver: Resolver) -> None:
        self._thread = thread
        self._helpers = helpers
        self._directory = directory
        self._resolver = resolver

    def bridges(self) -> frozenset[str]:
        """The bridges that have a client, or had when the daemon last looked."""
        return frozenset(path.parent.name for path in self._directory.glob("*/*.sh"))

    async def ensure(self, bridge: str, spec: AddressSpec, uplink: str) -> None:
        """See that a bridge has a client with these settings. It is started, not waited for. Raises `NetworkError`."""
        settings = LeaseSettings(
            bridge,
            spec.accept_dns,
            spec.accept_gateway,
            str(self._resolver.path or ""),
            str(self._resolver.directory),
            uplink,
        )
        script = self._script(bridge, settings)
        argv = self._thread.command([*_program(), "-f", "-i", bridge, *OPTIONS, "-O", CLASSLESS_ROUTES, "-s", script])
        if any(script in line and "-i" in line for line in self._helpers.find(self._sign(bridge)).values()):
            return
        await self.end(bridge)
        self._script(bridge, settings, write=True)
        self._helpers.start(argv, self._directory / bridge / "log")

    async def end(self, bridge: str) -> None:
        """See that a bridge has no client. The addresses that it had from it stay, for the caller to change."""
        await self._helpers.end(self._sign(bridge))
        for path in [*(self._directory / bridge).glob("*.sh"), *(self._directory / bridge).glob("*.json")]:
            files.remove(path)

    def _sign(self, bridge: str) -> str:
        return f"{self._directory / bridge}/"

    def _script(self, bridge: str, settings: LeaseSettings, *, write: bool = False) -> str:
        """The script's path; other settings are another path, so that they show in the command line."""
        text = json.dumps(asdict(settings))
        name = hashlib.sha256(f"{text}{sys.executable}".encode()).hexdigest()[:12]
        path, content = self._directory / bridge / f"{name}.sh", self._directory / bridge / f"{name}.json"
        if write:
            words = [sys.executable, "-I", "-m", "domzero.host.network.lease", str(content)]
            files.write(content, text)
            files.write(path, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', mode=0o700)
        return str(path)


def _program() -> list[str]:
    for client in CLIENTS:
        if shutil.which(client[0]):
            return list(client)
    raise NetworkError("there is no DHCP client: install udhcpc")
