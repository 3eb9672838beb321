"""The order that a machine's four memory limits must keep, and how each setter changes them.

static_min ≤ dynamic_min ≤ dynamic_max ≤ static_max, all in bytes. Changes are computed as a whole new set of limits and
then checked, so that no setter can leave a machine that could not be started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domzero.engine.errors import ApiError

LEAST_MULTIPLIER: Final = 1.0
HIGHEST_MULTIPLIER: Final = 1000.0
"""Far beyond what anybody has set; sizes that follow from it are still numbers of bytes."""


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """The four limits of one machine, in bytes."""

    static_min: int
    dynamic_min: int
    dynamic_max: int
    static_max: int

    def fields(self) -> dict[str, int]:
        """The limits as fields of a VM object."""
        return {
            "memory_static_min": self.static_min,
            "memory_dynamic_min": self.dynamic_min,
            "memory_dynamic_max": self.dynamic_max,
            "memory_static_max": self.static_max,
        }


def limits_of(record: Mapping[str, Any]) -> MemoryLimits:
    """The limits in a VM record."""
    return MemoryLimits(
        record["memory_static_min"],
        record["memory_dynamic_min"],
        record["memory_dynamic_max"],
        record["memory_static_max"],
    )


def check_limits(limits: MemoryLimits) -> MemoryLimits:
    """The same limits, or `ApiError` MEMORY_CONSTRAINT_VIOLATION (no memory at all) or …_ORDER (wrong order)."""
    if limits.static_min < 0:
        raise ApiError("MEMORY_CONSTRAINT_VIOLATION", "0 <= static_min")
    if limits.static_max <= 0:
        raise ApiError("MEMORY_CONSTRAINT_VIOLATION", "0 < static_max")
    if not limits.static_min <= limits.dynamic_min <= limits.dynamic_max <= limits.static_max:
        raise ApiError("MEMORY_CONSTRAINT_VIOLATION_ORDER")
    return limits


def target_within(limits: MemoryLimits, target: int) -> int:
    """The balloon target nearest to `target` that the dynamic range allows; an unset target (0) goes to the top."""
    if target <= 0:
        return limits.dynamic_max
    return min(max(target, limits.dynamic_min), limits.dynamic_max)


def check_multiplier(name: str, value: float) -> None:
    """Raises `ApiError` INVALID_VALUE for a factor that no page tables could need."""
    if not LEAST_MULTIPLIER <= value <= HIGHEST_MULTIPLIER:
        raise ApiError("INVALID_VALUE", name, str(value))


def check_vcpus(at_startup: int, maximum: int) -> None:
    """Raises `ApiError` INVALID_VALUE unless 1 ≤ at_startup ≤ maximum."""
    if maximum < 1:
        raise ApiError("INVALID_VALUE", "VCPUs_max", str(maximum))
    if not 1 <= at_startup <= maximum:
        raise ApiError("INVALID_VALUE", "VCPUs_at_startup", str(at_startup))
