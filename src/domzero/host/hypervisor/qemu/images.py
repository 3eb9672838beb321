"""Disk images: whom a header may name, what is opened, and the block nodes made of it.

A guest or an imported file may have written anything into an image. So a format is never guessed, every backing file
is opened by us and handed to QEMU as a descriptor, and a header that names anything but a file of the image's own
repository is refused. `qemu-img info` looks at one file at a time and follows nothing.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.process import ProcessError, run

CHAIN_LIMIT = 64
"""The most files one disk may consist of; a chain that bites its own tail ends here."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An opened file on its way into one of QEMU's descriptor sets."""

    fd: int
    set: int
    opaque: str


class OpenedImage:
    """A disk's block node and the descriptors it needs, which are ours until `close`."""

    def __init__(self, node: str, blockdev: dict[str, object], descriptors: Sequence[Descriptor]) -> None:
        self.node = node
        self.blockdev = blockdev
        self.descriptors = tuple(descriptors)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor.fd)


async def backing_chain(source: DiskSource, image_tool: str) -> tuple[DiskSource, ...]:
    """The files a disk consists of, topmost first. Raises `HypervisorError` for a header that is not to be trusted."""
    if source.backing is not None:
        return (source, *source.backing)
    repository = source.path.resolve().parent
    chain = [source]
    while chain[-1].format is DiskFormat.QCOW2:
        top = chain[-1]
        try:
            said = await run(
                [image_tool, "info", "--force-share", "--output=json", "-f", top.format.value, top.path], timeout=10
            )
        except ProcessError as error:
            raise HypervisorError(f"{top.path}: {error}") from error
        backing = backing_of(json.loads(said.stdout), top.path, repository)
        if backing is None:
            break
        chain.append(backing)
        if len(chain) > CHAIN_LIMIT:
            raise HypervisorError(f"{source.path}: more than {CHAIN_LIMIT} backing files")
    return tuple(chain)


def backing_of(info: dict[str, object], image: Path, repository: Path) -> DiskSource | None:
    """The backing file that `qemu-img info` found in a header, None where there is none.

    Raises `HypervisorError` for an external data file, a format that would have to be guessed, and a backing file that
    is not a plain path inside `repository` (resolved, so no symbolic link leads out).
    """
    specific = info.get("format-specific")
    data = specific.get("data") if isinstance(specific, dict) else None
    if isinstance(data, dict) and "data-file" in data:
        raise HypervisorError(f"{image}: an image with an external data file is not accepted")
    name = info.get("backing-filename")
    if name is None:
        return None
    try:
        backing_format = DiskFormat(info.get("backing-filename-format"))
    except ValueError:
        raise HypervisorError(f"{image}: its header does not say in what format its backing file is") from None
    path = (image.parent / str(name)).resolve()
    if not path.is_relative_to(repository) or not path.is_file():
        raise HypervisorError(f"{image}: its backing file is not a file of the same repository")
    return DiskSource(path, backing_format)


def open_image(chain: Sequence[DiskSource], node: str, first_set: int, *, writable: bool) -> OpenedImage:
    """Open every file of a chain and describe the block node. Set numbers count up from `first_set`, topmost first.

    A writable top is opened twice, also for reading alone: QEMU reopens a disk so when it becomes a backing file.
    Backing files are opened for reading only: others may share them. Raises `HypervisorError`.
    """
    with ExitStack() as undo:
        descriptors = []
        protocols = []
        for position, layer in enumerate(chain):
            modes = (os.O_RDWR, os.O_RDONLY) if writable and position == 0 else (os.O_RDONLY,)
            for mode in modes:
                fd = _open(layer.path, mode)
                undo.callback(os.close, fd)
                descriptors.append(Descriptor(fd, first_set + position, node))
            protocols.append(_protocol(layer.path, fd))
        undo.pop_all()
    return OpenedImage(node, blockdev(chain, protocols, node, first_set, writable=writable), descriptors)


def _open(path: Path, mode: int) -> int:
    try:
        return os.open(path, mode | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise HypervisorError(f"{path}: {error.strerror}") from error


def _protocol(path: Path, fd: int) -> str:
    """QEMU's driver for an opened file. Raises `HypervisorError` for what is neither a file nor a block device."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISBLK(mode):
        return "host_device"
    raise HypervisorError(f"{path} is neither a file nor a block device")


def blockdev(
    chain: Sequence[DiskSource], protocols: Sequence[str], node: str, first_set: int, *, writable: bool
) -> dict[str, object]:
    """The block node of a chain whose files are in the sets from `first_set` on, with nothing left to a header."""
    below: dict[str, object] | None = None
    for position in reversed(range(len(chain))):
        layer = chain[position]
        read_only = not (writable and position == 0)
        filename = f"/dev/fdset/{first_set + position}"
        file: dict[str, object] = {"driver": protocols[position], "filename": filename, "read-only": read_only}
        if not read_only:
            file["discard"] = "unmap"
        current: dict[str, object] = {"driver": layer.format.value, "read-only": read_only, "file": file}
        if not read_only:
            current["discard"] = "unmap"
        if layer.format is DiskFormat.QCOW2:
            current["backing"] = below
        below = current
    assert below is not None
    return {"node-name": node, **below}


def sets_used(images: Iterable[OpenedImage]) -> int:
    """The highest descriptor set number in use, 0 where there is none."""
    return max((descriptor.set for image in images for descriptor in image.descriptors), default=0)
