"""Disks from elsewhere that are to be copied. Blocking."""

from __future__ import annotations

from pathlib import Path

from domzero.host.hypervisor.spec import DiskFormat, DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files import vhd
from domzero.host.storage.files.making import read_chain
from domzero.host.storage.files.plain import opened
from domzero.host.storage.files.qcow2 import BadImageError
from domzero.host.storage.protocol import StorageError


def check_source(source: DiskSource) -> None:
    """Raises `StorageError` for what is not there (144), and for a file whose header is not to be followed (65)."""
    if not isinstance(source.place, Path):
        return
    path = source.place
    if source.format is DiskFormat.QCOW2:
        read_chain(path.parent, path.name)
    elif source.format is DiskFormat.VPC:
        _check_vhd(path)
    elif not (path.is_file() or path.is_block_device()):
        raise StorageError(numbers.DISK_MISSING, f"{path} is not there")


def _check_vhd(path: Path) -> None:
    try:
        with opened(path.parent, path.name) as (descriptor, _):
            vhd.read_virtual_size(descriptor)
    except OSError as error:
        raise numbers.from_os(error, numbers.DISK_MISSING) from error
    except BadImageError as error:
        raise StorageError(numbers.DISK_UNREADABLE, f"{path} is not used: {error}") from error
