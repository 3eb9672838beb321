"""Repositories of type `ext`: a disk, a partition or an image file of this host, formatted as ext4 and mounted.

The file system's uuid is the repository's, so that it is known again whatever its device is called by then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from domzero.finish import in_thread
from domzero.host.process import Completed, ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.files.directory import DirectoryStorage
from domzero.host.storage.files.file import CAPABILITIES
from domzero.host.storage.files.place import Ownership, Step
from domzero.host.storage.lvm.devices import take_unused, unused_devices
from domzero.host.storage.menus import device_menu
from domzero.host.storage.mounts import MountRequest, mount, mounted_at, point_of, unmount
from domzero.host.storage.protocol import DriverInfo, ProbedRepository, Repository, StorageError
from domzero.host.storage.uuids import UUID_PATTERN
from domzero.host.storage.worker import PATIENCE, Workers

INFO = DriverInfo(
    type="ext",
    name="Local ext4 file system",
    description="Disks are files (qcow2, VHD or raw) on a local disk of their own; clones and snapshots share blocks",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=tuple(sorted(("SR_PROBE", *CAPABILITIES))),
    configuration={
        "device": "path of the block device or image file to format",
        "force": "true to format the device although it holds something, which is lost",
    },
)
LABEL = "domzero-"
"""How the labels of our file systems begin; the rest is the beginning of the uuid. A label has 16 bytes at most."""
BY_UUID = Path("/dev/disk/by-uuid")
OPTIONS = ("rw", "nosuid", "nodev", "noexec", "noatime")
TOOL_TIMEOUT = 20.0
FORMAT_TIMEOUT = 600.0
NOTHING_FOUND = 2
"""blkid's code where it recognises nothing (blkid(8))."""


class ExtMedium:
    """Implements `Medium`. File systems are mounted in directories below `mounts`, named by the repository's uuid."""

    patience = PATIENCE
    shared = False
    mode = 0o600
    whole = True

    def __init__(self, mounts: Path) -> None:
        self._mounts = mounts

    def info(self) -> DriverInfo:
        return INFO

    async def probe(
        self,
        device_config: Mapping[str, str],
        sm_config: Mapping[str, str],  # noqa: ARG002 - says nothing of the device
    ) -> list[ProbedRepository]:
        device = await _device(device_config)
        found = await identify(device)
        uuid = found.get("UUID", "")
        if found.get("TYPE") != "ext4" or not found.get("LABEL", "").startswith(LABEL):
            return []
        return [ProbedRepository(uuid, await in_thread(_size, device), devices=(str(device),))]

    async def create(self, repository: Repository) -> None:
        point_of(self._mounts, repository)
        device = await _device(repository.device_config)
        await self._release(device)
        await _refuse_loop(device)
        await take_unused([device], (), force=repository.device_config.get("force") == "true")
        await _tool(format_arguments(device, repository.uuid), numbers.FILE_SYSTEM, FORMAT_TIMEOUT)

    async def attach(self, repository: Repository) -> Path:
        point = point_of(self._mounts, repository)
        here = mounted_at(point)
        if here is None:
            device = await _find(repository)
            loop = () if await in_thread(device.is_block_device) else ("loop",)
            await mount(MountRequest("ext4", str(device), (*OPTIONS, *loop)), point, self._workers(repository))
        elif here.type != "ext4":
            raise StorageError(numbers.REPOSITORY_IN_USE, f"something else is mounted at {point}")
        return point

    async def detach(self, repository: Repository) -> None:
        point = point_of(self._mounts, repository)
        here = mounted_at(point)
        if here is not None and here.type == "ext4":
            await unmount(point, numbers.REPOSITORY_IN_USE)

    async def erase(self, repository: Repository) -> None:
        """Only the signature: what the disks held is not overwritten. A device that holds nothing is left alone."""
        try:
            device = await _find(repository)
        except StorageError:
            if await identify(await _device(repository.device_config)):
                raise
            return
        await take_unused([device], (), force=True)

    async def _release(self, device: Path) -> None:
        """Unmount what a `create` that was killed has left mounted. A repository that is attached stays in use."""
        uuid = (await identify(device)).get("UUID", "")
        if UUID_PATTERN.fullmatch(uuid) and mounted_at(self._mounts / uuid) is not None:
            await unmount(self._mounts / uuid, numbers.REPOSITORY_IN_USE)

    def _workers(self, repository: Repository) -> Workers:
        return Workers(f"repository {repository.uuid}", self.patience)


