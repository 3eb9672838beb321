"""Reads the stored objects into the tables: check, migrate, decode, repair, index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from domzero.engine.codec import Decoder, Encoder
from domzero.engine.consistency import Finding, Found, Repairs, make_uuids_unique, resolve_references
from domzero.engine.migrations import Migration, migrate
from domzero.engine.row import Row
from domzero.engine.store import Batch, EncodedRow, Store, StoredGroup, StoreError
from domzero.engine.tables import Tables
from domzero.idl.graph import Graph
from domzero.idl.records import Layout, Record


class Loader:
    """One reading of a store into empty tables. Blocks; made for the writer thread."""

    def __init__(
        self,
        graph: Graph,
        tables: Tables,
        migrations: Sequence[Migration],
        owners: Collection[str],
        new_uuid: Callable[[], str],
    ) -> None:
        self._graph = graph
        self._tables = tables
        self._migrations = migrations
        self._owners = owners
        self._new_uuid = new_uuid
        self._repairs = Repairs()
        self._newest = 0

    @property
    def findings(self) -> Sequence[Finding]:
        """What was wrong with the stored objects."""
        return self._repairs.findings

    def load(self, store: Store) -> int:
        """Bring every object into the tables and write repairs back. Returns the newest generation of an object.

        Objects of unknown classes stay in the file, and nowhere else. Raises `StoreError` for a file that is damaged
        or too new.
        """
        damage = store.damage()
        if damage is not None:
            raise StoreError(f"The database is damaged: {damage}. Restore a backup.")
        migrate(store, self._migrations)
        found = self._read(store)
        make_uuids_unique(found, self._new_uuid, self._repairs)
        resolve_references(self._tables, found, self._owners, self._repairs)
        self._tables.load(found)
        if self._repairs.findings:
            self._write_repairs(store)
        return self._newest

    def _read(self, store: Store) -> Found:
        shared: dict[str, str] = {}
        tables = self._tables.by_class
        decoders = {name: Decoder(self._graph, table.layout, shared) for name, table in tables.items()}
        found: Found = {name: {} for name in tables}
        for group in store.groups():
            self._newest = max(self._newest, *group.created, *group.generations)
            decoder = decoders.get(group.class_name)
            if decoder is None:
                text = "This version has no such class. The object is ignored."
                self._repairs.findings += [Finding(group.class_name, ref, text) for ref in group.refs]
                continue
            rows = self._decode(decoder, tables[group.class_name].layout, group, shared)
            present = found[group.class_name]
            for row in rows:
                if present.setdefault(row.ref, row) is not row:
                    self._repairs.drop(row, "The reference is stored twice. The younger object is dropped.")
        return found

    def _decode(self, decoder: Decoder, layout: Layout, group: StoredGroup, shared: dict[str, str]) -> list[Row]:
        decoded, wrong = decoder.decode(group.fields)
        refs = map(shared.setdefault, group.refs, group.refs)
        rows = [
            Row(ref, Record(layout, values), created, generation)
            for ref, values, created, generation in zip(refs, decoded, group.created, group.generations, strict=True)
        ]
        for index, field, text in wrong:
            self._repairs.changed[rows[index]] = None
            self._repairs.report(rows[index], f"{field}: {text}. It gets its default.")
        return rows

    def _write_repairs(self, store: Store) -> None:
        repaired = [
            EncodedRow(row.created, row.ref, row.class_name, row.generation, Encoder(row.record.layout)(row.record))
            for row in self._repairs.changed
        ]
        store.write(Batch(repaired, sorted(row.created for row in self._repairs.dropped)))
