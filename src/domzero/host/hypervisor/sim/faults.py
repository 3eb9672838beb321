"""What a tester can ask of a simulated domain: the rows, and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from domzero.host.hypervisor.protocol import HypervisorError

PREFIX = "sim:"

VERBS = (
    "start",
    "restore",
    "save",
    "dump-core",
    "keep-crashed",
    "pause",
    "unpause",
    "shutdown",
    "destroy",
    "plug-disk",
    "unplug-disk",
    "change-medium",
    "switch-disk",
    "resize-disk",
    "limit-disk",
    "pull-layer",
    "plug-nic",
    "unplug-nic",
    "memory",
    "vcpus",
    "schedule",
    "sysrq",
    "trigger",
)


class ValueKind(Enum):
    """How a fault's value is written."""

    SECONDS = "seconds"
    TEXT = "text"
    FLAG = "yes/no"
    FRACTION = "0 … 1"
    RATE = "bytes/s"


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One key (without the prefix), or a family of keys that ends in `<verb>`."""

    key: str
    kind: ValueKind
    meaning: str


FAULTS = (
    FaultRow("delay-<verb>", ValueKind.SECONDS, "the verb takes that long"),
    FaultRow("fail-<verb>", ValueKind.TEXT, "the verb fails with this text, after its delay"),
    FaultRow("step", ValueKind.FLAG, "every verb waits until `SimHypervisor.step` lets it go on"),
    FaultRow("ignore-shutdown", ValueKind.FLAG, "the guest ignores the power button"),
    FaultRow("shutdown-delay", ValueKind.SECONDS, "the guest takes that long to power off when asked"),
    FaultRow("shutdown-after", ValueKind.SECONDS, "the guest powers itself off after running that long"),
    FaultRow("reboot-after", ValueKind.SECONDS, "the guest reboots itself after running that long"),
    FaultRow("crash-after", ValueKind.SECONDS, "the guest crashes after running that long"),
    FaultRow("ignore-unplug", ValueKind.FLAG, "the guest does not answer when a device is to be unplugged"),
    FaultRow("ignore-balloon", ValueKind.FLAG, "the guest does not follow a new memory target"),
    FaultRow("cpu-load", ValueKind.FRACTION, "the part of a processor that each virtual processor uses (0.02)"),
    FaultRow("read-rate", ValueKind.RATE, "what the guest reads from each disk (4096)"),
    FaultRow("write-rate", ValueKind.RATE, "what the guest writes to each writable disk (1024)"),
)


def _expand() -> dict[str, ValueKind]:
    kinds: dict[str, ValueKind] = {}
    for row in FAULTS:
        if row.key.endswith("<verb>"):
            kinds |= {row.key.replace("<verb>", verb): row.kind for verb in VERBS}
        else:
            kinds[row.key] = row.kind
    return kinds


KINDS = _expand()
"""Every key there is."""

_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one domain, checked. Absent keys answer with the caller's default."""

    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    def number(self, key: str, default: float = 0.0) -> float:
        return self.numbers.get(key, default)

    def after(self, key: str) -> float | None:
        return self.numbers.get(key)


NO_FAULTS = Faults()


def parse_faults(settings: Mapping[str, str]) -> Faults:
    """Read keys with or without the prefix. Raises `HypervisorError` for an unknown key or a value it cannot read."""
    if not settings:
        return NO_FAULTS
    texts: dict[str, str] = {}
    numbers: dict[str, float] = {}
    flags: set[str] = set()
    for written, value in settings.items():
        key = written.removeprefix(PREFIX)
        kind = KINDS.get(key)
        if kind is None:
            raise HypervisorError(f"the simulator knows no fault {written!r}")
        if kind is ValueKind.TEXT:
            texts[key] = value
        elif kind is ValueKind.FLAG:
            if _flag(written, value):
                flags.add(key)
        else:
            numbers[key] = _number(written, value, kind)
    return Faults(texts, numbers, frozenset(flags))


def _flag(key: str, value: str) -> bool:
    flag = _FLAGS.get(value.strip().lower())
    if flag is None:
        raise HypervisorError(f"{key} must be true or false, not {value!r}")
    return flag


def _number(key: str, value: str, kind: ValueKind) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (kind is ValueKind.FRACTION and number > 1):
        raise HypervisorError(f"{key} must be a number ({kind.value}), not {value!r}")
    return number
