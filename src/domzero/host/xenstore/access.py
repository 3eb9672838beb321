"""Who may do what with a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from domzero.wire.xenstore import Access, Permission, Permissions


class Caller(NamedTuple):
    """On whose behalf something is done. `target` is the domain that this one may act for, too (SET_TARGET)."""

    domid: int
    target: int | None = None

    @property
    def privileged(self) -> bool:
        """Domain 0 may do everything."""
        return self.domid == 0


HOST = Caller(0)


def owns(caller: Caller, permissions: Permissions) -> bool:
    """Whether a node counts as the caller's own: it may do all with it."""
    owner = permissions[0].domid
    return caller.domid in (0, owner) or caller.target == owner


def allowed(caller: Caller, permissions: Permissions, need: Access) -> bool:
    """The owner may do all, a domain that is named what its first entry says, any other what the owner's entry says.

    Source: Xen's wiki, “XenBus”, section “Permissions”.
    """
    if owns(caller, permissions):
        return True
    granted = permissions[0].access
    for domid, access in permissions[1:]:
        if domid == caller.domid or domid == caller.target:
            granted = access
            break
    return granted & need == need


class Audience:
    """Who may read one at least of some nodes. Domains that none of them names are alike, and asked of at no cost."""

    def __init__(self, nodes: Sequence[Permissions]) -> None:
        self._nodes = nodes
        self._named = {entry.domid for permissions in nodes for entry in permissions}
        self._everybody = any(permissions[0].access & Access.READ for permissions in nodes)

    def has(self, caller: Caller) -> bool:
        """Whether the caller is among them."""
        if caller.privileged:
            return True
        if caller.domid not in self._named and caller.target not in self._named:
            return self._everybody
        return any(allowed(caller, permissions, Access.READ) for permissions in self._nodes)


def inherited(caller: Caller, permissions: Permissions) -> Permissions:
    """What a new node gets from the one above it: the same, but a guest owns what it makes."""
    if caller.privileged or permissions[0].domid == caller.domid:
        return permissions
    return (Permission(caller.domid, permissions[0].access), *permissions[1:])


def without(domid: int, permissions: Permissions) -> Permissions:
    """What is left when a domain goes, whose number will be another's some day. What it owned is domain 0's."""
    owner = permissions[0] if permissions[0].domid != domid else Permission(0, permissions[0].access)
    return (owner, *(entry for entry in permissions[1:] if entry.domid != domid))
