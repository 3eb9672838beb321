"""What Ceph's tools print, understood. Pure; whatever cannot be is `StorageError` 202."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError
from domzero.host.storage.uuids import UUID

T = TypeVar("T")

MARKER = re.compile(rf"domzero\.({UUID})", re.ASCII)
"""The image that says that a repository is in the pool."""
DISK = re.compile(rf"domzero\.({UUID})\.({UUID})", re.ASCII)
UNFINISHED = re.compile(rf"domzero\.({UUID})\.({UUID})\.new", re.ASCII)

_MEANINGS = (
    ("handle_auth_bad_method", numbers.SECRET_INVALID),
    ("failed to decode key", numbers.SECRET_INVALID),
    ("keyring", numbers.SECRET_INVALID),
    ("name not found", numbers.NAME_UNKNOWN),
    ("unable to parse addrs", numbers.NAME_UNKNOWN),
    ("error opening pool", numbers.REPOSITORY_UNAVAILABLE),
    ("couldn't connect to the cluster", numbers.REPOSITORY_UNAVAILABLE),
    ("(28) No space left", numbers.NO_SPACE),
    ("(122) Disk quota exceeded", numbers.NO_SPACE),
    ("(17) File exists", numbers.DISK_EXISTS),
    ("still has watchers", numbers.DISK_IN_USE),
    ("(16) Device or resource busy", numbers.DISK_IN_USE),
    ("(30) Read-only file system", numbers.DISK_IN_USE),
    ("image has snapshots", numbers.DISK_DELETE),
    ("--allow-shrink", numbers.DISK_SIZE),
    ("(1) Operation not permitted", numbers.SECRET_INVALID),
    ("(13) Permission denied", numbers.SECRET_INVALID),
    ("(2) No such file", numbers.DISK_MISSING),
    ("(110) Connection timed out", numbers.REPOSITORY_UNAVAILABLE),
    ("did not finish within", numbers.REPOSITORY_UNAVAILABLE),
    ("(5) Input/output error", numbers.INPUT_OUTPUT),
)
"""What the tools say → what it means to a client. The first that fits counts."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image. `used` is what it takes in the pool, in bytes, or -1 where that is not known."""

    name: str
    size: int
    used: int = -1


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a pool. Both are 0 where the cluster has no manager that counts them."""

    used: int
    free: int


def meaning(said: str) -> StorageError:
    """The error for what a tool said when it failed."""
    number = next((number for words, number in _MEANINGS if words in said), numbers.GENERAL)
    if "could not be started" in said:
        return StorageError(numbers.GENERAL, f"{said}; Ceph's tools are in the package ceph-common")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return StorageError(number, (lines or ["it did not say why"])[-1][-500:])


def names_in(said: bytes) -> list[str]:
    """The output of `rbd ls --format json`."""
    found = _loaded(said, list)
    if not all(isinstance(name, str) for name in found):
        raise _strange()
    return [str(name) for name in found]


def images_in(said: bytes) -> list[Image]:
    """The output of `rbd ls -l --format json`, snapshots left out."""
    return [Image(name, size) for name, size in _entries(_loaded(said, list), "image", "size")]


def usage_in(said: bytes) -> list[Image]:
    """The output of `rbd du --format json`, snapshots left out, what they take counted to their image."""
    found: dict[str, Image] = {}
    images = _loaded(said, dict).get("images")
    if not isinstance(images, list):
        raise _strange()
    used: dict[str, int] = {}
    for entry in images:
        if isinstance(entry, dict) and isinstance(entry.get("used_size"), int):
            used[str(entry.get("name"))] = used.get(str(entry.get("name")), 0) + entry["used_size"]
    for name, size in _entries(images, "name", "provisioned_size"):
        found[name] = Image(name, size, used.get(name, -1))
    return list(found.values())


def size_in(said: bytes) -> int:
    """The output of `rbd info --format json`: bytes."""
    size = _loaded(said, dict).get("size")
    if not isinstance(size, int) or size < 0:
        raise _strange()
    return size


def is_watched(said: bytes) -> bool:
    """The output of `rbd status --format json`: whether somebody has the image open."""
    watchers = _loaded(said, dict).get("watchers")
    if not isinstance(watchers, list | dict):
        raise _strange()
    return bool(watchers)


def room_in(said: bytes, pool: str) -> Room:
    """The output of `ceph df --format json`."""
    pools = _loaded(said, dict).get("pools")
    for entry in pools if isinstance(pools, list) else []:
        if isinstance(entry, dict) and entry.get("name") == pool and isinstance(entry.get("stats"), dict):
            stored, available = (entry["stats"].get(key) or 0 for key in ("stored", "max_avail"))
            if not isinstance(stored, int | float) or not isinstance(available, int | float):
                raise _strange()
            return Room(max(0, int(stored)), max(0, int(available)))
    return Room(0, 0)


def _entries(rows: list[Any], name: str, size: str) -> Iterator[tuple[str, int]]:
    for row in rows:
        if not isinstance(row, dict):
            raise _strange()
        if "snapshot" in row:
            continue
        if not isinstance(row.get(name), str) or not isinstance(row.get(size), int):
            raise _strange()
        yield row[name], row[size]


def _loaded(said: bytes, kind: type[T]) -> T:
    try:
        found = orjson.loads(said)
    except orjson.JSONDecodeError as error:
        raise _strange() from error
    if not isinstance(found, kind):
        raise _strange()
    return found


def _strange() -> StorageError:
    return StorageError(numbers.GENERAL, "what Ceph's tools print is not understood")
