"""What device_config says of an NFS repository, and how tools are told. Pure; the options are those of nfs(5)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from domzero.host.storage import numbers
from domzero.host.storage.menus import NfsExport
from domzero.host.storage.mounts import MountRequest
from domzero.host.storage.protocol import StorageError

CONFIGURATION = {
    "server": "name or address of the server",
    "serverpath": "path that the server exports; each repository is a directory in it",
    "options": "further mount options, comma-separated",
    "nfsversion": "3, 4, 4.0, 4.1 or 4.2; what the server likes best where it is not given",
}

SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|[0-9A-Fa-f:]{2,39}(?:%[A-Za-z0-9._-]{1,15})?", re.ASCII)
PATH_LIMIT = 1023
VERSIONS = frozenset({"3", "4", "4.0", "4.1", "4.2"})
ALLOWED = re.compile(
    r"tcp|proto=(?:tcp6?|rdma)|(?:mount)?port=[1-9]\d{0,4}|[rw]size=[1-9]\d{3,6}|sec=(?:sys|krb5[ip]?)|nconnect=\d{1,2}"
    r"|ac|noac|actimeo=\d{1,4}|ac(?:reg|dir)(?:min|max)=\d{1,4}|lookupcache=(?:all|none|pos|positive)"
    r"|noatime|nodiratime|relatime|soft|softerr|(?:no)?resvport|(?:no)?sharecache|fsc|async|sync"
    r"|timeo=(?P<timeo>[1-9]\d{0,2})|retrans=(?P<retrans>\d{1,2})",
    re.ASCII,
)
"""What an operator may add: nothing that lets a dead server hang this host, nor that trusts what is on the server."""
LONGEST_TIMEO = 600
MOST_RETRANS = 10
OPTIONS = (
    "rw",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "soft",
    "timeo=100",
    "retrans=3",
    "retry=0",
    "acdirmin=0",
    "acdirmax=0",
)
"""What is asked of a server that is gone fails after 100 seconds (10, 20, 30 and 40). Other hosts' new files show."""


@dataclass(frozen=True, slots=True)
class Export:
    """A directory of a server, and how it is mounted."""

    server: str
    path: str
    options: tuple[str, ...]

    def request(self) -> MountRequest:
        """What is to be mounted."""
        server = f"[{self.server}]" if ":" in self.server else self.server
        return MountRequest("nfs", f"{server}:{self.path}", self.options)


def server_of(device_config: Mapping[str, str]) -> str:
    """Raises `StorageError` 102 for no server, or what cannot be the name of one."""
    server = device_config.get("server", "").removeprefix("[").removesuffix("]")
    if not SERVER.fullmatch(server):
        text = f"{server!r} is no server" if server else "device_config has no server"
        raise StorageError(numbers.SERVER_MISSING, text)
    return server


def export_of(device_config: Mapping[str, str]) -> Export | None:
    """None where no serverpath is given. Raises `StorageError` 102, 103, 72, or 1 for an option that is not allowed."""
    server, path = server_of(device_config), device_config.get("serverpath", "")
    version = device_config.get("nfsversion", "")
    if version and version not in VERSIONS:
        raise StorageError(numbers.NFS_VERSION, f"{version!r} is no version of NFS")
    options = (*OPTIONS, *((f"vers={version}",) if version else ()), *further(device_config.get("options", "")))
    if not path:
        return None
    odd = not path.startswith("/") or not path.isprintable() or ".." in path.split("/")
    if odd or len(path.encode()) > PATH_LIMIT:
        raise StorageError(numbers.SERVER_PATH_BAD, f"{path!r} is no absolute path")
    return Export(server, posixpath.normpath(path).replace("//", "/"), options)


def further(text: str) -> tuple[str, ...]:
    """The options that an operator adds. Raises `StorageError` 1 for one that is not allowed."""
    options = tuple(option for option in (word.strip() for word in text.removeprefix("-o").split(",")) if option)
    for option in options:
        match = ALLOWED.fullmatch(option)
        if not match or int(match["timeo"] or 0) > LONGEST_TIMEO or int(match["retrans"] or 0) > MOST_RETRANS:
            raise StorageError(numbers.INVALID_ARGUMENT, f"the mount option {option!r} is not allowed")
    return options


def list_arguments(server: str) -> list[str]:
    """The command that lists a server's exports (showmount(8))."""
    return ["showmount", "--no-headers", "--exports", server]


def exports_in(said: str) -> list[NfsExport]:
    """What that command prints: paths, which may have blanks, and after the last blank who may use them."""
    rows = (line.rstrip().rpartition(" ") for line in said.splitlines() if line.startswith("/"))
    return [NfsExport(path.rstrip() or clients, clients if path else "*") for path, _, clients in rows]


def meaning(said: str) -> int:
    """The number of an error that `mount` printed."""
    if "No such file or directory" in said or "access denied" in said or "Not a directory" in said:
        return numbers.SERVER_PATH_BAD
    if "version or transport protocol is not supported" in said or "Protocol not supported" in said:
        return numbers.NFS_VERSION
    return numbers.NFS_MOUNT
