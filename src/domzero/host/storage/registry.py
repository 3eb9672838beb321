"""Which storage drivers there are, and how each is made: the built-in ones, and those that other packages bring.

A package brings a driver by an entry point of the group `domzero.storage`: its name is the SR type, its object a
factory like those in `BUILT_IN`. See docs/howto-add-a-storage-driver.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from domzero.host.storage import numbers
from domzero.host.storage.files.place import Ownership
from domzero.host.storage.protocol import StorageDriver, StorageError

log = logging.getLogger(__name__)

GROUP = "domzero.storage"
"""The group of the entry points."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a driver is told of the host that it works on."""

    state_dir: Path
    """The daemon's directory. What a driver has to remember beyond its media belongs below `state_dir/storage/TYPE`."""
    runtime_dir: Path
    """For sockets and process numbers; empty after a boot of the host."""
    mounts: Path
    """File systems are mounted in directories in here, each named by its repository's uuid."""
    owner: Ownership | None = None
    """The user that the disks' files are given to, where it is another than the daemon's."""


Factory = Callable[[Surroundings], StorageDriver]
"""Makes a driver without touching a medium. Raises `StorageError` where this host cannot have it at all."""


def _dummy(surroundings: Surroundings) -> StorageDriver:
    from domzero.host.clock import SystemClock
    from domzero.host.storage.dummy import DummyStorage

    return DummyStorage(SystemClock(), surroundings.state_dir / "storage" / "dummy")


def _ext(surroundings: Surroundings) -> StorageDriver:
    _require_root("file systems are mounted")
    from domzero.host.storage.files.ext import ExtStorage

    return ExtStorage(surroundings.mounts, owner=surroundings.owner)


def _file(surroundings: Surroundings) -> StorageDriver:
    from domzero.host.storage.files.file import FileStorage

    return FileStorage(owner=surroundings.owner)


def _iscsi(_: Surroundings) -> StorageDriver:
    from domzero.host.storage.iscsi.driver import IscsiStorage
    from domzero.host.storage.iscsi.name import our_name

    return IscsiStorage(our_name())


def _iso(surroundings: Surroundings) -> StorageDriver:
    from domzero.host.storage.iso.driver import IsoStorage

    return IsoStorage(surroundings.mounts)


def _lvm(_: Surroundings) -> StorageDriver:
    _require_root("volumes are made")
    from domzero.host.storage.lvm.driver import LvmStorage

    return LvmStorage()


def _lvmoiscsi(_: Surroundings) -> StorageDriver:
    _require_root("volumes are made")
    from domzero.host.storage.iscsi.name import our_name
    from domzero.host.storage.lvm.over_iscsi import lvm_over_iscsi

    return lvm_over_iscsi(our_name())


def _nfs(surroundings: Surroundings) -> StorageDriver:
    _require_root("file systems are mounted")
    from domzero.host.storage.files.nfs import NfsStorage

    return NfsStorage(surroundings.mounts, owner=surroundings.owner)


def _rbd(_: Surroundings) -> StorageDriver:
    from domzero.host.storage.rbd.driver import RbdStorage

    return RbdStorage()


def _udev(_: Surroundings) -> StorageDriver:
    from domzero.host.storage.udev.driver import UdevStorage

    return UdevStorage()


def _require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise StorageError(numbers.GENERAL, f"{what} by root alone")


BUILT_IN: Mapping[str, Factory] = {
    "dummy": _dummy,
    "ext": _ext,
    "file": _file,
    "iscsi": _iscsi,
    "iso": _iso,
    "lvm": _lvm,
    "lvmoiscsi": _lvmoiscsi,
    "nfs": _nfs,
    "rbd": _rbd,
    "udev": _udev,
}
"""SR type → factory. Each imports its driver only when it is called."""


def make_drivers(surroundings: Surroundings) -> dict[str, StorageDriver]:
    """Every driver that this host can have, by type. What cannot be made is logged and left out."""
    factories = {**dict(_foreign(entry_points(group=GROUP))), **BUILT_IN}
    made = ((type, _made(type, factory, surroundings)) for type, factory in sorted(factories.items()))
    return {type: driver for type, driver in made if driver is not None}


def _foreign(found: Iterable[EntryPoint]) -> Iterator[tuple[str, Factory]]:
    for entry in found:
        if entry.name in BUILT_IN:
            log.warning("the storage driver %s is left out: type %r is built in", entry.value, entry.name)
        else:
            yield entry.name, _loader(entry)


def _loader(entry: EntryPoint) -> Factory:
    def load(surroundings: Surroundings) -> StorageDriver:
        driver: StorageDriver = entry.load()(surroundings)
        return driver

    return load


def _made(type: str, factory: Factory, surroundings: Surroundings) -> StorageDriver | None:
    try:
        driver = factory(surroundings)
        told = driver.info().type
    except StorageError as error:
        log.info("storage of type %r is not to be had here: %s", type, error.text)
        return None
    except Exception:  # the driver of another package must not keep the host from starting
        log.exception("the storage driver of type %r cannot be used", type)
        return None
    if told != type:
        log.error("the storage driver of type %r is left out: it calls itself %r", type, told)
        return None
    return driver
