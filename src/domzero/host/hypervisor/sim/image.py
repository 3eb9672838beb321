"""What a simulated domain writes when it is saved or dumped, and how a restore checks it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import orjson

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.sim.domain import SimDomain
from domzero.host.hypervisor.spec import MachineSpec

KIND = "domzero simulated memory image"
LIMIT = 1 << 20
"""Bytes; no image is nearly as large."""
ELF_HEADER = struct.Struct("<4sBBBBB7xHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
NOTE_HEADER = struct.Struct("<III")


def write_image(domain: SimDomain, image: Path) -> None:
    """Fill the file, which exists. Raises `HypervisorError`."""
    content = _shape(domain.memory, domain.vcpus_max, list(domain.disks), list(domain.nics))
    content["age"] = domain.age
    try:
        with image.open("r+b") as file:
            file.write(orjson.dumps(content))
            file.truncate()
    except OSError as error:
        raise HypervisorError(f"{image}: {error.strerror}") from error


def check_image(spec: MachineSpec, image: Path) -> None:
    """Raises `HypervisorError` unless the image was written by a domain of an equal specification.

    The uuid may differ: a suspended machine can be copied.
    """
    try:
        with image.open("rb") as file:
            content = orjson.loads(file.read(LIMIT))
    except OSError as error:
        raise HypervisorError(f"{image}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise HypervisorError(f"{image} is no memory image: {error}") from error
    expected = _shape(spec.memory, spec.vcpus_max, [disk.slot for disk in spec.disks], [nic.slot for nic in spec.nics])
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise HypervisorError(f"{image} is no memory image of the simulator")
    for name, value in expected.items():
        if content.get(name) != value:
            raise HypervisorError(f"{image} was saved with {name} {content.get(name)!r}, not {value!r}")


def write_core(domain: SimDomain, core: Path, limit: int) -> None:
    """Fill the file, which exists, with an ELF core of one note, which says of what. Raises `HypervisorError`."""
    owner, told = b"domzero\0", orjson.dumps({"kind": "simulated core", "uuid": domain.uuid, "age": domain.age})
    told += bytes(-len(told) % 4)
    note = NOTE_HEADER.pack(len(owner), len(told), 1) + owner + told
    start = ELF_HEADER.size + PROGRAM_HEADER.size
    # ELF-64, little-endian, version 1, no particular system; a core (4) for x86-64 (62) (elf(5)).
    head = ELF_HEADER.pack(b"\x7fELF", 2, 1, 1, 0, 0, 4, 62, 1, 0, ELF_HEADER.size, 0, 0, ELF_HEADER.size,
                           PROGRAM_HEADER.size, 1, 0, 0, 0)  # fmt: skip
    content = head + PROGRAM_HEADER.pack(4, 0, start, 0, 0, len(note), 0, 4) + note
    if len(content) > limit:
        raise HypervisorError(f"the core has more than {limit} bytes")
    try:
        with core.open("r+b") as file:
            file.write(content)
            file.truncate()
    except OSError as error:
        raise HypervisorError(f"{core}: {error.strerror}") from error


def _shape(memory: int, vcpus_max: int, disks: list[int], nics: list[int]) -> dict[str, Any]:
    return {"kind": KIND, "memory": memory, "vcpus_max": vcpus_max, "disks": sorted(disks), "nics": sorted(nics)}
