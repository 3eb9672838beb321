"""The QMP connection of one domain, on QEMU's own client library.

Command and event names are those of QEMU's QMP reference manual.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate
from qemu.qmp.error import ProtocolError
from qemu.qmp.protocol import ConnectError, StateError

from domzero.host.hypervisor.protocol import DomainNotFoundError, HypervisorError

COMMAND_SECONDS = 120.0
"""For how long QEMU may be busy with a command: with storage that does not answer that can be for ever."""

EventHandler = Callable[[str, Mapping[str, Any]], None]


class CommandRefusedError(HypervisorError):
    """QEMU answered a command with an error; the text is QEMU's.

    Those who give a command whose refusal is to be expected say what it means.
    """


class _Delivery(EventListener):
    """Hands each event on at once and keeps none: the library's listener would remember every event for ever."""

    def __init__(self, handler: EventHandler) -> None:
        super().__init__()
        self._handler = handler

    async def put(self, event: Message) -> None:
        data = event.get("data", {})
        self._handler(str(event["event"]), data if isinstance(data, dict) else {})


class _Line(socket.socket):
    """To a peer whose last words count: that it has gone is the end of what it said, whatever is sent to it meanwhile.

    asyncio would drop what has arrived and is not read yet: the event, say, that the guest was shut down.
    """

    def send(self, data: Any, flags: int = 0, /) -> int:
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            return memoryview(data).nbytes

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        try:
            return super().recv(size, flags)
        except ConnectionResetError:
            return b""


async def _connected(path: Path) -> _Line:
    line = _Line(socket.AF_UNIX)
    try:
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, str(path))
    except BaseException:
        line.close()
        raise
    return line


class Monitor:
    """One connection. Commands may be given concurrently; events arrive in order, before `closed` returns."""

    def __init__(self, name: str, on_event: EventHandler) -> None:
        self._client = QMPClient(name)
        # Below INFO the library logs every message, passwords included.
        self._client.logger.setLevel(max(logging.INFO, self._client.logger.getEffectiveLevel()))
        self._client.events.names.add("")  # no event has this name: the library's own listener stays empty
        self._client.register_listener(_Delivery(on_event))
        self._descriptors = asyncio.Lock()

    async def connect(self, path: Path, timeout: float) -> None:
        """Connect and negotiate. Raises `HypervisorError` when nothing answers in `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._client.connect(await _connected(path))
        except TimeoutError:
            raise HypervisorError(f"QEMU did not answer within {timeout} seconds") from None
        except (ConnectError, OSError) as error:
            raise HypervisorError(f"no QMP connection: {error}") from error

    async def execute(self, command: str, **arguments: object) -> Any:
        """Give a command (underscores in argument names stand for hyphens) and return QEMU's answer.

        Raises `CommandRefusedError`, or `DomainNotFoundError` when QEMU went away.
        """
        return await self.command(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    async def command(self, command: str, arguments: Mapping[str, object]) -> Any:
        """As `execute`, with the arguments' names as they are."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await self._client.execute(command, arguments)
        except TimeoutError:
            raise HypervisorError(
                f"QEMU did not answer within {COMMAND_SECONDS:g} seconds (asked for {command}); its storage may hang"
            ) from None
        except ExecuteError as error:
            raise CommandRefusedError(f"{error} (QEMU, asked for {command})") from error
        except (ExecInterruptedError, StateError) as error:
            raise DomainNotFoundError(f"{command}: the domain is gone") from error
        except (QMPError, ProtocolError) as error:
            raise HypervisorError(f"{command}: {error}") from error

    async def with_descriptor(self, fd: int, command: str, **arguments: object) -> Any:
        """Give a command that takes a descriptor (`getfd`, `add-fd`); QEMU gets a duplicate, `fd` stays the caller's.

        One at a time: QEMU gives a command the descriptor that arrived last.
        """
        async with self._descriptors:
            try:
                self._client.send_fd_scm(fd)
            except (StateError, OSError) as error:
                raise DomainNotFoundError(f"{command}: the domain is gone") from error
            return await self.execute(command, **arguments)

    async def closed(self) -> None:
        """Return when QEMU has hung up and every event it sent before has been handed on."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def disconnect(self) -> None:
        """Hang up; QEMU goes on and takes the next connection."""
        try:
            await self._client.disconnect()
        except (EOFError, OSError, QMPError):
            return  # the other side hung up first: the same result
