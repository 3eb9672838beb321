"""Where the CD images of an `iso` repository are: what device_config says of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from domzero.host.storage import numbers
from domzero.host.storage.files.place import location_of
from domzero.host.storage.protocol import Repository, StorageError

CONFIGURATION = {
    "location": "absolute path of a directory, server:/path of an NFS export, or //server/share of an SMB share",
    "type": "nfs_iso or cifs, where the location does not tell by itself",
    "legacy_mode": "true: location is a directory of this host",
    "iso_path": "directory of the share that the images are in",
    "username": "user of an SMB share, also as DOMAIN\\user",
    "cifspassword": "the user's password",
    "vers": "version of SMB (2.0, 2.1, 3.0, 3.1.1) or with NFS of NFS",
    "nfsversion": "version of NFS (3, 4, 4.0, 4.1, 4.2)",
    "options": "further mount options, comma-separated",
}

HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])"
NFS = re.compile(rf"(?P<host>{HOST}):(?P<path>/[^\x00-\x1f\x7f]{{0,1023}})", re.ASCII)
SMB = re.compile(rf"//(?P<host>{HOST})(?P<path>/[^\x00-\x1f\x7f,]{{1,1023}})", re.ASCII)
NFS_VERSIONS = frozenset({"3", "4", "4.0", "4.1", "4.2"})
SMB_VERSIONS = frozenset({"1.0", "2.0", "2.1", "3.0", "3.1.1"})
GUARDED = ("ro", "nosuid", "nodev", "noexec")
"""Nothing of a share is ever run or written."""
NFS_OPTIONS = (*GUARDED, "soft", "timeo=50", "retrans=2", "retry=0")
"""A server that is gone makes reads fail after 15 seconds or so; see nfs(5)."""
SMB_OPTIONS = (*GUARDED, "soft", "iocharset=utf8", "noperm", "echo_interval=10")
ALLOWED = re.compile(
    r"ro|soft|tcp|guest|nolock|noac|proto=(?:tcp6?|udp6?)|(?:mount)?port=\d{1,5}|[rw]size=\d{4,7}|timeo=\d{1,3}"
    r"|retrans=\d|actimeo=\d{1,5}|sec=(?:sys|krb5[ip]?|ntlm|ntlmv2|ntlmssp|ntlmsspi|none)|domain=[A-Za-z0-9._-]{1,64}"
    r"|(?:nfs)?vers=\d(?:\.\d){0,2}|cache=(?:none|strict|loose)",
    re.ASCII,
)
"""What an operator may add. Whatever would change where files come from or who may use them is not among it."""
CREDENTIAL_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Share:
    """A share as `mount` is told of it. The password travels apart from the options."""

    type: str
    source: str
    options: tuple[str, ...]
    inside: PurePosixPath
    """The images' directory, within the share."""
    password: str | None = field(default=None, repr=False)

    @property
    def failure(self) -> int:
        """The number of errors in mounting it."""
        return numbers.NFS_MOUNT if self.type == "nfs" else numbers.SMB_MOUNT


def images_of(repository: Repository) -> Path | Share:
    """A directory of this host, or a share. Raises `StorageError` 94, 225, 111, 72 or 1 for what cannot be."""
    config = repository.device_config
    location, kind = config.get("location", "").replace("\\", "/"), config.get("type", "")
    if kind not in ("", "nfs_iso", "cifs"):
        raise StorageError(numbers.INVALID_ARGUMENT, f"the type of an ISO repository is nfs_iso or cifs, not {kind!r}")
    local = location.startswith("/") and not location.startswith("//") and not kind
    if not location or local or (config.get("legacy_mode", "").lower() == "true" and not kind):
        return location_of(repository)
    if kind == "cifs" or (not kind and location.startswith("//")):
        return _smb(location, config)
    if NFS.fullmatch(location):
        return Share("nfs", location, _nfs_options(config), _inside(config))
    if ":" not in location:
        raise StorageError(numbers.LOCATION_MISSING, f"location must be a plain absolute path, not {location!r}")
    raise StorageError(numbers.ISO_LOCATION, f"an NFS location is server:/path, not {location!r}")


def _smb(location: str, config: Mapping[str, str]) -> Share:
    if not SMB.fullmatch(location) or ".." in location.split("/"):
        raise StorageError(numbers.ISO_LOCATION, f"an SMB location is //server/share, not {location!r}")
    version = config.get("vers", "")
    if version and version not in SMB_VERSIONS:
        raise StorageError(numbers.INVALID_ARGUMENT, f"{version!r} is no version of SMB")
    who, password = _user(config)
    versions = (f"vers={version}",) if version else ()
    return Share("cifs", location, (*SMB_OPTIONS, *versions, *who, *_further(config)), _inside(config), password)


def _user(config: Mapping[str, str]) -> tuple[tuple[str, ...], str | None]:
    user, password = config.get("username", ""), config.get("cifspassword", "")
    if not user:
        return ("guest",), None
    domain, _, name = user.replace("\\", "/").rpartition("/")
    for text in (name, domain, password):
        if len(text) > CREDENTIAL_LIMIT or (text and not text.isprintable()):
            raise StorageError(numbers.SECRET_INVALID, "a user name or password is too long or has odd characters")
    if not name or re.search(r"[,=%/]", name + domain):
        raise StorageError(numbers.SECRET_INVALID, f"{user!r} is no user name that can be mounted with")
    return (f"username={name}", *((f"domain={domain}",) if domain else ())), password


def _nfs_options(config: Mapping[str, str]) -> tuple[str, ...]:
    version = config.get("nfsversion", "") or config.get("vers", "")
    if version and version not in NFS_VERSIONS:
        raise StorageError(numbers.NFS_VERSION, f"{version!r} is no version of NFS")
    return (*NFS_OPTIONS, *((f"vers={version}",) if version else ()), *_further(config))


def _further(config: Mapping[str, str]) -> tuple[str, ...]:
    text = config.get("options", "").strip().removeprefix("-o").strip()
    options = tuple(option.strip() for option in text.split(",") if option.strip())
    for option in options:
        if not ALLOWED.fullmatch(option):
            raise StorageError(numbers.INVALID_ARGUMENT, f"the mount option {option!r} is not allowed")
    return options


def _inside(config: Mapping[str, str]) -> PurePosixPath:
    """Raises `StorageError` 225 for a way out of the share."""
    path = PurePosixPath("/", config.get("iso_path", "") or "/")
    if ".." in path.parts or not str(path).isprintable():
        raise StorageError(numbers.ISO_LOCATION, f"iso_path {str(path)!r} leads out of the share")
    return path.relative_to("/")
