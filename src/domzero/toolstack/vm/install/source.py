"""The address of an installation repository, as `install-repository` says it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from domzero.host.download.protocol import is_fetchable

CDROM = "cdrom"
NFS = "nfs"
ADDRESS_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a repository is. `kind` is http, https, ftp, nfs or cdrom; `path` begins and does not end with a slash,
    except for the root's, which is empty."""

    kind: str
    address: str = ""
    """With user and password if there are any: to fetch from, never to show."""
    host: str = ""
    """With the port if there is one."""
    path: str = ""

    @property
    def public(self) -> str:
        """The address without user and password: for messages and for kernel arguments, which anybody can read."""
        if self.kind == CDROM:
            return CDROM
        return f"{self.kind}://{self.host}{self.path}"

    def file(self, path: str) -> str:
        """The address of a file of the repository."""
        return f"{self.address}/{path}"


def read_repository(text: str) -> Repository | None:
    """What an address stands for; None for one that cannot be used.

    Besides addresses as browsers know them there are `cdrom`, and NFS as in `nfs:server:/path`.
    """
    text = text.strip()
    if text == CDROM:
        return Repository(CDROM)
    if not text.isprintable() or " " in text or len(text) > ADDRESS_LIMIT:
        return None
    if text.startswith("nfs:"):
        return _nfs(text)
    if not is_fetchable(text):
        return None
    parts = urlsplit(text)
    if parts.query or parts.fragment or not _has_port(parts):
        return None
    path = parts.path.rstrip("/")
    address = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Repository(parts.scheme, address, parts.netloc.rpartition("@")[2], path)


def _has_port(parts: SplitResult) -> bool:
    """Whether the port, if there is one, is a number that a port can have."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _nfs(text: str) -> Repository | None:
    rest = text.removeprefix("nfs:")
    if rest.startswith("//"):
        host, found, path = rest[2:].partition("/")
    else:
        host, found, path = rest.partition(":")
    path = f"/{path.strip('/')}"
    if not host or not found or any(letter in host for letter in "/:@") or ".." in path.split("/"):
        return None
    return Repository(NFS, f"nfs://{host}{path}", host, path.rstrip("/"))