class ExtStorage(DirectoryStorage):
    """Implements `StorageDriver`; see `DirectoryStorage`."""

    def __init__(
        self,
        mounts: Path,
        *,
        owner: Ownership | None = None,
        step: Step = lambda _: None,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        super().__init__(ExtMedium(mounts), owner=owner, step=step, new_uuid=new_uuid)


def format_arguments(device: Path, uuid: str) -> list[str | Path]:
    """The command that makes the file system (mke2fs(8)); a single -F allows an image file, but no mounted device."""
    return ["mkfs.ext4", "-q", "-F", "-m", "0", "-U", uuid, "-L", f"{LABEL}{uuid[:8]}", device]


async def identify(device: Path) -> dict[str, str]:
    """What blkid finds on a device, without asking any cache: TYPE, UUID, LABEL, PTTYPE … Empty for nothing."""
    said = await _tool(["blkid", "-p", "-o", "export", device], numbers.DEVICE_INVALID, check=False)
    if said.returncode not in (0, NOTHING_FOUND):
        text = said.stderr.decode(errors="replace").strip()
        raise StorageError(numbers.DEVICE_INVALID, f"what is on {device} cannot be told: {text}")
    lines = said.stdout.decode(errors="replace").splitlines()
    return {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}


async def _device(device_config: Mapping[str, str]) -> Path:
    """The device that is named. Raises `StorageError` 90, with a menu, for none, and 91 for what cannot be one."""
    name = device_config.get("device", "")
    if not name:
        raise StorageError(numbers.DEVICE_MISSING, "device_config has no device", device_menu(await unused_devices()))
    return await Workers(name).run(_resolve, name)


def _resolve(name: str) -> Path:
    if "," in name:
        raise StorageError(numbers.DEVICE_INVALID, "an ext repository is on one device, and several are named")
    if not os.path.isabs(name) or os.path.normpath(name) != name or not name.isprintable():
        raise StorageError(numbers.DEVICE_INVALID, f"device must be a plain absolute path, not {name!r}")
    try:
        path = Path(name).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise StorageError(numbers.DEVICE_INVALID, f"{name} is not there") from error
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        raise StorageError(numbers.DEVICE_INVALID, f"{name} is neither a block device nor an image file")
    return path


async def _find(repository: Repository) -> Path:
    """The device that holds the repository, under its name of today. Raises `StorageError` 47 where there is none."""
    named: list[Path] = []
    try:
        named.append(await _device(repository.device_config))
    except StorageError as error:
        if error.number != numbers.DEVICE_INVALID:
            raise
    for device in (*named, BY_UUID / repository.uuid):
        if await in_thread(device.exists):
            found = await identify(device)
            if (found.get("TYPE"), found.get("UUID")) == ("ext4", repository.uuid):
                return device
    name = repository.device_config.get("device", "")
    raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"{name} does not hold repository {repository.uuid}")


async def _refuse_loop(device: Path) -> None:
    """An image file that a loop device has open is in use, and Linux would not say so."""
    if await in_thread(device.is_block_device):
        return
    said = await _tool(["losetup", "--associated", device], numbers.DEVICE_INVALID)
    if said.stdout.strip():
        raise StorageError(numbers.REPOSITORY_IN_USE, f"{device} is in use by a loop device")


async def _tool(
    argv: list[str | Path], failure: int, timeout: float = TOOL_TIMEOUT, *, check: bool = True
) -> Completed:
    try:
        return await Workers(str(argv[-1])).attend(lambda: run(argv, timeout=timeout, check=check), timeout + 5)
    except ProcessError as error:
        raise StorageError(failure, str(error)) from error


def _size(device: Path) -> int:
    try:
        with device.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise numbers.from_os(error, numbers.DEVICE_INVALID) from error
