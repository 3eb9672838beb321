"""The QMP connection, with a peer that only shakes hands: what it says last is heard, whatever it is told meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domzero.host.hypervisor.protocol import DomainNotFoundError, HypervisorError
from domzero.host.hypervisor.qemu.monitor import Monitor

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}
TIME = {"seconds": 1, "microseconds": 0}
LAST = [{"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}, "timestamp": TIME}]


def said(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


@asynccontextmanager
async def connected(directory: Path, heard: list[str]) -> AsyncIterator[tuple[Monitor, socket.socket]]:
    """A monitor, and the other end of its connection."""
    loop = asyncio.get_running_loop()
    monitor = Monitor("test", lambda name, _: heard.append(name))
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(directory / "qmp"))
        door.listen()
        door.setblocking(False)
        connecting = asyncio.ensure_future(monitor.connect(directory / "qmp", 10))
        peer, _ = await loop.sock_accept(door)
    with peer:
        await loop.sock_sendall(peer, said(GREETING))
        asked = json.loads(await loop.sock_recv(peer, 4096))
        assert asked["execute"] == "qmp_capabilities"
        await loop.sock_sendall(peer, said({"return": {}}))
        await connecting
        yield monitor, peer
    await monitor.disconnect()


async def test_what_was_said_last_is_heard_by_one_who_speaks(tmp_path: Path) -> None:
    heard: list[str] = []
    async with connected(tmp_path, heard) as (monitor, peer):
        peer.sendall(b"".join(map(said, LAST)))
        peer.close()
        with pytest.raises(DomainNotFoundError):
            await monitor.execute("query-status")
        await monitor.closed()
        assert heard == ["SHUTDOWN"]


async def test_what_was_said_last_is_heard_where_a_command_was_not_read(tmp_path: Path) -> None:
    heard: list[str] = []
    async with connected(tmp_path, heard) as (monitor, peer):
        command = asyncio.ensure_future(monitor.execute("query-status"))
        await asyncio.get_running_loop().sock_recv(peer, 1)  # its first byte: the others stay unread
        peer.sendall(b"".join(map(said, LAST)))
        peer.close()
        with pytest.raises(DomainNotFoundError):
            await command
        await monitor.closed()
        assert heard == ["SHUTDOWN"]


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="no QMP connection"):
        await Monitor("test", lambda *_: None).connect(tmp_path / "qmp", 10)
