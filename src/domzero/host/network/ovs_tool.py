"""Running Open vSwitch's own programs: its database in transactions, its flows and meters (ovs-vsctl(8), ovs-ofctl(8)).

The switch is a service of the machine that is there before us and stays after us; nothing here starts or ends it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domzero.host import process
from domzero.host.network.protocol import NetworkError

RUN_DIRECTORY = Path("/run/openvswitch")
SECONDS = 20.0
OPENFLOW = "OpenFlow15"

Row = Mapping[str, Any]


class OvsTool:
    """The programs, talking to the switch whose sockets are in `directory`. Each call takes a bounded time."""

    def __init__(self, directory: Path = RUN_DIRECTORY) -> None:
        self._directory = directory
        self._database = f"--db=unix:{directory / 'db.sock'}"

    async def check(self) -> None:
        """Raises `NetworkError` that says what to do where no switch answers."""
        if not (self._directory / "db.sock").exists():
            raise NetworkError(
                "Open vSwitch does not run: install the package openvswitch-switch and start its service"
            )
        await self._run(["ovs-vsctl", self._database, "--timeout=10", "show"])

    async def transaction(self, commands: Sequence[Sequence[str]]) -> None:
        """All of the commands, or none; returns when the switch has carried them out."""
        if commands:
            words = [word for command in commands for word in ("--", *command)]
            await self._run(["ovs-vsctl", self._database, "--timeout=15", *words])

    async def rows(self, table: str, *columns: str) -> list[Row]:
        """The rows of a table: plain values, lists for sets, dicts for maps."""
        argv = ["ovs-vsctl", self._database, "--timeout=10", "--format=json", f"--columns={','.join(columns)}"]
        said = json.loads(await self._run([*argv, "list", table]))
        return [dict(zip(said["headings"], map(plain, row), strict=True)) for row in said["data"]]

    async def change_flows(self, bridge: str, commands: Sequence[str]) -> None:
        """Flow commands (`add …`, `delete …`) as one bundle: all or none."""
        # In a file that is only in memory: an argument list has its limits.
        descriptor = os.memfd_create("flows", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "w") as file:
                file.writelines(f"{line}\n" for line in commands)
            words = ("--bundle", "add-flows", self._bridge(bridge), f"/proc/self/fd/{descriptor}")
            await self._ofctl(*words, inherited=(descriptor,))
        finally:
            os.close(descriptor)

    async def set_meter(self, bridge: str, meter: int, kilobits: int, burst: int) -> None:
        """Make a meter that drops what is beyond a rate (kilobits a second; the burst in kilobits), or change it."""
        bands = f"meter={meter},kbps,burst,stats,bands=type=drop,rate={kilobits},burst_size={burst}"
        await self.remove_meter(bridge, meter)
        await self._ofctl("add-meter", self._bridge(bridge), bands)

    async def remove_meter(self, bridge: str, meter: int) -> None:
        """No error when there is none."""
        await self._ofctl("del-meters", self._bridge(bridge), f"meter={meter}")

    async def set_forwarding(self, bridge: str, port: str, *, forward: bool) -> None:
        """Whether anything reaches a port."""
        await self._ofctl("mod-port", self._bridge(bridge), port, "forward" if forward else "no-forward")

    def _bridge(self, name: str) -> str:
        return f"unix:{self._directory / f'{name}.mgmt'}"

    async def _ofctl(self, *words: str, inherited: Sequence[int] = ()) -> None:
        await self._run(["ovs-ofctl", "-O", OPENFLOW, "--timeout=10", *words], inherited)

    async def _run(self, argv: Sequence[str], inherited: Sequence[int] = ()) -> bytes:
        try:
            return (await process.run(argv, timeout=SECONDS, pass_fds=tuple(inherited))).stdout
        except process.ProcessError as error:
            raise NetworkError(f"Open vSwitch: {error}") from error


def plain(value: Any) -> Any:
    """A value of OVSDB's JSON (RFC 7047, 5.1) without its notation: sets as lists, maps as dicts, uuids as text."""
    match value:
        case ["set", list(items)]:
            return [plain(item) for item in items]
        case ["map", list(pairs)]:
            return {plain(key): plain(item) for key, item in pairs}
        case ["uuid", str(text)]:
            return text
    return value
