"""Saving a domain's memory and devices into a file, and loading it into a new process.

The file is a page of our own, which says what machine the rest fits, followed by QEMU's migration stream.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domzero.host.hypervisor.protocol import HypervisorError, RunState
from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.qemu.launch import SavedMachine

MAGIC = b"domzero saved domain 1\n"
HEADER_SIZE = 4096
BANDWIDTH = 1 << 40
"""Bytes per second: no limit in practice. QEMU's own default is 128 MiB/s."""
DESCRIPTOR = "saved-image"
MAX_QUEUES = 1024
"""QEMU's own limit (hw/virtio/virtio.c, VIRTIO_QUEUE_MAX)."""
FINAL_STATES = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An opened image: its machine, and a descriptor that stands at the beginning of QEMU's stream."""

    machine: SavedMachine
    fd: int


def header(machine: SavedMachine) -> bytes:
    """The first page of an image."""
    return (MAGIC + json.dumps(asdict(machine)).encode()).ljust(HEADER_SIZE, b"\0")


def parse_header(page: bytes) -> SavedMachine:
    """What a first page says. Raises `HypervisorError` where it is not one of ours or not sane."""
    try:
        if not page.startswith(MAGIC) or len(page) != HEADER_SIZE:
            raise ValueError("no such header")
        fields = json.loads(page[len(MAGIC) :].rstrip(b"\0"))
        machine = SavedMachine(
            str(fields["machine"]), int(fields["memory"]), int(fields["vcpus"]), int(fields.get("ports", 1)),
            int(fields.get("queues", 0)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise HypervisorError(f"not an image of a saved domain: {error}") from error
    if not re.fullmatch(r"pc-q35-[0-9.]{1,8}", machine.machine) or min(machine.memory, machine.vcpus) <= 0:
        raise HypervisorError("not an image of a saved domain: impossible machine")
    if not 1 <= machine.ports <= names.PORTS:
        raise HypervisorError("not an image of a saved domain: impossible ports")
    if not 0 <= machine.queues <= MAX_QUEUES:
        raise HypervisorError("not an image of a saved domain: impossible queues")
    return machine


@contextmanager
def open_saved(image: Path) -> Iterator[SavedImage]:
    """Open an image for `load`. Raises `HypervisorError`."""
    try:
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HypervisorError(f"{image}: {error.strerror}") from error
    try:
        yield SavedImage(parse_header(os.read(fd, HEADER_SIZE)), fd)
    finally:
        os.close(fd)


async def save(domain: Domain, image: Path) -> None:
    """Stop the domain and write it into an existing file, which is on the disk when this returns.

    On failure the domain runs if it ran before. Raises `HypervisorError`.
    """
    was_running = domain.state is RunState.RUNNING
    try:
        fd = os.open(image, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError as error:
        raise HypervisorError(f"{image}: {error.strerror}") from error
    try:
        os.write(fd, header(await _machine(domain)))
        await domain.set_running(False)
        await _transfer(domain, fd, "migrate")
        await asyncio.to_thread(os.fdatasync, fd)
    except BaseException as error:
        if was_running:
            await asyncio.shield(_resume(domain))
        if isinstance(error, OSError):
            raise HypervisorError(f"{image}: {error.strerror}") from error
        raise
    finally:
        os.close(fd)


async def load(domain: Domain, fd: int) -> None:
    """Read QEMU's stream into a domain that was started for it and does not run. Raises `HypervisorError`."""
    await _transfer(domain, fd, "migrate-incoming")


async def _machine(domain: Domain) -> SavedMachine:
    machine, memory, processors, devices = await asyncio.gather(
        domain.monitor.execute("qom-get", path="/machine", property="type"),
        domain.monitor.execute("query-memory-size-summary"),
        domain.monitor.execute("query-cpus-fast"),
        domain.monitor.execute("qom-list", path="/machine/peripheral"),
    )
    ports = sum(device["name"] in (names.GUEST_PORT, names.TOOLS_PORT) for device in devices)
    name = str(machine).removesuffix("-machine")
    return SavedMachine(name, memory["base-memory"], len(processors), ports, domain.handle.queues)


async def _transfer(domain: Domain, fd: int, command: str) -> None:
    """Run a migration over a descriptor to its end."""
    monitor = domain.monitor
    await monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    await monitor.execute("migrate-set-parameters", max_bandwidth=BANDWIDTH)
    await monitor.with_descriptor(fd, "getfd", fdname=DESCRIPTOR)
    async with domain.expect(_is_final) as finished:
        try:
            await monitor.execute(command, uri=f"fd:{DESCRIPTOR}")
            _, data = await finished
        except asyncio.CancelledError:
            await asyncio.shield(monitor.execute("migrate_cancel"))
            raise
    if data["status"] != "completed":
        result = await monitor.execute("query-migrate")
        raise HypervisorError(f"saving or loading failed: {result.get('error-desc', data['status'])}")


def _is_final(name: str, data: Mapping[str, Any]) -> bool:
    return name == "MIGRATION" and data.get("status") in FINAL_STATES


async def _resume(domain: Domain) -> None:
    await domain.set_running(True)
