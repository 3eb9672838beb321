"""How much memory the machines of each host have or are about to get, kept up to date with every change of a machine.

Every start asks; adding it all up each time would cost as much as there are machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domzero.engine.changes import Change
from domzero.engine.database import Database
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.vm.memory_needs import memory_held


class MemoryLedger:
    """Bytes by host, true to every transaction that has ended. Made once the database is open."""

    def __init__(self, database: Database) -> None:
        self._shares: dict[Ref, tuple[frozenset[Ref], int]] = {}
        """By machine: on which hosts it counts, and how much."""
        self._held: dict[Ref, int] = {}
        for ref, row in database.rows("VM").items():
            self._count(ref, row.record)
        database.subscribe(self._follow)

    def held(self, host: Ref) -> int:
        """What the host's machines hold, those on their way to it included, the control domain left out."""
        return self._held.get(host, 0)

    def _follow(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.row.class_name == "VM":
                self._count(change.row.ref, change.after)

    def _count(self, vm: Ref, record: Mapping[str, Any] | None) -> None:
        hosts, size = self._shares.pop(vm, (frozenset(), 0))
        self._add(hosts, -size)
        if record is None or record["is_control_domain"]:
            return
        hosts = frozenset((record["resident_on"], record["scheduled_to_be_resident_on"])) - {NULL_REF}
        if hosts:
            self._shares[vm] = (hosts, memory_held(record))
            self._add(hosts, self._shares[vm][1])

    def _add(self, hosts: frozenset[Ref], size: int) -> None:
        for host in hosts:
            self._held[host] = self._held.get(host, 0) + size
