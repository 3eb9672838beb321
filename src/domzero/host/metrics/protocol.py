"""What is measured of a host, as plain values, and who measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Processor:
    """One logical processor, as the kernel describes it. `speed` is MHz."""

    number: int
    vendor: str
    speed: int
    model_name: str
    family: int
    model: int
    stepping: str
    flags: str
    socket: str
    core: str
    """The core that it is a thread of, by the socket's own number; itself where nothing is said."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `free` is what a new machine could have without anything being pushed out."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """What does not change while the machine is up, but for its name."""

    hostname: str
    kernel: str
    boot_id: str
    boot_time: float
    """Seconds since 1970."""
    processors: tuple[Processor, ...]
    memory: Memory


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Clock ticks since the machine came up: working, and in all."""

    busy: int
    total: int


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What this process itself takes: bytes of memory that are present, and open files."""

    resident: int
    open_files: int


class HostFacts(Protocol):
    """Measures the host. Every method looks anew and blocks for as long as looking takes (milliseconds)."""

    def machine(self) -> MachineInfo:
        """The machine as it is now. Raises `OSError` where it cannot be told."""
        ...

    def memory(self) -> Memory:
        """Memory in all and available."""
        ...

    def processor_times(self) -> Mapping[int, ProcessorTimes]:
        """Counters by processor number; two readings give a utilisation."""
        ...

    def load_average(self) -> float:
        """Tasks that ran or wanted to, on average over the last minute."""
        ...

    def own_usage(self) -> ProcessUsage:
        """What domzero takes itself."""
        ...


def utilisation(before: ProcessorTimes, after: ProcessorTimes) -> float:
    """The busy fraction between two readings, from 0 to 1."""
    total = after.total - before.total
    return min(1.0, max(0.0, (after.busy - before.busy) / total)) if total > 0 else 0.0
