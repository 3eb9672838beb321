"""Disk images: whom a header may name, what is opened, and the block nodes made of it.

A guest or an imported file may have written anything into an image. So a format is never guessed, every backing file
is opened by us and handed to QEMU as a descriptor, and a header that names anything but a file of the image's own
repository is refused. `qemu-img info` looks at one file at a time and follows nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu import names
from domzero.host.hypervisor.qemu.places import Descriptor, Secret, cut, open_file, storage_node
from domzero.host.hypervisor.qemu.remote import reached, secret_pipe
from domzero.host.hypervisor.spec import DiskFormat, DiskSource, Extent, RemoteImage
from domzero.host.process import ProcessError, run

CHAIN_LIMIT = 64
"""The most files one disk may consist of; a chain that bites its own tail ends here."""


class OpenedImage:
    """A disk's block node and the descriptors and passwords it needs, which are ours until `close`."""

    def __init__(
        self,
        node: str,
        blockdev: dict[str, object],
        descriptors: Sequence[Descriptor],
        secrets: Sequence[Secret] = (),
    ) -> None:
        self.node = node
        self.blockdev = blockdev
        self.descriptors = tuple(descriptors)
        self.secrets = tuple(secrets)

    @property
    def fds(self) -> list[int]:
        """Every descriptor that QEMU needs."""
        return [opened.fd for opened in self.descriptors] + [opened.fd for opened in self.secrets]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


async def prepared_chain(source: DiskSource, image_tool: str) -> tuple[DiskSource, ...]:
    """The layers a disk consists of, topmost first, those elsewhere known to answer (see `remote.reached`).

    Raises `HypervisorError` also for a header that is not to be trusted.
    """
    chain = await backing_chain(source, image_tool)
    return tuple(
        [
            replace(layer, place=await reached(layer.place, image_tool))
            if isinstance(layer.place, RemoteImage)
            else layer
            for layer in chain
        ]
    )


async def backing_chain(source: DiskSource, image_tool: str) -> tuple[DiskSource, ...]:
    """The layers a disk consists of, topmost first. Raises `HypervisorError` for a header that is not to be trusted."""
    if source.backing is not None:
        return (source, *source.backing)
    if source.format is not DiskFormat.QCOW2:
        return (source,)
    if not isinstance(source.place, Path):
        raise HypervisorError(f"{source.place}: what backing files it has must be known beforehand")
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


def open_image(chain: Sequence[DiskSource], slot: int, first: int, *, writable: bool) -> OpenedImage:
    """Open every file of a chain and describe the block node. Layers are numbered from `first` on, topmost first.

    A writable top is opened twice, also for reading alone: QEMU reopens a disk so when it becomes a backing file.
    Backing files are opened for reading only: others may share them. Raises `HypervisorError`.
    """
    with ExitStack() as undo:
        descriptors: list[Descriptor] = []
        secrets: list[Secret] = []
        nodes = []
        for number, layer in enumerate(chain, first):
            opened: Descriptor | None = None
            if isinstance(layer.place, RemoteImage):
                if layer.place.secret:
                    secrets.append(Secret(names.secret(slot, number), secret_pipe(layer.place)))
                    undo.callback(os.close, secrets[-1].fd)
            else:
                for write in (True, False) if writable and number == first else (False,):
                    opened = open_file(layer.path, slot, number, writable=write)
                    undo.callback(os.close, opened.fd)
                    descriptors.append(opened)
            nodes.append(storage_node(layer, slot, number, opened))
        described = blockdev(chain, nodes, slot, first, writable=writable)
        undo.pop_all()
    return OpenedImage(names.image(slot, first), described, descriptors, secrets)


def blockdev(
    chain: Sequence[DiskSource], storage: Sequence[dict[str, object]], slot: int, first: int, *, writable: bool
) -> dict[str, object]:
    """The block node of a chain whose layers are in the nodes `storage`, with nothing left to a header."""
    below: dict[str, object] | None = None
    for position in reversed(range(len(chain))):
        layer, number = chain[position], first + position
        on_top = position == 0
        current: dict[str, object] = {
            "driver": layer.format.value,
            "node-name": names.image(slot, number) if on_top else names.layer(slot, number),
            "read-only": not (writable and on_top),
        }
        passed_down: dict[str, object] = {"discard": "unmap"} if writable and on_top else {}
        file = {**storage[position], **passed_down}
        if isinstance(layer.place, Extent):
            part = cut(layer.place)
            if layer.format is DiskFormat.RAW:
                current.update(part)
            else:
                file = {"driver": "raw", "node-name": names.part(slot, number), **part, **passed_down, "file": file}
        current.update(passed_down, file=file)
        if layer.format is DiskFormat.QCOW2:
            current["backing"] = below
        below = current
    assert below is not None
    return below
