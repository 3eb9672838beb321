"""One domain: the owner of its process and its QMP connection, through whom every event passes, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from domzero.host.hypervisor.protocol import (
    DomainEvent,
    DomainNotFoundError,
    DomainStateChanged,
    DomainStatus,
    DomainStopped,
    GuestPortClosed,
    HypervisorError,
    RunState,
    StopReason,
)
from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.qemu.complaints import explained
from domzero.host.hypervisor.qemu.files import DomainFiles, Handle, tail
from domzero.host.hypervisor.qemu.monitor import Monitor
from domzero.host.hypervisor.qemu.process import WatchedProcess

QUIT_SECONDS = 3.0
"""How long QEMU may take to flush and leave before it is killed."""
DRAIN_SECONDS = 2.0
"""How long to wait for what a dead process had sent; its end closed the socket, so this is a safety net."""

SHUTDOWN_REASONS = {
    "guest-shutdown": StopReason.SHUTDOWN,
    "guest-reset": StopReason.REBOOT,
    "host-qmp-system-reset": StopReason.REBOOT,
}
"""QEMU's ShutdownCause; every cause not named here is a crash."""
RUNNING_STATES = frozenset({"running"})
CRASHED_STATES = frozenset({"guest-panicked"})
LOST_STATES = frozenset({"shutdown", "internal-error"})
"""QEMU run states of a guest that will not go on. One that panicked is still there only where it is to be kept."""

EventTest = Callable[[str, Mapping[str, Any]], bool]


class Expectation:
    """A wait for one event, made before the command that causes it."""

    def __init__(self, test: EventTest) -> None:
        self.test = test
        self.event: asyncio.Future[tuple[str, Mapping[str, Any]]] = asyncio.get_running_loop().create_future()


