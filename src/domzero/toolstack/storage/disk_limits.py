"""How much of the host's disks a drive may have: VBD.qos_algorithm_type and qos_algorithm_params, read and checked.

| algorithm   | parameter | value |
|-------------|-----------|-------|
| `ionice`    | `sched`   | `rt` (before all others), `be` (best effort, the default), `idle` (only what others leave) |
|             | `class`   | from 0 (most) to 7, or `highest`, `high`, `normal` (default), `low`, `lowest` |
| `ratelimit` | `bps`     | bytes a second, at most |
|             | `iops`    | reads and writes a second, at most |

Priorities belong to a machine's process as a whole: it has the best one that any of its drives asks for. Parameters of
other names mean nothing, so that the algorithm can be changed before its parameters are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.spec import DiskLimits, IoClass

IONICE: Final = "ionice"
RATELIMIT: Final = "ratelimit"
SUPPORTED: Final = (IONICE, RATELIMIT)
"""What VBD.qos_supported_algorithms says."""

NAMED_PRIORITIES: Final[Mapping[str, int]] = {"highest": 0, "high": 2, "normal": 4, "low": 6, "lowest": 7}
LOWEST_PRIORITY: Final = 7
MOST: Final = 1 << 50
"""A rate above this is a mistake: no medium is that fast."""


def limits_of(algorithm: str, parameters: Mapping[str, str]) -> DiskLimits | None:
    """What the hypervisor is told; None for no limit. Raises INVALID_VALUE for an algorithm or value unknown."""
    if algorithm == IONICE:
        return DiskLimits(io_class=_io_class(parameters.get("sched", "be")), priority=_priority(parameters))
    if algorithm == RATELIMIT:
        rates = _rate(parameters, "bps"), _rate(parameters, "iops")
        return DiskLimits(*rates) if any(rates) else None
    if algorithm:
        raise ApiError("INVALID_VALUE", "qos_algorithm_type", algorithm)
    return None


def limits_at_start(drive: Mapping[str, Any]) -> DiskLimits | None:
    """The same of a VBD whose machine is about to run. What makes no sense, in a row from elsewhere, limits nothing."""
    try:
        return limits_of(drive["qos_algorithm_type"], drive["qos_algorithm_params"])
    except ApiError:
        return None


def _io_class(text: str) -> IoClass:
    try:
        return IoClass(text)
    except ValueError:
        raise ApiError("INVALID_VALUE", "qos_algorithm_params:sched", text) from None


def _priority(parameters: Mapping[str, str]) -> int:
    text = parameters.get("class", "normal")
    priority = NAMED_PRIORITIES.get(text)
    if priority is None:
        priority = _number("class", text, LOWEST_PRIORITY)
    return priority


def _rate(parameters: Mapping[str, str], name: str) -> int:
    return _number(name, parameters.get(name, "0"), MOST)


def _number(name: str, text: str, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most:
        return int(text)
    raise ApiError("INVALID_VALUE", f"qos_algorithm_params:{name}", text)
