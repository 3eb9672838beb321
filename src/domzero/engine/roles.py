"""Roles and permissions: both are derived from the graph, and stored as `role` objects for clients to read.

A permission is named like its message in lower case (`vm.start`). Each role may do everything that lesser roles may.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha1
from uuid import NAMESPACE_DNS, uuid5

from domzero.engine.database import Database
from domzero.idl.graph import Graph
from domzero.idl.types import Ref

_NAMESPACE = uuid5(NAMESPACE_DNS, "permissions.roles.domzero")

NO_RANK = -1
"""The rank of somebody without any role."""


class Roles:
    """What each role of the graph permits."""

    def __init__(self, graph: Graph) -> None:
        self._roles = sorted(graph.roles.values(), key=lambda role: role.rank)
        self.ranks: Mapping[str, int] = {role.name: role.rank for role in self._roles}
        self.highest: int = self._roles[-1].rank
        self._docs = {role.name: role.doc for role in self._roles}
        self._uuids = {role.name: role.uuid for role in self._roles}
        self._name_by_ref: Mapping[Ref, str] = {role_ref(role.uuid): role.name for role in self._roles}
        self._needed = _needed(graph)
        self._permissions = _permissions(graph)

    def rank(self, name: str) -> int:
        """The rank of a role. Raises `KeyError` when there is no such role."""
        return self.ranks[name]

    def name(self, rank: int) -> str:
        """The role of a rank; empty for `NO_RANK`."""
        return next((role.name for role in self._roles if role.rank == rank), "")

    def rank_of_refs(self, roles: Iterable[Ref]) -> int:
        """The highest rank among some role objects; `NO_RANK` when there is none."""
        names = (self._name_by_ref.get(ref) for ref in roles)
        return max((self.ranks[name] for name in names if name is not None), default=NO_RANK)

    def permissions(self, rank: int) -> tuple[str, ...]:
        """The names of everything that somebody of the given rank may do."""
        held: tuple[str, ...] = ()
        for role, permissions in zip(self._roles, self._permissions, strict=True):
            if role.rank <= rank:
                held = permissions
        return held

    def ref(self, name: str) -> Ref:
        """The role object of a role. Raises `KeyError` when there is no such role."""
        return role_ref(self._uuids[name])

    def objects(self) -> Mapping[Ref, Mapping[str, object]]:
        """Every role object that must exist, and its fields: one for each permission, then the roles."""
        refs = {name: role_ref(permission_uuid(name)) for name in self._needed}
        found: dict[Ref, Mapping[str, object]] = {}
        for name, ref in refs.items():
            found[ref] = {"uuid": _uuid(ref), "name_label": name, "name_description": f"Permission to call {name}."}
        for role, permissions in zip(self._roles, self._permissions, strict=True):
            found[role_ref(role.uuid)] = {
                "uuid": role.uuid,
                "name_label": role.name,
                "name_description": role.doc,
                "subroles": tuple(refs[name] for name in permissions),
            }
        return found

    def reconcile(self, database: Database) -> None:
        """Make the stored role objects those that the graph asks for, touching only what differs.

        Who held a role that has another object now holds that one.
        """
        wanted = self.objects()
        names = {ref: row.record["name_label"] for ref, row in database.rows("role").items() if ref not in wanted}
        moved = {ref: self.ref(name) for ref, name in names.items() if name in self.ranks}
        with database.transaction() as transaction:
            for subject in database.refs("subject") if moved else ():
                held = database.get("subject", subject, "roles")
                transaction.update("subject", subject, roles=tuple(dict.fromkeys(moved.get(one, one) for one in held)))
            for ref in database.refs("role"):
                if ref not in wanted:
                    transaction.destroy("role", ref)
            for ref, fields in wanted.items():
                row = database.find("role", ref)
                if row is None:
                    transaction.create("role", fields, ref=ref)
                else:
                    changes = {name: value for name, value in fields.items() if row.record[name] != value}
                    if changes:
                        transaction.update("role", ref, **changes)


@cache
def _needed(graph: Graph) -> Mapping[str, int]:
    """The least rank that each permission asks for."""
    methods = [method for method in graph.methods.values() if method.message.session]
    return {sys.intern(method.name.lower()): graph.roles[method.message.least_role].rank for method in methods}


@cache
def _permissions(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """What each role permits, the least role first. A graph never changes, and this is most of making `Roles`."""
    ranks = sorted(role.rank for role in graph.roles.values())
    return tuple(tuple(name for name, least in _needed(graph).items() if least <= rank) for rank in ranks)


def role_ref(uuid: str) -> Ref:
    """The reference of a role object, which its fixed uuid decides."""
    return f"OpaqueRef:{uuid}"


def permission_uuid(name: str) -> str:
    """`uuid5(_NAMESPACE, name)` (RFC 9562, section 5.5), without the objects in between: a start makes all of them."""
    digits = sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def _uuid(ref: Ref) -> str:
    return ref.removeprefix("OpaqueRef:")
