"""What the guest's processors can do, as QEMU tells of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from domzero.host.hypervisor.protocol import GuestProcessor
from domzero.host.hypervisor.qemu.monitor import CommandRefusedError, Monitor

log = logging.getLogger(__name__)

FEATURE_WORDS = (
    (0x1, 0, "EDX"),
    (0x1, 0, "ECX"),
    (0x8000_0001, 0, "EDX"),
    (0x8000_0001, 0, "ECX"),
    (0xD, 1, "EAX"),
    (0x7, 0, "EBX"),
    (0x7, 0, "ECX"),
    (0x8000_0007, 0, "EDX"),
    (0x8000_0008, 0, "EBX"),
    (0x7, 0, "EDX"),
    (0x7, 1, "EAX"),
)
"""Leaf, subleaf and register of CPUID, in the order of Xen's feature set (arch-x86/cpufeatureset.h)."""


async def describe_processor(monitor: Monitor) -> GuestProcessor | None:
    """The first virtual processor, to which all others are alike; None where QEMU does not tell, as of other than x86.

    The features are those that the guest sees: what the machine underneath lacks has been taken out. Raises
    `HypervisorError` when the domain is gone.
    """
    try:
        (first, *_) = await monitor.execute("query-cpus-fast")
        path = first["qom-path"]
        vendor = await monitor.execute("qom-get", path=path, property="vendor")
        words = await monitor.execute("qom-get", path=path, property="feature-words")
    except CommandRefusedError as error:
        log.info("the features of the virtual processors are not known: %s", error)
        return None
    return GuestProcessor(vendor, feature_words(words))


def feature_words(found: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
    """The words in Xen's order, from QEMU's `feature-words` (X86CPUFeatureWordInfo); one that is not told is 0."""
    told = {
        (word["cpuid-input-eax"], word.get("cpuid-input-ecx", 0), word["cpuid-register"]): word["features"]
        for word in found
    }
    return tuple(told.get(place, 0) for place in FEATURE_WORDS)
