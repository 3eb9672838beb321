"""One simulated domain: its state, what its guest will do next, its figures, and its form in a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from domzero.host.hypervisor.protocol import DomainStatistics, GuestProcessor, HypervisorError, RunState, StopReason
from domzero.host.hypervisor.sim.disk import PluggedDisk, check_limits
from domzero.host.hypervisor.sim.faults import Faults, parse_faults
from domzero.host.hypervisor.spec import MachineSpec

DEFAULT_CPU_LOAD = 0.02

PROCESSOR = GuestProcessor("GenuineIntel", (0x178B_FBFF, 0x8098_2203, 0x2010_0800, 0x0000_0001, 0, 0, 0, 0, 0, 0, 0))
"""What every guest has: the level x86-64-v2 of the System V ABI, and the sign of a hypervisor."""


@dataclass(slots=True)
class SimDomain:
    """`age` is how long the guest has run, as of `measured` on the monotonic clock; a paused guest does not age."""

    domid: int
    uuid: str
    memory: int
    memory_actual: int
    vcpus_max: int
    vcpus: int
    state: RunState
    settings: dict[str, str]
    faults: Faults
    measured: float
    age: float = 0.0
    processor_time: list[float] = field(default_factory=list)
    disks: dict[int, PluggedDisk] = field(default_factory=dict)
    nics: dict[int, str] = field(default_factory=dict)
    keep_crashed: bool = False
    crashed: bool = False
    """It crashed and was kept: it will not end by itself any more."""
    powers_off_at: float | None = None
    """The age at which the guest obeys the power button."""
    generation: int = 0
    """Moves whenever the guest's next deed has to be looked up again."""

    def settle(self, now: float) -> None:
        """Let the guest age until `now`."""
        if self.state is RunState.RUNNING:
            passed = max(0.0, now - self.measured)
            self.age += passed
            load = self.faults.number("cpu-load", DEFAULT_CPU_LOAD)
            for online in range(self.vcpus):
                self.processor_time[online] += passed * load
        self.measured = now


def build(spec: MachineSpec, settings: dict[str, str], state: RunState, now: float) -> SimDomain:
    """A new domain. Raises `HypervisorError` for a specification that no machine could have."""
    check(spec)
    return SimDomain(
        domid=spec.domid,
        uuid=spec.uuid,
        memory=spec.memory,
        memory_actual=spec.memory_target,
        vcpus_max=spec.vcpus_max,
        vcpus=spec.vcpus,
        state=state,
        settings=settings,
        faults=parse_faults(settings),
        measured=now,
        processor_time=[0.0] * spec.vcpus_max,
        keep_crashed=spec.keep_crashed,
        disks={disk.slot: PluggedDisk(disk) for disk in spec.disks},
        nics={nic.slot: nic.mac for nic in spec.nics},
    )


def check(spec: MachineSpec) -> None:
    """Refuse what every hypervisor refuses."""
    if spec.domid <= 0:
        raise HypervisorError(f"{spec.domid} is no domain number")
    if not 0 < spec.memory_target <= spec.memory:
        raise HypervisorError(f"a target of {spec.memory_target} bytes does not fit into {spec.memory}")
    if not 1 <= spec.vcpus <= spec.vcpus_max:
        raise HypervisorError(f"{spec.vcpus} virtual processors of at most {spec.vcpus_max}")
    for devices in ([disk.slot for disk in spec.disks], [nic.slot for nic in spec.nics]):
        if len(set(devices)) != len(devices):
            raise HypervisorError(f"slots are used twice: {sorted(devices)}")
    for disk in spec.disks:
        check_limits(disk.limits)


def next_end(domain: SimDomain) -> tuple[float, StopReason] | None:
    """The age at which the guest will end by itself, and how. At equal ages a crash comes first."""
    ends = [
        (age, order, reason)
        for order, (age, reason) in enumerate(
            (
                (domain.faults.after("crash-after"), StopReason.CRASH),
                (domain.faults.after("reboot-after"), StopReason.REBOOT),
                (domain.faults.after("shutdown-after"), StopReason.SHUTDOWN),
                (domain.powers_off_at, StopReason.SHUTDOWN),
            )
        )
        if age is not None
    ]
    if not ends or domain.crashed:
        return None
    age, _, reason = min(ends)
    return age, reason


def statistics(domain: SimDomain) -> DomainStatistics:
    """The figures as of `domain.measured`."""
    return DomainStatistics(
        cpu_seconds=tuple(domain.processor_time),
        memory_actual=domain.memory_actual,
        disks={slot: disk.counters(domain.age, domain.faults) for slot, disk in domain.disks.items()},
    )


def to_record(domain: SimDomain, wall: datetime) -> dict[str, Any]:
    """The domain as JSON; `settle` it first. `wall` says as of when."""
    return {
        "domid": domain.domid,
        "uuid": domain.uuid,
        "memory": domain.memory,
        "memory_actual": domain.memory_actual,
        "vcpus_max": domain.vcpus_max,
        "vcpus": domain.vcpus,
        "state": domain.state.value,
        "settings": domain.settings,
        "as_of": wall.isoformat(),
        "age": domain.age,
        "processor_time": domain.processor_time,
        "powers_off_at": domain.powers_off_at,
        "keep_crashed": domain.keep_crashed,
        "crashed": domain.crashed,
        "disks": [disk.to_record() for disk in domain.disks.values()],
        "nics": [[slot, mac] for slot, mac in domain.nics.items()],
    }


def from_record(record: dict[str, Any], wall: datetime, now: float) -> SimDomain:
    """The domain of `to_record`, older by the time since then if it ran. Raises KeyError, TypeError or ValueError."""
    domain = SimDomain(
        domid=int(record["domid"]),
        uuid=str(record["uuid"]),
        memory=int(record["memory"]),
        memory_actual=int(record["memory_actual"]),
        vcpus_max=int(record["vcpus_max"]),
        vcpus=int(record["vcpus"]),
        state=RunState(record["state"]),
        settings=dict(record["settings"]),
        faults=parse_faults(record["settings"]),
        measured=now - max(0.0, (wall - datetime.fromisoformat(record["as_of"])).total_seconds()),
        age=float(record["age"]),
        processor_time=[float(seconds) for seconds in record["processor_time"]],
        disks={int(disk["slot"]): PluggedDisk.from_record(disk) for disk in record["disks"]},
        nics={int(slot): str(mac) for slot, mac in record["nics"]},
        powers_off_at=record["powers_off_at"],
        keep_crashed=bool(record["keep_crashed"]),
        crashed=bool(record["crashed"]),
    )
    domain.settle(now)
    return domain
