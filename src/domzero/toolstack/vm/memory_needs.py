"""How much of a host's memory a machine takes: pure arithmetic, in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from domzero.toolstack.vm.memory_constraints import HIGHEST_MULTIPLIER, LEAST_MULTIPLIER
from domzero.toolstack.vm.operations import SUSPENDED

MIB: Final = 1 << 20
EMULATOR: Final = 24 * MIB
"""The process that runs the machine, its buffers and its screen."""
PER_VCPU: Final = 1 * MIB
PER_GUEST_MIB: Final = 8192
"""Page tables and bookkeeping for each MiB that the guest sees."""
APPROXIMATE_STEP: Final = 64 * MIB
"""What an approximate answer is rounded down to."""


def memory_overhead(record: Mapping[str, Any]) -> int:
    """What running the machine costs beyond the guest's own memory; the shadow multiplier scales the page tables."""
    return overhead_of(record["memory_static_max"], record["VCPUs_max"], record["HVM_shadow_multiplier"])


def overhead_of(memory: int, vcpus: int, multiplier: float) -> int:
    """As `memory_overhead`, from its parts."""
    tables = vcpus * PER_VCPU + -(-memory // MIB) * PER_GUEST_MIB
    return EMULATOR + int(tables * _within(multiplier))


def memory_needed(record: Mapping[str, Any]) -> int:
    """What a host must have free to start the machine: what the balloon leaves the guest at first, and the overhead.

    A suspended guest is left what it had.
    """
    if record["power_state"] == SUSPENDED:
        return memory_held(record)
    return int(record["memory_dynamic_max"] or record["memory_static_max"]) + memory_overhead(record)


def memory_held(record: Mapping[str, Any]) -> int:
    """What a machine that runs, or is about to, takes of its host."""
    return int(record["memory_target"] or record["memory_dynamic_max"]) + memory_overhead(record)


def largest_memory(record: Mapping[str, Any], total: int, *, approximate: bool) -> int:
    """The most static memory with which the machine fits into `total`; 0 when even the overhead does not."""
    multiplier = _within(record["HVM_shadow_multiplier"])
    left = total - EMULATOR - int(record["VCPUs_max"] * PER_VCPU * multiplier)
    mebibytes = int(left // (MIB + PER_GUEST_MIB * multiplier))
    while mebibytes > 0 and mebibytes * MIB + overhead_of(mebibytes * MIB, record["VCPUs_max"], multiplier) > total:
        mebibytes -= 1
    memory = max(0, mebibytes) * MIB
    return memory - memory % APPROXIMATE_STEP if approximate else memory


def _within(multiplier: float) -> float:
    """What the factor counts as: records of other hosts may hold any finite number."""
    return min(max(LEAST_MULTIPLIER, multiplier), HIGHEST_MULTIPLIER)
