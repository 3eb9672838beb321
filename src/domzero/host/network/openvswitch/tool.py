"""Running Open vSwitch's own programs: its database in transactions, its flows and meters (ovs-vsctl(8), ovs-ofctl(8)).

The switch is a service of the machine that is there before us and stays after us; nothing here starts or ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from domzero.host import process
from domzero.host.network.protocol import NetworkError

RUN_DIRECTORY = Path("/run/openvswitch")
SECONDS = 20.0
POLL_SECONDS = 0.05
OPENFLOW = "OpenFlow15"

Row = Mapping[str, Any]


class OvsTool:
    """The programs, talking to the switch whose sockets are in `directory`. Each call takes a bounded time."""

    def __init__(self, directory: Path = RUN_DIRECTORY) -> None:
        self._directory = directory
        self._database = f"--db=unix:{directory / 'db.sock'}"

    async def check(self) -> None:
        """Raises `NetworkError` that says what to do where no switch answers."""
        reader, writer = await self.connection()
        del reader
        writer.close()

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the switch's control socket (ovs-vswitchd(8)), which ends with the switch and not before.

        Raises `NetworkError` where none runs. A socket that a dead switch left refuses.
        """
        if (self._directory / "db.sock").exists():
            for path in sorted(self._directory.glob("ovs-vswitchd.*.ctl")):
                with suppress(ConnectionRefusedError, FileNotFoundError):
                    return await asyncio.open_unix_connection(str(path))
        raise NetworkError("Open vSwitch does not run: install the package openvswitch-switch and start its service")

    async def made(self, bridge: str) -> None:
        """Wait until the switch, which may have just started, has a bridge of its database."""
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    with suppress(ConnectionRefusedError, FileNotFoundError):
                        _, writer = await asyncio.open_unix_connection(str(self._directory / f"{bridge}.mgmt"))
                        writer.close()
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise NetworkError(f"Open vSwitch does not make the bridge {bridge}") from None

    async def transaction(self, commands: Sequence[Sequence[str]]) -> None:
        """All of the commands, or none; returns when the switch has carried them out."""
        if commands:
            # Without a switch the database would take them all the same.
            await self.check()
            words = [word for command in commands for word in ("--", *command)]
            await self._run(["ovs-vsctl", self._database, "--timeout=15", *words])

    async def tables(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[Row]]:
        """The rows of tables, seen at one moment: the columns named, sets as lists, maps as dicts."""
        await self.check()
        argv = ["ovs-vsctl", self._database, "--timeout=10", "--format=json"]
        for table, columns in wanted.items():
            argv += ["--", f"--columns={','.join(columns)}", "list", table]
        said = [json.loads(line) for line in (await self._run(argv)).splitlines() if line]
        return {
            table: [dict(zip(rows["headings"], map(plain, row), strict=True)) for row in rows["data"]]
            for table, rows in zip(wanted, said, strict=True)
        }

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
        try:
            # Not removed first: the flows that lead through a meter would go with it.
            await self._ofctl("mod-meter", self._bridge(bridge), bands)
        except NetworkError:
            await self._ofctl("add-meter", self._bridge(bridge), bands)

    async def remove_meter(self, bridge: str, meter: int) -> None:
        """No error when there is none."""
        await self._ofctl("del-meters", self._bridge(bridge), f"meter={meter}")

    async def set_forwarding(self, bridge: str, port: int, *, forward: bool) -> None:
        """Whether anything reaches a port."""
        await self._ofctl("mod-port", self._bridge(bridge), str(port), "forward" if forward else "no-forward")

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