class Domain:
    """A living domain. `lock` serialises what changes it; `destroy` waits for nobody.

    Until `announce` no event is delivered: a domain that fails to start never existed for the listener.
    """

    def __init__(
        self,
        handle: Handle,
        files: DomainFiles,
        listener: Callable[[DomainEvent], None],
        forget: Callable[[Domain], None],
    ) -> None:
        self.handle = handle
        self.files = files
        self.lock = asyncio.Lock()
        self.monitor = Monitor(f"domain-{handle.domid}", self._on_monitor_event)
        self.state = RunState.PAUSED
        self.next_number = 1
        """The next number of a layer or descriptor set never used in this domain."""
        self.has_unclosed = False
        """Whether QEMU was told to close descriptors while its guest was paused."""
        self._process: WatchedProcess | None = None
        self._listener = listener
        self._forget = forget
        self._announced = False
        self._destroying = False
        self._reason: StopReason | None = None
        self._cause = ""
        self._panicked = False
        self._expectations: list[Expectation] = []
        self._gone = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @property
    def domid(self) -> int:
        return self.handle.domid

    @property
    def pid(self) -> int:
        """The process's id. Raises `DomainNotFoundError` before it has one."""
        if self._process is None:
            raise DomainNotFoundError(f"domain {self.domid} has no process")
        return self._process.pid

    def watch(self, pid: int) -> None:
        """Take charge of a process. Raises `ProcessLookupError` where there is none."""
        self._process = WatchedProcess.watch(pid, self._on_exit)

    async def connect(self, timeout: float) -> None:
        """Connect to the process. Raises `HypervisorError` quoting QEMU when it ended or does not answer."""
        assert self._process is not None
        connecting = asyncio.ensure_future(self.monitor.connect(self.files.monitor_socket, timeout))
        ending = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((connecting, ending), return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and connecting.exception() is None:
                return
            said = tail(self.files.process_log)
            if ending.done() or said:
                raise HypervisorError(f"the domain cannot be built: {explained(said)}")
            await connecting
        finally:
            for task in (connecting, ending):
                task.cancel()
            await asyncio.gather(connecting, ending, return_exceptions=True)

    def mark_live(self) -> None:
        """Have a later daemon take the domain over, which until now it would end. Raises `OSError`."""
        if not self.handle.live:
            self.remember(replace(self.handle, live=True))

    def remember(self, handle: Handle) -> None:
        """Write down something new of the domain. Raises `OSError`."""
        self.files.write_handle(handle)
        self.handle = handle

    def announce(self) -> None:
        """From now on events are delivered. Raises `HypervisorError` when the domain ended meanwhile."""
        if self._ending is not None or self._process is None or self._process.ended:
            raise HypervisorError(f"the domain ended while it was built: {tail(self.files.process_log)}")
        self._announced = True

    def status(self) -> DomainStatus:
        return DomainStatus(
            domid=self.domid,
            uuid=self.handle.uuid,
            state=self.state,
            vnc_socket=self.files.vnc_socket,
            serial_socket=self.files.serial_socket,
            serial_log=self.files.serial_log,
            guest_sockets=(self.files.guest_socket, self.files.tools_socket),
        )

    async def destroy(self) -> None:
        """End the process: politely, so that it flushes its images, then by force. Its event has been delivered."""
        self._destroying = True
        try:
            async with asyncio.timeout(QUIT_SECONDS):
                await self.monitor.execute("quit")
                await self._gone.wait()
        except (HypervisorError, TimeoutError):
            if self._process is not None:
                self._process.kill()
                await self._gone.wait()

    async def discard(self) -> None:
        """End a process that nobody was told of, at once and without an event, and remove its files."""
        if self._process is not None:
            self._process.kill()
            await self._gone.wait()
        self.files.remove()

    async def release(self) -> None:
        """Let go of the process, which runs on."""
        if self._ending is not None:
            await self._ending
            return
        if self._process is not None:
            self._process.release()
        await self.monitor.disconnect()

    @asynccontextmanager
    async def expect(self, test: EventTest) -> AsyncIterator[asyncio.Future[tuple[str, Mapping[str, Any]]]]:
        """A future of the first event from now on that passes the test.

        It raises `DomainNotFoundError` when the domain ends first. The caller sets the time limit.
        """
        expectation = Expectation(test)
        if self._gone.is_set():
            raise self._not_found()
        self._expectations.append(expectation)
        try:
            yield expectation.event
        finally:
            self._expectations.remove(expectation)
            if expectation.event.done() and not expectation.event.cancelled():
                expectation.event.exception()  # a failure nobody waited for is no news
            else:
                expectation.event.cancel()

    async def set_running(self, run: bool) -> None:
        """Let the virtual processors run or stop them; nothing happens where they do as asked already."""
        await self.monitor.execute("cont" if run else "stop")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The guest stands still meanwhile, and nobody is told. A daemon that adopts the domain lets it go on."""
        if self.state is not RunState.RUNNING:
            yield
            return
        self.remember(replace(self.handle, held=True))
        try:
            await self.set_running(False)
            yield
        finally:
            await asyncio.shield(self.release_hold())

    async def release_hold(self) -> None:
        """Let a guest go on that was held."""
        await self.set_running(True)
        self.remember(replace(self.handle, held=False))

    def _not_found(self) -> DomainNotFoundError:
        return DomainNotFoundError(f"domain {self.domid} is gone")

    def _on_monitor_event(self, name: str, data: Mapping[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._cause = self._cause or str(data.get("reason", ""))
            self._reason = self._reason or SHUTDOWN_REASONS.get(str(data.get("reason")), StopReason.CRASH)
        elif name == "GUEST_PANICKED" and data.get("action") != "pause":
            self._cause, self._reason = "the guest panicked", StopReason.CRASH
        elif name == "GUEST_PANICKED":
            self._panicked = True  # QEMU stops the processors next
        elif name == "STOP":
            self._change_state(RunState.CRASHED if self._panicked else RunState.PAUSED)
        elif name == "RESUME":
            self._panicked = False
            self._change_state(RunState.RUNNING)
        elif name == "VSERPORT_CHANGE" and not data.get("open"):
            self._tell_port_closed(str(data.get("id")))
        for expectation in self._expectations:
            if not expectation.event.done() and expectation.test(name, data):
                expectation.event.set_result((name, data))

    async def port_in_use(self, socket: Path) -> bool:
        """See `Hypervisor.guest_port_in_use`."""
        label = "guest" if socket == self.files.guest_socket else "tools"
        channels = await self.monitor.execute("query-chardev")
        return any(channel["label"] == label and channel["frontend-open"] for channel in channels)

    def _tell_port_closed(self, port: str) -> None:
        # QEMU holds this event back for up to a second and tells only the latest state: it is closed now.
        sockets = {names.GUEST_PORT: self.files.guest_socket, names.TOOLS_PORT: self.files.tools_socket}
        if self._announced and not self._destroying and port in sockets:
            self._listener(GuestPortClosed(self.domid, sockets[port]))

    def _change_state(self, state: RunState) -> None:
        if state is self.state or self._reason is not None or self.handle.held:
            return
        self.state = state
        if self._announced and not self._destroying:
            self._listener(DomainStateChanged(self.domid, state))

    def _on_exit(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.monitor.closed()
        except TimeoutError:
            self._cause = self._cause or "its QMP connection outlived it"
        await self.monitor.disconnect()
        stopped = self._stopped()
        self.files.remove()
        self._gone.set()
        for expectation in self._expectations:
            if not expectation.event.done():
                expectation.event.set_exception(self._not_found())
        self._forget(self)
        if self._announced:
            self._listener(stopped)

    def _stopped(self) -> DomainStopped:
        if self._destroying:
            return DomainStopped(self.domid, StopReason.DESTROYED)
        if self._reason is not None:
            return DomainStopped(self.domid, self._reason, self._cause)
        code = self._process.exit_code if self._process is not None else None
        ended = "the process ended" if code is None else f"the process ended with code {code}"
        return DomainStopped(self.domid, StopReason.CRASH, f"{ended} {tail(self.files.process_log)}".strip())
