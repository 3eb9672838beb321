"""Open-iscsi's files, and what the kernel says of its iSCSI sessions in sysfs. Blocking.

A node record is text, `name = value` line by line; iscsiadm(8) could change it too, but would be given secrets as
arguments, which every user of the host can read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from domzero.durable import replace
from domzero.host.storage import numbers
from domzero.host.storage.iscsi.settings import Chap, IscsiSettings
from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import StorageError

DATABASES = (Path("/var/lib/iscsi"), Path("/etc/iscsi"))
"""Where distributions have open-iscsi's database: the first that is there."""
INTERFACE = "iface.iscsi_ifacename"
END = "# END RECORD"
SETTINGS = {
    "node.startup": "manual",
    "node.conn[0].startup": "manual",
    "node.session.initial_login_retry_max": "2",
    "node.conn[0].timeo.login_timeout": "15",
}
"""We log in ourselves, and wait for a bounded time."""
ADDRESS = re.compile(r"[0-9]+:[0-9]+:[0-9]+:([0-9]+)", re.ASCII)
"""Host, bus, target and logical unit, as sysfs names a SCSI device."""


def database() -> Path:
    """The directory of open-iscsi's database on this host."""
    return next((path for path in DATABASES if (path / "nodes").is_dir() or (path / "ifaces").is_dir()), DATABASES[-1])


def interface_name(settings: IscsiSettings) -> str:
    """Our interface for sessions at a portal, under an initiator's name."""
    told = f"{settings.initiator} {settings.portal}"
    return f"domzero.{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def write_interface(database: Path, settings: IscsiSettings) -> None:
    """Make our interface, or make it anew."""
    name = interface_name(settings)
    said = {INTERFACE: name, "iface.transport_name": "tcp", "iface.initiatorname": settings.initiator}
    try:
        directory = database / "ifaces"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(directory / name, "".join(f"{key} = {value}\n" for key, value in said.items()))
    except OSError as error:
        raise from_os(error, numbers.ISCSI_INITIATOR) from error


def remove_interface(database: Path, settings: IscsiSettings) -> None:
    """Undo `write_interface`; twice is no error."""
    try:
        (database / "ifaces" / interface_name(settings)).unlink(missing_ok=True)
    except OSError as error:
        raise from_os(error, numbers.ISCSI_INITIATOR) from error


def write_credentials(database: Path, settings: IscsiSettings, incoming: Chap | None) -> None:
    """Put what a login takes into the record of a target, which `iscsiadm --op new` has made."""
    name = interface_name(settings)
    try:
        found = [path for path in _records(database, settings.iqn) if _value(path.read_text(), INTERFACE) == name]
        for path in found:
            _replace(path, with_credentials(path.read_text(), settings.chap, incoming))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise StorageError(numbers.ISCSI_INITIATOR, f"the record of {settings.iqn}: {reason}") from error
    if not found:
        raise StorageError(numbers.ISCSI_INITIATOR, f"open-iscsi has made no record of {settings.iqn}")


def with_credentials(record: str, chap: Chap | None, incoming: Chap | None) -> str:
    """A record with these credentials and no others. Their text has no control characters (`read_settings`)."""
    wanted = dict(SETTINGS)
    if chap is not None:
        wanted |= {"node.session.auth.authmethod": "CHAP", **_names(chap, "")}
        wanted |= _names(incoming, "_in") if incoming is not None else {}
    else:
        wanted |= {"node.session.auth.authmethod": "None"}
    kept = [line for line in record.splitlines() if line != END and not _is_replaced(line, wanted)]
    return "\n".join([*kept, *(f"{name} = {value}" for name, value in wanted.items()), END, ""])


def session_of(sessions: Path, iqn: str, interface: str) -> Path | None:
    """The kernel's session with a target over an interface, in `/sys/class/iscsi_session`, once it is logged in."""
    for session in sorted(sessions.glob("session*")):
        said = [_said(session / name) for name in ("targetname", "ifacename", "state")]
        if said == [iqn, interface, "LOGGED_IN"]:
            return session
    return None


def disk_of(session: Path, lun: int) -> str | None:
    """The name of the kernel's disk for a logical unit of a session's target."""
    return next((name for unit, name in _disks(session) if unit == lun), None)


def disks_of(session: Path) -> list[str]:
    """The names of all disks that a session has brought."""
    return [name for _, name in _disks(session)]


def _disks(session: Path) -> Iterator[tuple[int, str]]:
    for block in sorted(session.glob("device/target*/*/block/*")):
        address = ADDRESS.fullmatch(block.parents[1].name)
        if address:
            yield int(address[1]), block.name


def _names(chap: Chap, end: str) -> dict[str, str]:
    return {f"node.session.auth.username{end}": chap.user, f"node.session.auth.password{end}": chap.password}


def _is_replaced(line: str, wanted: dict[str, str]) -> bool:
    name = line.partition("=")[0].strip()
    return name in wanted or name.startswith(("node.session.auth.username", "node.session.auth.password"))


def _records(database: Path, iqn: str) -> list[Path]:
    """A target's records; with a portal group they are files in directories, without one files."""
    here = database / "nodes" / iqn
    return [path for pattern in ("*", "*/*") for path in sorted(here.glob(pattern)) if path.is_file()]


def _value(record: str, name: str) -> str:
    values = (line.partition("=") for line in record.splitlines())
    return next((value.strip() for key, _, value in values if key.strip() == name), "")


def _said(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""  # the session ends this moment


def _replace(path: Path, text: str) -> None:
    """Put a file in its place that only root can read at any moment."""
    replace(path, text.encode())
