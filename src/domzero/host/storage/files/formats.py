"""The formats of disks' files: their names in sm_config, the ends of file names, and the sizes that each can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domzero.host.hypervisor.spec import DiskFormat
from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError

KEY = "image-format"
"""The key of sm_config."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """One format. Sizes are bytes; a virtual size is a multiple of `step`."""

    name: str
    """As sm_config says it; also the end of file names."""
    driver: DiskFormat
    step: int
    largest: int
    options: str = ""
    """What `qemu-img create` is told with -o."""

    def rounded(self, virtual_size: int) -> int:
        """A size that a disk can have. Raises `StorageError` 79 for none or too much."""
        size = -(-virtual_size // self.step) * self.step
        if not 0 < size <= self.largest:
            raise StorageError(numbers.DISK_SIZE, f"a disk of format {self.name} cannot have {virtual_size} bytes")
        return size


QCOW2 = ImageFormat("qcow2", DiskFormat.QCOW2, 512, 64 << 40)
VHD = ImageFormat("vhd", DiskFormat.VPC, 2 << 20, 2040 << 30, "subformat=dynamic,force_size=on")
"""Its sizes count blocks of 2 MiB. `force_size` stores the size itself, not the nearest disk geometry."""
RAW = ImageFormat("raw", DiskFormat.RAW, 512, (8 << 60) - (1 << 20))

FORMATS = {each.name: each for each in (QCOW2, VHD, RAW)}
PLAIN = {each.name: each for each in (VHD, RAW)}
"""Those whose disks never share layers here."""


def chosen(*sm_configs: Mapping[str, str]) -> ImageFormat:
    """The format that the first map with a word on it asks for. Raises `StorageError` 66 for an unknown one."""
    name = next((config[KEY] for config in sm_configs if config.get(KEY)), QCOW2.name)
    found = FORMATS.get(name)
    if found is None:
        raise StorageError(numbers.DISK_TYPE, f"the format {name!r} is unknown; there are {', '.join(FORMATS)}")
    return found
