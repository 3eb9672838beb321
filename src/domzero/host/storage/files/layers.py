"""The files of a `file` repository: their names, what they hold, and which of them are left over.

* `<uuid>.qcow2` is a disk: the layer that its machine writes.
* `base-<uuid>.qcow2` is a hidden layer that never changes, shared by all that name it as their backing file.
* `next-<uuid>.qcow2` is to become the layer that disk <uuid> writes. Its base is linked before anyone writes to it.
* `new-<uuid>.qcow2` is a disk in the making; nobody has been told of it.
* `merging-<name>` notes the name of the layer that <name> is taking over (`coalesce`).
* `<uuid>.vhd` and `<uuid>.raw` are disks of formats that share nothing here (`plain`), in the making as above.

Backing files are named without a directory, so a repository can be moved. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from domzero.host.storage.files.formats import FORMATS, PLAIN, QCOW2, ImageFormat
from domzero.host.storage.files.plain import PLAIN_NAME, PlainDisk, opened, read_plain
from domzero.host.storage.files.qcow2 import BadImageError, Header, holds_nothing, read_header
from domzero.host.storage.uuids import UUID

DISK_NAME = re.compile(rf"({UUID})\.qcow2", re.ASCII)
BASE_NAME = re.compile(rf"base-({UUID})\.qcow2", re.ASCII)
NEXT_NAME = re.compile(rf"next-({UUID})\.qcow2", re.ASCII)
NEW_NAME = re.compile(rf"new-({UUID})\.(?:{'|'.join(FORMATS)})", re.ASCII)
MERGING_NAME = re.compile(rf"merging-((?:base-)?{UUID}\.qcow2)", re.ASCII)

NAMES = (DISK_NAME, BASE_NAME, NEXT_NAME, NEW_NAME, MERGING_NAME)

CHAIN_LIMIT = 30
"""Layers of one disk, its own included; XenServer's limit too."""
MERGE_FROM = 20
"""A chain of that many layers is made one shorter before the next is put on top."""


def disk_name(uuid: str) -> str:
    """The file that a disk's machine writes."""
    return f"{uuid}.qcow2"


def base_name(uuid: str) -> str:
    """A hidden layer that several disks may share."""
    return f"base-{uuid}.qcow2"


def next_name(uuid: str) -> str:
    """What is to become the file of disk `uuid`."""
    return f"next-{uuid}.qcow2"


def merging_name(upper: str) -> str:
    """What notes that a layer is taking over the one below it."""
    return f"merging-{upper}"


def new_name(uuid: str, format: ImageFormat = QCOW2) -> str:
    """A disk in the making."""
    return f"new-{uuid}.{format.name}"


@dataclass(frozen=True, slots=True)
class Layer:
    """One file. `used` is what it takes on the medium, in bytes."""

    name: str
    inode: int
    used: int
    header: Header


