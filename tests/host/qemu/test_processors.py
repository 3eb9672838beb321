"""What a guest's processors can do, as QEMU tells of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.qemu.processors import FEATURE_WORDS, feature_words
from domzero.host.hypervisor.spec import DiskKind, DiskSpec, FirmwareBoot, KernelBoot
from tests.host.qemu.conftest import Machine, guest_spec

HYPERVISOR, LONG_MODE = 1 << 31, 1 << 29


def test_words_are_in_xens_order() -> None:
    told = [
        {"cpuid-input-eax": 0xD, "cpuid-input-ecx": 0, "cpuid-register": "EAX", "features": 543},
        {"cpuid-input-eax": 0x4000_0001, "cpuid-register": "EAX", "features": 9},
        *(
            {"cpuid-input-eax": leaf, "cpuid-input-ecx": subleaf, "cpuid-register": register, "features": number}
            for number, (leaf, subleaf, register) in enumerate(FEATURE_WORDS)
        ),
    ]
    assert feature_words(reversed(told)) == tuple(range(len(FEATURE_WORDS)))
    assert feature_words([{"cpuid-input-eax": 1, "cpuid-register": "ECX", "features": 5}]) == (0, 5, *[0] * 9)


@pytest.mark.qemu
async def test_a_start_tells_of_the_processors(machine: Machine, tmp_path: Path) -> None:
    disc = machine.image("disk", "1M")
    spec = guest_spec(KernelBoot(Path("/"), None, ""), disc)
    spec = replace(spec, boot=FirmwareBoot("c"), disks=(DiskSpec(0, DiskKind.DISK, disc),), vcpus=2)
    status = await machine.hypervisor.start(spec, paused=True)
    assert status.processor is not None
    assert status.processor.vendor in ("AuthenticAMD", "GenuineIntel", "HygonGenuine")
    assert len(status.processor.features) == len(FEATURE_WORDS)
    assert status.processor.features[1] & HYPERVISOR
    assert status.processor.features[2] & LONG_MODE
    assert all(0 <= word < 1 << 32 for word in status.processor.features)
    image = tmp_path / "memory"
    image.touch()
    await machine.hypervisor.save(spec.domid, image)
    await machine.hypervisor.destroy(spec.domid)
    restored = await machine.hypervisor.restore(spec, image, paused=True)
    assert restored.processor is None
