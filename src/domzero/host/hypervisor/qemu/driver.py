"""The hypervisor driver: the domains of this machine, and the verbs of the contract."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import platform
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from domzero.host.hypervisor.protocol import (
    Capabilities,
    DomainEvent,
    DomainListener,
    DomainNotFoundError,
    DomainStatistics,
    DomainStatus,
    GuestProcessor,
    HypervisorError,
    RunState,
)
from domzero.host.hypervisor.qemu import adoption, dumping, hotplug, pulling, resizing, saving, signals, sizes, slots
from domzero.host.hypervisor.qemu import limits as disk_limits
from domzero.host.hypervisor.qemu.accelerator import Choice, decide
from domzero.host.hypervisor.qemu.arguments import panic_action
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.files import SOCKET_PATH_LIMIT, DomainFiles, Handle, bound
from domzero.host.hypervisor.qemu.launch import UEFI_CODE, UEFI_VARIABLES, Host, SavedMachine, launch
from domzero.host.hypervisor.qemu.process import boot_id, cpuinfo
from domzero.host.hypervisor.qemu.processors import describe_processor
from domzero.host.hypervisor.qemu.scheduling import schedule
from domzero.host.hypervisor.spec import DiskLimits, DiskSource, DiskSpec, LayerPull, MachineSpec, NicSpec, Scheduling
from domzero.host.process import ProcessError, run

log = logging.getLogger(__name__)

LOG_LIMIT = 1 << 20
LOG_CHECK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class UserRange:
    """Numbers of unprivileged users (and groups) that belong to nobody else, one for each living domain."""

    first: int
    count: int = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited, in seconds, and how much is kept, in bytes."""

    answer: float = 30.0
    """For a new or adopted process to answer."""
    guest: float = 10.0
    """For a guest to agree to an unplug."""
    plug: float = 30.0
    """For a guest's driver to take what was plugged; one that is still starting needs a while."""
    log: int = LOG_LIMIT
    """Of the serial log and of QEMU's own messages, each. Checked every two seconds while a daemon runs, so a talkative
    guest can exceed it for a moment; a log over the limit is cut to its latest half."""


