"""LVM's own tools, told to look at one repository's devices and at nothing else.

They run with settings of ours (`settings/lvm.conf`), never with the operator's, and name their devices themselves:
other volume groups of the host are neither read nor changed. See lvm(8), "Common options": --devices, --driverloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from domzero.host.process import ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.lvm import report as lvm_report
from domzero.host.storage.lvm.report import Group, Physical, Volume
from domzero.host.storage.protocol import StorageError
from domzero.host.storage.worker import Workers

LVM = "lvm"
ENVIRONMENT = {"LVM_SYSTEM_DIR": str(Path(__file__).parent / "settings"), "LVM_SUPPRESS_FD_WARNINGS": "1"}
REPORT = ("--reportformat", "json", "--units", "b", "--nosuffix")

MEANINGS = (
    ("nsufficient free", numbers.NO_SPACE),
    ("nsufficient suitable", numbers.NO_SPACE),
    ("not enough free", numbers.NO_SPACE),
    ("VG metadata too large", numbers.NO_SPACE),
    ("already exists in volume group", numbers.DISK_EXISTS),
    ("A volume group called", numbers.REPOSITORY_EXISTS),
    ("exclusively", numbers.REPOSITORY_IN_USE),
    ("in use", numbers.DISK_IN_USE),
    ("is used by another device", numbers.DISK_IN_USE),
    ("Failed to find logical volume", numbers.DISK_MISSING),
    ("while PVs are missing", numbers.REPOSITORY_UNAVAILABLE),
    ("not found", numbers.REPOSITORY_UNAVAILABLE),
    ("Input/output error", numbers.INPUT_OUTPUT),
    ("Error reading device", numbers.INPUT_OUTPUT),
    ("Error writing device", numbers.INPUT_OUTPUT),
    ("read failed", numbers.INPUT_OUTPUT),
    ("write failed", numbers.INPUT_OUTPUT),
    ("did not finish within", numbers.INPUT_OUTPUT),
    ("hecksum error", numbers.LVM_METADATA),
    ("nconsistent metadata", numbers.LVM_METADATA),
    ("Failed to write VG", numbers.LVM_WRITE),
)
"""What LVM says → what it means to a client. The first that fits counts."""

VERBS = {
    "vgcreate": numbers.LVM_GROUP_CREATE,
    "vgremove": numbers.LVM_DELETE,
    "pvremove": numbers.LVM_DELETE,
    "lvcreate": numbers.DISK_CREATE,
    "lvremove": numbers.DISK_DELETE,
    "lvextend": numbers.LVM_RESIZE,
    "lvreduce": numbers.LVM_RESIZE,
    "lvrename": numbers.LVM_WRITE,
    "lvchange": numbers.LVM_WRITE,
    "vgchange": numbers.LVM_ATTACH,
}
"""What it means that a command failed for another reason."""

TIMEOUT = 60.0


class LvmTool:
    """Runs LVM's commands on `devices`. `mapped`: with the kernel's device mapper, else on metadata alone.

    Every call ends within a bounded time. Failures are `StorageError`. A call that was begun is finished even when it
    is cancelled, so that whoever undoes it finds it done or not done.
    """

    def __init__(self, devices: Iterable[Path], *, mapped: bool, workers: Workers) -> None:
        self.devices = tuple(devices)
        self.mapped = mapped
        self.workers = workers

    async def call(self, verb: str, *arguments: str) -> bytes:
        """What a command prints; it must succeed."""
        argv = [LVM, verb, "--devices", ",".join(map(str, self.devices)), *self._driver(), *arguments]
        try:
            said = await self.workers.attend(lambda: run(argv, timeout=TIMEOUT, environment=ENVIRONMENT))
        except ProcessError as error:
            raise meaning(verb, str(error)) from error
        return said.stdout

    async def groups(self) -> list[Group]:
        """Every volume group on the devices."""
        return lvm_report.groups(await self.call("vgs", *REPORT, "-o", lvm_report.GROUP_COLUMNS))

    async def physical(self) -> list[Physical]:
        """Every physical volume among the devices."""
        return lvm_report.devices(await self.call("pvs", *REPORT, "-o", lvm_report.DEVICE_COLUMNS))

    async def volumes(self, group: str) -> list[Volume]:
        """Every volume of a group."""
        said = await self.call("lvs", "--segments", *REPORT, "-o", lvm_report.VOLUME_COLUMNS, group)
        return lvm_report.volumes(said)

    async def volume(self, group: str, name: str) -> Volume:
        """One volume. Raises `StorageError` 144 where there is none of that name."""
        said = await self.call("lvs", "--segments", *REPORT, "-o", lvm_report.VOLUME_COLUMNS, f"{group}/{name}")
        found = [volume for volume in lvm_report.volumes(said) if volume.name == name]
        if not found:
            raise StorageError(numbers.DISK_MISSING, f"there is no volume {name}")
        return found[0]

    def _driver(self) -> list[str]:
        return [] if self.mapped else ["--driverloaded", "n"]


def meaning(verb: str, said: str) -> StorageError:
    """The error that a failed command stands for."""
    plain = "\n".join(line for line in said.splitlines() if "WARNING: Activation disabled" not in line)
    number = next((number for words, number in MEANINGS if words in plain), VERBS.get(verb, numbers.LVM_ATTACH))
    if verb == "vgcreate" and number == numbers.DISK_IN_USE:
        number = numbers.REPOSITORY_IN_USE
    return StorageError(number, plain)
