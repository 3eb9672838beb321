"""The name by which this host introduces itself to iSCSI targets. Blocking."""

from __future__ import annotations

import hashlib
from pathlib import Path

from domzero.host.storage.iscsi.settings import IQN

CONFIGURED = Path("/etc/iscsi/initiatorname.iscsi")
"""Where open-iscsi keeps the name."""
MACHINE = Path("/etc/machine-id")
PREFIX = "iqn.2024-01.org.domzero"


def our_name(configured: Path = CONFIGURED, machine: Path = MACHINE) -> str:
    """The name that the operator gave this machine for iSCSI, else one that stays the same and is no other machine's.

    What the machine's identity is does not follow from the name (machine-id(5) asks for that).
    """
    for line in _lines(configured):
        name, _, value = line.partition("=")
        if name.strip() == "InitiatorName" and IQN.fullmatch(value.strip()):
            return value.strip()
    identity = next(iter(_lines(machine)), "")
    if not identity:
        return PREFIX
    return f"{PREFIX}:{hashlib.sha256(b'iscsi' + identity.encode()).hexdigest()[:12]}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
