"""The kernel's iSCSI initiator, through open-iscsi: sessions of our own with targets, and the block devices they bring.

Sessions run over interfaces of our own (iscsiadm(8), "iface"), so that they are never taken for the operator's, nor the
other way round. Secrets go into the node records, files of mode 0600, and never into an argument list.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from pathlib import Path

from domzero.finish import in_thread
from domzero.host.process import Completed, ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.iscsi import records
from domzero.host.storage.iscsi.settings import Chap, IscsiSettings
from domzero.host.storage.lvm.group import LOCKS, take_lock
from domzero.host.storage.protocol import StorageError

log = logging.getLogger(__name__)

ISCSIADM = "iscsiadm"
TIMEOUT = 60.0
SETTLING = 20

SESSION_EXISTS = 15
NOTHING_FOUND = 21

FAILURES = {
    4: numbers.ISCSI_TARGET,
    5: numbers.ISCSI_LOGIN,
    8: numbers.ISCSI_TARGET,
    10: numbers.ISCSI_LOGOUT,
    11: numbers.ISCSI_TARGET,
    12: numbers.ISCSI_DAEMON,
    13: numbers.ISCSI_INITIATOR,
    18: numbers.ISCSI_DAEMON,
    19: numbers.ISCSI_LOGIN,
    20: numbers.ISCSI_DAEMON,
    23: numbers.NAME_UNKNOWN,
    24: numbers.ISCSI_LOGIN,
}
"""What iscsiadm's exit codes mean (iscsiadm(8), "EXIT STATUS")."""


class Initiator:
    """Logs in to targets and out again. All methods end within a bounded time and raise `StorageError`.

    The paths are open-iscsi's database (None: where this distribution has it), the kernel's directories, and where lock
    files go: whoever uses a session holds its file shared, so that no process ends the session of another.
    """

    def __init__(
        self,
        *,
        database: Path | None = None,
        sessions: Path = Path("/sys/class/iscsi_session"),
        transports: Path = Path("/sys/class/iscsi_transport"),
        devices: Path = Path("/dev"),
        locks: Path = LOCKS,
    ) -> None:
        self._database = database or records.database()
        self._sessions = sessions
        self._transports = transports
        self._devices = devices
        self._locks = locks
        self._held: dict[str, int] = {}

    async def log_in(self, settings: IscsiSettings, incoming: Chap | None = None) -> None:
        """Have a session with a target; doing it twice is no error. `incoming` is who the target has to prove to be.

        Also one that fails is to be followed by `log_out`, when nobody in this process has the session any more.
        Raises `StorageError` 70 without open-iscsi, 71 without the kernel's part or iscsid, 68 for a login that is
        refused, 141 for a target that does not answer.
        """
        await self._check_kernel()
        await in_thread(self._take, settings)
        if not await in_thread(self._session_of, settings):
            await in_thread(records.write_interface, self._database, settings)
            await self._node(settings, "--op", "delete", accept=(NOTHING_FOUND, SESSION_EXISTS))
            await self._node(settings, "--op", "new")
            await in_thread(records.write_credentials, self._database, settings, incoming)
            await self._node(settings, "--login", accept=(SESSION_EXISTS,))

    async def device(self, settings: IscsiSettings, lun: int) -> Path:
        """The block device of a logical unit. Raises `StorageError` 67 when the kernel has none."""
        found = await self._look(settings, lun)
        if found is None:
            await self._node(settings, "--rescan")
            found = await self._look(settings, lun)
        if found is None:
            raise StorageError(numbers.ISCSI_DEVICE, f"the kernel found no disk at unit {lun} of {settings.iqn}")
        return found

    async def log_out(self, settings: IscsiSettings) -> None:
        """End the session and forget its credentials, unless somebody uses one of its disks. Twice is no error."""
        if not await in_thread(self._is_last, settings):
            return
        try:
            await self._end(settings)
        finally:
            os.close(self._held.pop(_session_name(settings)))

    async def _end(self, settings: IscsiSettings) -> None:
        session = await in_thread(self._session_of, settings)
        if session is not None:
            if await in_thread(_any_in_use, records.disks_of(session), self._devices):
                log.info("the session with %s stays: one of its disks is in use", settings.iqn)
                return
            await self._node(settings, "--logout", accept=(NOTHING_FOUND,))
        await self._node(settings, "--op", "delete", accept=(NOTHING_FOUND,))
        await in_thread(records.remove_interface, self._database, settings)

    def _take(self, settings: IscsiSettings) -> None:
        """Be one of those who use a session. Blocking. Raises `StorageError` 16 while another process ends it."""
        name = _session_name(settings)
        if name not in self._held:
            self._held[name] = take_lock(self._locks / name, shared=True)

    def _is_last(self, settings: IscsiSettings) -> bool:
        """Whether no other process uses the session; if one does, it is let go of. Blocking."""
        name = _session_name(settings)
        if name not in self._held:
            return False
        try:
            fcntl.flock(self._held[name], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._held.pop(name))
            return False
        return True

    async def _check_kernel(self) -> None:
        transport = self._transports / "tcp"
        if await in_thread(transport.exists):
            return
        await self._tool("modprobe", "iscsi_tcp")
        if not await in_thread(transport.exists):
            text = "this kernel has no iSCSI initiator: it was built without CONFIG_ISCSI_TCP, or lacks the module"
            raise StorageError(numbers.ISCSI_DAEMON, text)

    async def _look(self, settings: IscsiSettings, lun: int) -> Path | None:
        await self._tool("udevadm", "settle", f"--timeout={SETTLING}")
        session = await in_thread(self._session_of, settings)
        if session is None:
            return None
        name = await in_thread(records.disk_of, session, lun)
        return self._devices / name if name else None

    def _session_of(self, settings: IscsiSettings) -> Path | None:
        return records.session_of(self._sessions, settings.iqn, records.interface_name(settings))

    async def _node(self, settings: IscsiSettings, *arguments: str, accept: tuple[int, ...] = ()) -> None:
        name = records.interface_name(settings)
        argv = ["-m", "node", "-T", settings.iqn, "-p", str(settings.portal), "-I", name, *arguments]
        finished = await self._tool(ISCSIADM, *argv)
        if finished.returncode not in (0, *accept):
            said = (finished.stderr or finished.stdout).decode(errors="replace").strip()
            number = FAILURES.get(finished.returncode, numbers.ISCSI_INITIATOR)
            raise StorageError(number, f"{settings.iqn} at {settings.portal}: {said[-1000:]}")

    async def _tool(self, *argv: str) -> Completed:
        try:
            return await run(argv, timeout=TIMEOUT, check=False)
        except ProcessError as error:
            raise StorageError(numbers.ISCSI_INITIATOR, f"{error}; open-iscsi must be installed") from error


def _session_name(settings: IscsiSettings) -> str:
    """A file's name for the session, the same in every process."""
    told = f"{settings.iqn} {records.interface_name(settings)}"
    return f"domzero-iscsi-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _any_in_use(names: list[str], devices: Path) -> bool:
    """Linux lets one user have a block device exclusively: what is mounted or mapped has it so."""
    for name in names:
        try:
            os.close(os.open(devices / name, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError:
            return True
    return False