@dataclass(frozen=True, slots=True)
class Survey:
    """A directory as it was a moment ago. `unreadable` names the layers that could not be understood, and why.

    `odd` does so for files of plain disks; `plain` are those without a layer of the same uuid.
    """

    layers: dict[str, Layer]
    new: tuple[str, ...]
    unreadable: dict[str, str]
    plain: dict[str, PlainDisk] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    merging: dict[str, str] = field(default_factory=dict)
    """Layers that take over another one, with its name."""

    def disks(self) -> dict[str, Layer]:
        """By uuid."""
        found = ((DISK_NAME.fullmatch(name), layer) for name, layer in self.layers.items())
        return {match[1]: layer for match, layer in found if match}

    def sizes(self) -> dict[str, int]:
        """The virtual size of every disk, by uuid."""
        shared = {uuid: layer.header.virtual_size for uuid, layer in self.disks().items()}
        return {**{uuid: disk.virtual_size for uuid, disk in self.plain.items()}, **shared}


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What an operation that was killed has left: layers to be put in place, and files to be removed."""

    finish: tuple[tuple[str, str], ...]
    remove: tuple[str, ...]
    restore: tuple[tuple[str, str], ...] = ()
    """Layers that were taking over another one, and that one: their headers say they have, perhaps too early."""


def read_layer(directory: Path, name: str) -> Layer:
    """Raises `BadImageError` for anything that our tools would not have written, or `OSError`."""
    with opened(directory, name) as (descriptor, status):
        return Layer(name, status.st_ino, status.st_blocks * 512, _checked(read_header(descriptor)))


def is_blank(directory: Path, layer: Layer) -> bool:
    """Whether the layer adds nothing to what is below it. Nobody may be writing to it."""
    with opened(directory, layer.name) as (descriptor, _):
        return holds_nothing(descriptor, layer.header)


def read_chain(directory: Path, name: str) -> list[Layer]:
    """The layer and all below it, topmost first. Raises as `read_layer`, also for an endless chain.

    Between two looks a layer may be merged into the one above it and be gone; a second look finds the new chain.
    """
    try:
        return _read_chain_once(directory, name)
    except FileNotFoundError:
        return _read_chain_once(directory, name)


def _read_chain_once(directory: Path, name: str) -> list[Layer]:
    chain = [read_layer(directory, name)]
    while (backing := chain[-1].header.backing) is not None:
        if len(chain) > 2 * CHAIN_LIMIT:
            raise BadImageError("its chain of backing files does not end")
        chain.append(read_layer(directory, backing))
    return chain


def survey(directory: Path) -> Survey:
    """Look at every file that has one of our names. Raises `OSError` when the directory cannot be read."""
    found = Survey({}, (), {})
    new: list[str] = []
    for name in sorted(os.listdir(directory)):
        if NEW_NAME.fullmatch(name):
            new.append(name)
        elif DISK_NAME.fullmatch(name) or BASE_NAME.fullmatch(name) or NEXT_NAME.fullmatch(name):
            try:
                found.layers[name] = read_layer(directory, name)
            except FileNotFoundError:
                continue
            except (BadImageError, OSError) as error:
                found.unreadable[name] = str(error)
        elif match := MERGING_NAME.fullmatch(name):
            found.merging[match[1]] = _read_note(directory, name)
        elif match := PLAIN_NAME.fullmatch(name):
            _add_plain(found, directory, name, match[1], PLAIN[match[2]])
    return dataclasses.replace(found, new=tuple(new))


def _add_plain(found: Survey, directory: Path, name: str, uuid: str, format: ImageFormat) -> None:
    if uuid in found.plain or disk_name(uuid) in found.layers or disk_name(uuid) in found.unreadable:
        found.odd[name] = "there is another file of the same disk"
        return
    try:
        found.plain[uuid] = read_plain(directory, uuid, format)
    except FileNotFoundError:
        return
    except (BadImageError, OSError) as error:
        found.odd[name] = str(error)


def _read_note(directory: Path, name: str) -> str:
    """The base that a note names; nothing for one that was not written to its end, so that nothing began after it."""
    try:
        with opened(directory, name) as (descriptor, _):
            noted = os.pread(descriptor, 100, 0).decode("ascii", errors="replace")
    except (FileNotFoundError, BadImageError):
        return ""
    return noted if BASE_NAME.fullmatch(noted) else ""


def leftovers(found: Survey, busy: AbstractSet[str]) -> Leftovers:
    """What to finish and what to remove, leaving alone the files of operations that go on (`busy`).

    An unfinished switch of a disk to its next layer is always finished: the machine may have been writing to that
    layer, and if it was not, the layer is blank and shows the same content. While any layer cannot be read no base is
    removed, since the unread one may need it.
    """
    finish: list[tuple[str, str]] = []
    remove = [name for name in found.new if name not in busy]
    for name, layer in found.layers.items():
        match = NEXT_NAME.fullmatch(name)
        if match is None or name in busy:
            continue
        disk = found.layers.get(disk_name(match[1]))
        base = found.layers.get(layer.header.backing or "")
        if disk is not None and base is not None and disk.inode == base.inode:
            finish.append((name, disk.name))
        elif not found.unreadable:
            remove.append(name)
    restore = [pair for pair in found.merging.items() if pair[0] not in busy and _is_doubtful(found, *pair)]
    doubtful = {upper for upper, _ in restore}
    remove += [merging_name(upper) for upper in found.merging if upper not in busy and upper not in doubtful]
    if not found.unreadable:
        remove += _unused_bases(found, busy, set(remove))
    return Leftovers(tuple(finish), tuple(remove), tuple(restore))


def _is_doubtful(found: Survey, upper: str, lower: str) -> bool:
    """Whether a layer's header says that it needs `lower` no more, while nobody has said that it does not."""
    if upper in found.unreadable:
        return True
    layer = found.layers.get(upper)
    return layer is not None and lower in found.layers and layer.header.backing != lower


def best_merge(chain: list[Layer], found: Survey, busy: AbstractSet[str]) -> tuple[Layer, Layer] | None:
    """Two neighbouring bases of a chain that may become one, the upper first; those that take the least to copy.

    The lower one must have no other child, and something below it: then only its own data is copied.
    """
    children = Counter(layer.header.backing for layer in found.layers.values())
    pairs = [
        (upper.used + lower.used, upper.name, upper, lower)
        for upper, lower in pairwise(chain[1:])
        if children[lower.name] == 1
        and lower.header.backing is not None
        and not {upper.name, lower.name} & (busy | found.merging.keys())
    ]
    if not pairs or found.unreadable:
        return None
    _, _, upper, lower = min(pairs, key=lambda pair: pair[:2])
    return upper, lower


def _unused_bases(found: Survey, busy: AbstractSet[str], removed: AbstractSet[str]) -> list[str]:
    needed: set[str] = set()
    kept = {lower for upper, lower in found.merging.items() if merging_name(upper) not in removed}
    for name, layer in found.layers.items():
        if name in removed or (BASE_NAME.fullmatch(name) and name not in busy | kept):
            continue
        if name in kept:
            needed.add(name)
        below = layer.header.backing
        while below is not None and below not in needed:
            needed.add(below)
            parent = found.layers.get(below)
            below = parent.header.backing if parent else None
    return [name for name in found.layers if BASE_NAME.fullmatch(name) and name not in needed and name not in busy]


def _checked(header: Header) -> Header:
    if header.backing is not None:
        if not BASE_NAME.fullmatch(header.backing):
            raise BadImageError(f"its backing file {header.backing!r} is not one of the repository's")
        if header.backing_format != "qcow2":
            raise BadImageError("the format of its backing file is not fixed")
    return header
