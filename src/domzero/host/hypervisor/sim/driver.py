"""The simulated hypervisor; the package's docstring says how it is steered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from domzero.host.clock import Clock
from domzero.host.hypervisor.protocol import (
    Capabilities,
    DomainListener,
    DomainNotFoundError,
    DomainStateChanged,
    DomainStatistics,
    DomainStatus,
    DomainStopped,
    GuestNotRespondingError,
    HypervisorError,
    RunState,
    StopReason,
)
from domzero.host.hypervisor.sim import domain as domains
from domzero.host.hypervisor.sim.alarm import Alarm
from domzero.host.hypervisor.sim.consoles import SimConsoles
from domzero.host.hypervisor.sim.disk import PluggedDisk, check_limits, plugged, writable
from domzero.host.hypervisor.sim.domain import SimDomain
from domzero.host.hypervisor.sim.gate import Gate, WaitingVerb
from domzero.host.hypervisor.sim.image import check_image, write_core, write_image
from domzero.host.hypervisor.sim.store import DomainStore
from domzero.host.hypervisor.spec import (
    DiskKind,
    DiskLimits,
    DiskSource,
    DiskSpec,
    LayerPull,
    MachineSpec,
    NicSpec,
    Scheduling,
)

SYSRQ_KEYS = {"c": StopReason.CRASH, "b": StopReason.REBOOT, "o": StopReason.SHUTDOWN}
"""The Alt-SysRq keys that end a Linux guest (kernel documentation, admin-guide/sysrq)."""


class SimHypervisor:
    """Implements `Hypervisor`.

    `state` is a directory in which domains survive the object (made when missing); without it they live as long as the
    object. `settings` are faults (see the package) for every domain; a domain's own come on top. `version` is shown in
    the host's record.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        state: Path | None = None,
        settings: Mapping[str, str] | None = None,
        version: str = "1.0",
    ) -> None:
        self._clock = clock
        self._store = DomainStore(state) if state else None
        self._settings = dict(settings or {})
        self._version = version
        self._domains: dict[int, SimDomain] = {}
        self._starting: set[int] = set()
        self._gate = Gate(clock)
        self._alarm = Alarm(clock, self._guest_ends)
        self._consoles = SimConsoles()
        self._listener: DomainListener | None = None

    # The life of the driver

    async def open(self, listener: DomainListener) -> list[DomainStatus]:
        self._listener = listener
        if self._store:
            for record in self._store.load():
                self._adopt(record, self._store)
        self._alarm.start()
        for domain in self._domains.values():
            self._look_ahead(domain)
        return [_status(domain) for domain in self._domains.values()]

    async def close(self) -> None:
        self._listener = None
        self._consoles.close()
        await self._alarm.stop()

    def capabilities(self) -> Capabilities:
        return Capabilities("sim", self._version, "sim", "Simulated on request: nothing runs.", has_uefi=True)

    def waiting(self) -> list[WaitingVerb]:
        """The verbs held back by the fault `step`, longest first."""
        return self._gate.waiting()

    def step(self) -> WaitingVerb | None:
        """Let one verb go on, the one that has waited longest; None when none waits."""
        return self._gate.step()

    # The life of a domain

    async def start(self, spec: MachineSpec, *, paused: bool = False) -> DomainStatus:
        return replace(await self._build("start", spec, paused, lambda: None), processor=domains.PROCESSOR)

    async def restore(self, spec: MachineSpec, image: Path, *, paused: bool = False) -> DomainStatus:
        return await self._build("restore", spec, paused, lambda: check_image(spec, image))

    async def save(self, domid: int, image: Path) -> None:
        domain = await self._enter("save", domid)
        domain.settle(self._clock.monotonic())
        write_image(domain, image)
        self._set_state(domain, RunState.PAUSED)

    async def dump_core(self, domid: int, core: Path, limit: int, progress: Callable[[float], None]) -> None:
        write_core(await self._enter("dump-core", domid, progress), core, limit)
        progress(1.0)

    async def keep_crashed(self, domid: int, keep: bool) -> None:
        domain = await self._enter("keep-crashed", domid)
        domain.keep_crashed = keep
        self._keep(domain)

    async def pause(self, domid: int) -> None:
        domain = await self._enter("pause", domid)
        if domain.state is RunState.RUNNING:
            self._set_state(domain, RunState.PAUSED)

    async def unpause(self, domid: int) -> None:
        self._set_state(await self._enter("unpause", domid), RunState.RUNNING)

    async def request_shutdown(self, domid: int) -> None:
        self._press_power_button(await self._enter("shutdown", domid))

    async def destroy(self, domid: int) -> None:
        self._end(await self._enter("destroy", domid), StopReason.DESTROYED)

    async def status(self, domid: int) -> DomainStatus:
        return _status(self._living(domid))

    async def consoles(self, domid: int) -> DomainStatus:
        domain = self._living(domid)
        screen, serial = await self._consoles.of(domid, domain.uuid)
        if self._domains.get(domid) is not domain:
            self._consoles.end(domid)
            raise DomainNotFoundError(f"domain {domid} has just ended")
        return replace(_status(domain), vnc_socket=screen, serial_socket=serial)

    async def guest_port_in_use(self, domid: int, socket: Path) -> bool:
        raise HypervisorError(f"domain {self._living(domid).domid} has no channel at {socket}")

    async def statistics(self, domid: int) -> DomainStatistics:
        domain = self._living(domid)
        domain.settle(self._clock.monotonic())
        return domains.statistics(domain)

    # Devices

    async def plug_disk(self, domid: int, disk: DiskSpec) -> None:
        domain = await self._enter("plug-disk", domid)
        if disk.slot in domain.disks:
            raise HypervisorError(f"slot {disk.slot} is taken")
        check_limits(disk.limits)
        domain.settle(self._clock.monotonic())
        domain.disks[disk.slot] = PluggedDisk(disk, domain.age)
        self._keep(domain)

    async def unplug_disk(self, domid: int, slot: int, *, force: bool = False) -> None:
        domain = await self._enter("unplug-disk", domid)
        plugged(domain, slot)
        _ask_guest(domain, force)
        del domain.disks[slot]
        self._keep(domain)

    async def change_medium(self, domid: int, slot: int, source: DiskSource | None) -> None:
        domain = await self._enter("change-medium", domid)
        disk = plugged(domain, slot)
        if disk.spec.kind is not DiskKind.CD:
            raise HypervisorError(f"slot {slot} holds no CD drive")
        self._set_source(domain, disk, source)

    async def switch_disk(self, domid: int, slot: int, source: DiskSource) -> None:
        domain = await self._enter("switch-disk", domid)
        self._set_source(domain, writable(domain, slot), source)

    async def resize_disk(self, domid: int, slot: int, size: int) -> None:
        domain = await self._enter("resize-disk", domid)
        disk = writable(domain, slot)
        if size < disk.size:
            raise HypervisorError(f"disk {slot} has {disk.size} bytes and cannot have {size}")
        disk.size = size
        self._keep(domain)

    async def limit_disk(self, domid: int, slot: int, limits: DiskLimits | None) -> None:
        domain = await self._enter("limit-disk", domid)
        disk = plugged(domain, slot)
        check_limits(limits)
        domain.settle(self._clock.monotonic())
        disk.count(domain)
        disk.spec = replace(disk.spec, limits=limits)
        self._keep(domain)

    async def pull_layer(self, domid: int, slot: int, pull: LayerPull, progress: Callable[[float], None]) -> None:
        disk = writable(self._living(domid), slot)
        domain = await self._enter("pull-layer", domid, progress)
        if domain.disks.get(slot) is not disk:
            raise HypervisorError(f"the disk in slot {slot} was taken out")
        disk.pull(pull)
        self._keep(domain)
        progress(1.0)

    async def plug_nic(self, domid: int, nic: NicSpec) -> None:
        domain = await self._enter("plug-nic", domid)
        if nic.slot in domain.nics:
            raise HypervisorError(f"card {nic.slot} is there already")
        domain.nics[nic.slot] = nic.mac
        self._keep(domain)

    async def unplug_nic(self, domid: int, slot: int, *, force: bool = False) -> None:
        domain = await self._enter("unplug-nic", domid)
        if slot not in domain.nics:
            raise HypervisorError(f"there is no card {slot}")
        _ask_guest(domain, force)
        del domain.nics[slot]
        self._keep(domain)

    # The rest

    async def set_memory_target(self, domid: int, target: int) -> None:
        domain = await self._enter("memory", domid)
        if not 0 < target <= domain.memory:
            raise HypervisorError(f"a target of {target} bytes does not fit into {domain.memory}")
        if "ignore-balloon" not in domain.faults.flags:
            domain.memory_actual = target
            self._keep(domain)

    async def set_vcpus(self, domid: int, count: int) -> None:
        domain = await self._enter("vcpus", domid)
        if not 1 <= count <= domain.vcpus_max:
            raise HypervisorError(f"{count} virtual processors of at most {domain.vcpus_max}")
        domain.settle(self._clock.monotonic())
        domain.vcpus = count
        self._keep(domain)

    async def schedule(self, domid: int, scheduling: Scheduling) -> None:  # noqa: ARG002 - nothing runs
        await self._enter("schedule", domid)

    async def send_sysrq(self, domid: int, key: str) -> None:
        domain = await self._enter("sysrq", domid)
        if len(key) != 1:
            raise HypervisorError(f"{key!r} is no key")
        reason = SYSRQ_KEYS.get(key.lower())
        if reason and domain.state is RunState.RUNNING:
            self._end(domain, reason, f"Alt-SysRq {key}")

    async def send_trigger(self, domid: int, trigger: str) -> None:
        domain = await self._enter("trigger", domid)
        if trigger == "power":
            self._press_power_button(domain)
        elif trigger == "reset":
            self._end(domain, StopReason.REBOOT, "reset button")
        elif trigger not in ("nmi", "sleep"):
            raise HypervisorError(f"there is no trigger {trigger!r}")

    # Inside

    async def _build(self, verb: str, spec: MachineSpec, paused: bool, ready: Callable[[], None]) -> DomainStatus:
        settings = {**self._settings, **spec.faults}
        state = RunState.PAUSED if paused else RunState.RUNNING
        domain = domains.build(spec, settings, state, self._clock.monotonic())
        if spec.domid in self._domains or spec.domid in self._starting:
            raise HypervisorError(f"there is a domain {spec.domid} already")
        self._starting.add(spec.domid)
        try:
            await self._gate.enter(verb, spec.domid, domain.faults)
            ready()
        finally:
            self._starting.discard(spec.domid)
        domain.measured = self._clock.monotonic()
        self._keep(domain)
        self._domains[spec.domid] = domain
        self._look_ahead(domain)
        return _status(domain)

    async def _enter(self, verb: str, domid: int, progress: Callable[[float], None] | None = None) -> SimDomain:
        """The domain, when the verb's turn has come; it may have ended while the verb was held back."""
        await self._gate.enter(verb, domid, self._living(domid).faults, progress)
        return self._living(domid)

    def _living(self, domid: int) -> SimDomain:
        domain = self._domains.get(domid)
        if domain is None:
            raise DomainNotFoundError(f"there is no domain {domid}")
        return domain

    def _set_state(self, domain: SimDomain, state: RunState) -> None:
        if domain.state is state:
            return
        domain.settle(self._clock.monotonic())
        domain.state = state
        self._keep(domain)
        self._look_ahead(domain)
        if self._listener:
            self._listener(DomainStateChanged(domain.domid, state))

    def _press_power_button(self, domain: SimDomain) -> None:
        if "ignore-shutdown" in domain.faults.flags or domain.powers_off_at is not None:
            return
        domain.settle(self._clock.monotonic())
        domain.powers_off_at = domain.age + domain.faults.number("shutdown-delay")
        self._keep(domain)
        self._look_ahead(domain)

    def _set_source(self, domain: SimDomain, disk: PluggedDisk, source: DiskSource | None) -> None:
        domain.settle(self._clock.monotonic())
        disk.count(domain)
        disk.spec = replace(disk.spec, source=source)
        self._keep(domain)

    def _look_ahead(self, domain: SimDomain) -> None:
        domain.generation += 1
        end = domains.next_end(domain)
        if end and domain.state is RunState.RUNNING:
            self._alarm.set(domain.measured + end[0] - domain.age, domain.domid, domain.generation)

    def _guest_ends(self, domid: int, generation: int) -> None:
        domain = self._domains.get(domid)
        if domain is None or domain.generation != generation:
            return
        end = domains.next_end(domain)
        if end:
            self._end(domain, end[1])

    def _end(self, domain: SimDomain, reason: StopReason, detail: str = "") -> None:
        if reason is StopReason.CRASH and domain.keep_crashed:
            domain.crashed = True
            self._set_state(domain, RunState.CRASHED)
            return
        del self._domains[domain.domid]
        self._consoles.end(domain.domid)
        if self._store:
            self._store.remove(domain.domid)
        if self._listener:
            self._listener(DomainStopped(domain.domid, reason, detail))

    def _keep(self, domain: SimDomain) -> None:
        if self._store:
            domain.settle(self._clock.monotonic())
            self._store.save(domain.domid, domains.to_record(domain, self._clock.now()))

    def _adopt(self, record: dict[str, object], store: DomainStore) -> None:
        try:
            domain = domains.from_record(record, self._clock.now(), self._clock.monotonic())
        except (KeyError, TypeError, ValueError) as error:
            raise HypervisorError(f"a record of a simulated domain cannot be read: {error!r}") from error
        end = domains.next_end(domain)
        if domain.state is RunState.RUNNING and end and end[0] <= domain.age:
            store.remove(domain.domid)
        elif domain.domid not in self._domains:
            self._domains[domain.domid] = domain


def _status(domain: SimDomain) -> DomainStatus:
    return DomainStatus(domain.domid, domain.uuid, domain.state, None, None, None)


def _ask_guest(domain: SimDomain, force: bool) -> None:
    if not force and "ignore-unplug" in domain.faults.flags:
        raise GuestNotRespondingError("the guest did not let go of the device")
