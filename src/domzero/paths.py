"""Where domzero keeps things when nobody says otherwise: the usual places of a system service, or of a person."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CLASSIC_SOCKETS = (Path("/var/lib/xcp/xapi"), Path("/var/xapi/xapi"))
"""Where XenServer's own local clients look: today's (the official binding's `xapi_local`), and those of 4.1."""


def state_dir(environment: Mapping[str, str] = os.environ, *, root: bool | None = None) -> Path:
    """What lasts: database, certificates, default storage, logs."""
    if _is_root(root):
        return Path("/var/lib/domzero")
    offered = _directory(environment, "XDG_DATA_HOME")
    return (offered or (_directory(environment, "HOME") or Path("/")) / ".local/share") / "domzero"


def runtime_dir(state: Path, environment: Mapping[str, str] = os.environ, *, root: bool | None = None) -> Path:
    """What is of this boot: sockets and process files. Next to the state where the system offers no place."""
    if _is_root(root):
        return Path("/run/domzero")
    offered = _directory(environment, "XDG_RUNTIME_DIR")
    return offered / "domzero" if offered else state / "run"


def socket_path(runtime: Path) -> Path:
    """The Unix socket for local clients."""
    return runtime / "xapi"


def _directory(environment: Mapping[str, str], name: str) -> Path | None:
    """A directory that the environment offers; what is empty or relative does not count (XDG base directories)."""
    offered = Path(environment.get(name, ""))
    return offered if offered.is_absolute() else None


def _is_root(root: bool | None) -> bool:
    return os.geteuid() == 0 if root is None else root
