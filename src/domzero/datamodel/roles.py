"""The six built-in roles, least first. Their uuids are those that XenServer's manual shows (“RBAC and the xe CLI”), the
MD5 digests of their names: scripts write them down, and the published SDK for C# has that of the pool-admin built in.

Each role may do all that the ones below it may.
"""

from __future__ import annotations

from hashlib import md5
from uuid import UUID

from domzero.idl.model import Role


def _role(rank: int, name: str, doc: str) -> Role:
    return Role(name, rank, str(UUID(md5(name.encode(), usedforsecurity=False).hexdigest())), doc)


ROLES: tuple[Role, ...] = (
    _role(0, "read-only", "May look at everything but secrets, and change nothing except the own session and tasks."),
    _role(1, "vm-operator", "May also start, stop and reach the consoles of virtual machines."),
    _role(2, "vm-admin", "May also create, change and remove virtual machines and their disks and interfaces."),
    _role(3, "vm-power-admin", "May also migrate machines, take snapshots with memory and set what protects them."),
    _role(
        4, "pool-operator", "May also manage storage, networks, hosts and everything of the pool but people's rights."
    ),
    _role(5, "pool-admin", "May do everything, managing users and their roles included."),
)
