"""What a simulated domain writes when it is saved, and how a restore checks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.sim.domain import SimDomain
from domzero.host.hypervisor.spec import MachineSpec

KIND = "domzero simulated memory image"
LIMIT = 1 << 20
"""Bytes; no image is nearly as large."""


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


def _shape(memory: int, vcpus_max: int, disks: list[int], nics: list[int]) -> dict[str, Any]:
    return {"kind": KIND, "memory": memory, "vcpus_max": vcpus_max, "disks": sorted(disks), "nics": sorted(nics)}