class QemuHypervisor:
    """Implements `Hypervisor` with one QEMU process per domain.

    `runtime_dir` holds what lives as long as the domains (a short path: sockets), `state_dir` what was found out about
    this machine. With `users` (which needs root) each domain runs as a user of its own in an empty root; without, as
    the daemon's user. One driver at a time per `runtime_dir`.
    """

    def __init__(
        self,
        runtime_dir: Path,
        state_dir: Path,
        *,
        accelerator: Choice = "auto",
        users: UserRange | None = None,
        binary: str = "qemu-system-x86_64",
        image_tool: str = "qemu-img",
        limits: Limits | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._runtime = runtime_dir
        self._state = state_dir
        self._choice: Choice = accelerator
        self._users = users
        self._binary = binary
        self._image_tool = image_tool
        self._limits = limits or Limits()
        self._clock = clock
        self._host: Host | None = None
        self._listener: DomainListener = lambda _: None
        self._domains: dict[int, Domain] = {}
        self._reserved: set[int] = set()
        self._lock_file = -1
        self._log_timer: asyncio.TimerHandle | None = None

    async def open(self, listener: DomainListener) -> list[DomainStatus]:
        if self._users is not None and os.geteuid() != 0:
            raise HypervisorError("only root can give each domain a user of its own")
        self._prepare_directories()
        self._listener = listener
        try:
            self._host = await self._look_around()
            # Others keep things beside the domains' directories: what is no domain's is never touched.
            domains = [path for path in self._runtime.iterdir() if path.name.isdecimal() and path.is_dir()]
            found = await asyncio.gather(*map(self._adopt, domains))
        except BaseException:
            self._unlock()
            raise
        self._bound_logs()
        return [domain.status() for domain in found if domain is not None]

    async def close(self) -> None:
        if self._log_timer is not None:
            self._log_timer.cancel()
            self._log_timer = None
        domains = list(self._domains.values())
        self._domains.clear()
        try:
            await asyncio.gather(*(domain.release() for domain in domains))
        finally:
            self._unlock()

    def capabilities(self) -> Capabilities:
        host = self._opened()
        return Capabilities(
            name="qemu",
            version=host.version_text,
            accelerator=host.accelerator,
            accelerator_reason=host.accelerator_reason,
            architectures=(platform.machine(),),
            has_uefi=UEFI_CODE.is_file() and UEFI_VARIABLES.is_file(),
        )

    async def start(self, spec: MachineSpec, *, paused: bool = False) -> DomainStatus:
        processor: GuestProcessor | None = None

        async def run_guest(domain: Domain) -> None:
            nonlocal processor
            processor = await describe_processor(domain.monitor)
            if spec.memory_target < spec.memory:
                await sizes.set_memory_target(domain, spec.memory_target)
            if not paused:
                await domain.set_running(True)

        return replace(await self._build(spec, None, run_guest), processor=processor)

    async def restore(self, spec: MachineSpec, image: Path, *, paused: bool = False) -> DomainStatus:
        with saving.open_saved(image) as saved:

            async def run_guest(domain: Domain) -> None:
                await saving.load(domain, saved.fd)
                # Before the guest changes its disks: from then on its memory must not be loaded from the image again.
                domain.mark_live()
                if not paused:
                    await domain.set_running(True)

            return await self._build(spec, saved.machine, run_guest)

    async def save(self, domid: int, image: Path) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await pulling.end_pulls(domain, None)
            await saving.save(domain, image)

    async def dump_core(self, domid: int, core: Path, limit: int, progress: Callable[[float], None]) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await dumping.dump_core(domain, core, limit, progress)

    async def keep_crashed(self, domid: int, keep: bool) -> None:
        await self._find(domid).monitor.execute("set-action", panic=panic_action(keep))

    async def pause(self, domid: int) -> None:
        domain = self._find(domid)
        async with domain.lock:
            if domain.state is RunState.RUNNING:
                await domain.set_running(False)

    async def unpause(self, domid: int) -> None:
        domain = self._find(domid)
        async with domain.lock:
            if domain.state is not RunState.RUNNING:
                await domain.set_running(True)
                await slots.close_unclosed(domain)

    async def request_shutdown(self, domid: int) -> None:
        await signals.power_button(self._find(domid))

    async def destroy(self, domid: int) -> None:
        await self._find(domid).destroy()

    async def status(self, domid: int) -> DomainStatus:
        return self._find(domid).status()

    async def consoles(self, domid: int) -> DomainStatus:
        return self._find(domid).status()

    async def guest_port_in_use(self, domid: int, socket: Path) -> bool:
        return await self._find(domid).port_in_use(socket)

    async def statistics(self, domid: int) -> DomainStatistics:
        return await sizes.statistics(self._find(domid))

    async def plug_disk(self, domid: int, disk: DiskSpec) -> None:
        domain = self._find(domid)
        chain = await hotplug.prepare(domain, disk.source, self._image_tool)
        async with domain.lock:
            await hotplug.plug_disk(domain, disk, chain, self._limits.plug)

    async def unplug_disk(self, domid: int, slot: int, *, force: bool = False) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await hotplug.unplug_disk(domain, slot, self._limits.guest, force=force)

    async def change_medium(self, domid: int, slot: int, source: DiskSource | None) -> None:
        domain = self._find(domid)
        chain = await hotplug.prepare(domain, source, self._image_tool)
        async with domain.lock:
            await hotplug.change_medium(domain, slot, chain)

    async def switch_disk(self, domid: int, slot: int, source: DiskSource) -> None:
        domain = self._find(domid)
        chain = await hotplug.prepare(domain, replace(source, backing=()), self._image_tool)
        async with domain.lock:
            await hotplug.switch_disk(domain, slot, chain)

    async def resize_disk(self, domid: int, slot: int, size: int) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await pulling.end_pulls(domain, slot)
            await resizing.resize_disk(domain, slot, size)

    async def limit_disk(self, domid: int, slot: int, limits: DiskLimits | None) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await disk_limits.limit_disk(domain, slot, limits)

    async def pull_layer(self, domid: int, slot: int, pull: LayerPull, progress: Callable[[float], None]) -> None:
        await pulling.pull_layer(self._find(domid), slot, pull, progress)

    async def plug_nic(self, domid: int, nic: NicSpec) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await hotplug.plug_nic(domain, nic, self._limits.plug)

    async def unplug_nic(self, domid: int, slot: int, *, force: bool = False) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await hotplug.unplug_nic(domain, slot, self._limits.guest, force=force)

    async def set_memory_target(self, domid: int, target: int) -> None:
        await sizes.set_memory_target(self._find(domid), target)

    async def set_vcpus(self, domid: int, count: int) -> None:
        domain = self._find(domid)
        async with domain.lock:
            await sizes.set_vcpus(domain, count, self._limits.guest)

    async def schedule(self, domid: int, scheduling: Scheduling) -> None:
        await schedule(self._find(domid), scheduling)

    async def send_sysrq(self, domid: int, key: str) -> None:
        await signals.sysrq(self._find(domid), key)

    async def send_trigger(self, domid: int, trigger: str) -> None:
        await signals.trigger(self._find(domid), trigger)

    async def _build(
        self, spec: MachineSpec, saved: SavedMachine | None, run_guest: Callable[[Domain], Awaitable[None]]
    ) -> DomainStatus:
        host = self._opened()
        if spec.domid in self._domains or spec.domid in self._reserved:
            raise HypervisorError(f"domain {spec.domid} exists")
        handle = Handle(spec.domid, spec.uuid, host.boot_id, uid=self._free_user(spec.domid))
        domain = self._domain(handle)
        _create(domain)
        self._domains[spec.domid] = domain
        self._reserved.add(spec.domid)
        try:
            domain.files.write_handle(handle)
            await launch(spec, domain, host, now=self._clock(), timeout=self._limits.answer, saved=saved)
            await run_guest(domain)
            domain.mark_live()
            domain.announce()
        except BaseException as error:
            await asyncio.shield(domain.discard())
            self._domains.pop(spec.domid, None)
            if isinstance(error, OSError):
                raise HypervisorError(f"domain {spec.domid}: {error}") from error
            raise
        finally:
            self._reserved.discard(spec.domid)
        return domain.status()

    def _free_user(self, domid: int) -> int | None:
        if self._users is None:
            return None
        taken = {domain.handle.uid for domain in self._domains.values()}
        for step in range(self._users.count):
            uid = self._users.first + (domid + step) % self._users.count
            if uid not in taken:
                return uid
        raise HypervisorError(f"all {self._users.count} users for domains are taken")

    def _domain(self, handle: Handle) -> Domain:
        return Domain(handle, DomainFiles(self._runtime / str(handle.domid)), self._deliver, self._forget)

    def _deliver(self, event: DomainEvent) -> None:
        self._listener(event)

    def _forget(self, domain: Domain) -> None:
        if self._domains.get(domain.domid) is domain:
            del self._domains[domain.domid]

    async def _adopt(self, directory: Path) -> Domain | None:
        files = DomainFiles(directory)
        handle = files.read_handle()
        domain = None if handle is None or str(handle.domid) != directory.name else self._domain(handle)
        if domain is None or not await adoption.adopt(domain, self._opened().boot_id, self._limits.answer):
            await adoption.clear(files)
            return None
        try:
            domain.announce()
        except HypervisorError:  # it ended a moment ago and has removed its files
            return None
        self._domains[domain.domid] = domain
        return domain

    def _find(self, domid: int) -> Domain:
        domain = self._domains.get(domid)
        if domain is None or domid in self._reserved:
            raise DomainNotFoundError(f"there is no domain {domid}")
        return domain

    def _opened(self) -> Host:
        if self._host is None:
            raise HypervisorError("the hypervisor is not open")
        return self._host

    async def _look_around(self) -> Host:
        try:
            said = (await run([self._binary, "--version"], timeout=20)).stdout.decode(errors="replace")
        except ProcessError as error:
            raise HypervisorError(str(error)) from error
        version = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
        if version is None:
            raise HypervisorError(f"{self._binary} does not say its version")
        boot = boot_id()
        decision = await decide(self._choice, self._binary, cpuinfo(), boot, self._state / "accelerator.json")
        log.info("QEMU %s with %s: %s", version[0], decision.accelerator, decision.reason)
        return Host(
            binary=self._binary,
            image_tool=self._image_tool,
            version=tuple(int(part) for part in version.groups()),
            version_text=".".join(version.groups()),
            accelerator=decision.accelerator,
            accelerator_reason=decision.reason,
            boot_id=boot,
        )

    def _prepare_directories(self) -> None:
        longest = self._runtime / str(2**31) / "serial.sock"
        if len(os.fsencode(longest)) > SOCKET_PATH_LIMIT:
            raise HypervisorError(f"{self._runtime} is too long a path for sockets")
        try:
            for directory in (self._runtime, self._state):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = os.open(self._runtime / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._unlock()
            raise HypervisorError(f"{self._runtime} cannot be used: {error.strerror}") from error

    def _unlock(self) -> None:
        if self._lock_file >= 0:
            # Closing alone would not do while a child that is being started still has the descriptor.
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)
            os.close(self._lock_file)
            self._lock_file = -1

    def _bound_logs(self) -> None:
        for domain in self._domains.values():
            bound(domain.files.serial_log, self._limits.log)
            bound(domain.files.process_log, self._limits.log)
        self._log_timer = asyncio.get_running_loop().call_later(LOG_CHECK_SECONDS, self._bound_logs)


def _create(domain: Domain) -> None:
    try:
        domain.files.create()
    except OSError as error:
        raise HypervisorError(f"domain {domain.domid}: {error}") from error
