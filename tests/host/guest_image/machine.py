"""A bare QEMU for tests of the guest image: no driver of ours in between, so that a failure is the image's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient

from domzero.host import process
from domzero.host.guest_image import GuestImage, console

PATIENCE = 30.0
"""Seconds for whatever the guest is asked to do; emulation on a busy machine is slow."""


class BareMachine:
    """A running guest: its serial line and its monitor."""

    def __init__(self, qmp: QMPClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.qmp = qmp
        self.log = b""
        self._reader = reader
        self._writer = writer

    async def until(self, wanted: Callable[[bytes], object]) -> bytes:
        """Read the serial line until the log so far satisfies the condition, and return the log."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not wanted(self.log):
                    chunk = await self._reader.read(4096)
                    assert chunk, f"the machine ended first; it had said: {self.log!r}"
                    self.log += chunk
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE} seconds; the machine had said: {self.log!r}") from None
        return self.log

    async def until_ready(self) -> bytes:
        """Wait for the end of start-up and return what was said."""
        return await self.until(console.is_ready)

    async def until_text(self, text: str) -> bytes:
        """Wait until a text appears and return what was said up to its end, forgetting it."""
        log = await self.until(lambda log: text.encode() in log)
        end = log.index(text.encode()) + len(text)
        self.log = log[end:]
        return log[:end]

    async def type(self, line: str) -> None:
        """Enter a line."""
        self._writer.write(line.encode() + b"\n")
        await self._writer.drain()

    async def press(self, *keys: str) -> None:
        """Press keys together, by their QEMU names."""
        await self.qmp.execute("send-key", {"keys": [{"type": "qcode", "data": key} for key in keys]})

    async def event_after(self, name: str, act: Callable[[], Any]) -> dict[str, Any]:
        """Do something and return the data of the first monitor event of that name that follows."""
        listener = EventListener(name)
        with self.qmp.listen(listener):
            await act()
            async with asyncio.timeout(PATIENCE):
                event = await listener.get()
        data = event.get("data", {})
        assert isinstance(data, dict)
        return data


@asynccontextmanager
async def bare_machine(
    directory: Path, image: GuestImage, disk: Path, *, arguments: str = "", extra: Sequence[str] = ()
) -> AsyncIterator[BareMachine]:
    """A QEMU with 128 MiB, one virtio disk and one network card, ended with the block."""
    serial, monitor = directory / "serial", directory / "monitor"
    connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
    server = await asyncio.start_unix_server(lambda *streams: connected.set_result(streams), serial)
    qmp = QMPClient("guest image")
    await qmp.start_server(str(monitor))
    child = await process.spawn(argv(image, disk, serial, monitor, arguments, extra))
    watched = asyncio.create_task(child.communicate())
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([watched, accepting := asyncio.create_task(qmp.accept())], return_when="FIRST_COMPLETED")
            assert not watched.done(), f"QEMU did not start: {watched.result()[1].decode()}"
            await accepting
            reader, writer = await connected
        yield BareMachine(qmp, reader, writer)
    finally:
        if child.returncode is None:
            child.kill()
        await watched
        with suppress(EOFError):  # how a monitor says that its machine has ended, which is what was wanted
            await qmp.disconnect()
        if connected.done():
            connected.result()[1].close()
        server.close()
        await server.wait_closed()


def argv(image: GuestImage, disk: Path, serial: Path, monitor: Path, arguments: str, extra: Sequence[str]) -> list[str]:
    """QEMU's command line."""
    return [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "128", "-nodefaults"),
        *("-display", "none", "-no-reboot"),
        *("-kernel", str(image.kernel), "-initrd", str(image.ramdisk)),
        *("-append", f"{image.arguments} {arguments}", "-qmp", f"unix:{monitor}"),
        *("-chardev", f"socket,id=serial,path={serial}", "-serial", "chardev:serial"),
        *("-drive", f"file={disk},if=none,id=disk,format=qcow2", "-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "pvpanic-pci", "-device", "virtio-balloon-pci"),
        *("-device", "pcie-root-port,id=spare,chassis=1", *extra),
    ]
