"""Reads the stored objects into the tables: check, migrate, decode, repair, index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from domzero.engine.codec import Decoder, Encoder
from domzero.engine.consistency import Finding, make_unique, resolve_references
from domzero.engine.migrations import Migration, migrate
from domzero.engine.row import Row
from domzero.engine.store import Batch, EncodedRow, Store, StoreError
from domzero.engine.tables import Draft, Tables
from domzero.idl.graph import Graph


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
        self.findings: list[Finding] = []
        """What was wrong with the stored objects."""
        self._graph = graph
        self._tables = tables
        self._migrations = migrations
        self._owners = owners
        self._new_uuid = new_uuid

    def load(self, store: Store) -> list[Row]:
        """Every object, now in the tables; repairs are written back. Objects of unknown classes stay in the file, and
        nowhere else. Raises `StoreError` for a file that is damaged or too new."""
        damage = store.damage()
        if damage is not None:
            raise StoreError(f"The database is damaged: {damage}. Restore a backup.")
        migrate(store, self._migrations)
        read = self._decode(store)
        drafts, found = make_unique(read, self._new_uuid)
        self.findings += found
        drafts, found = resolve_references(self._tables, drafts, self._owners)
        self.findings += found
        rows = self._tables.load(drafts)
        if self.findings:
            self._write_repairs(store, read, drafts, rows)
        return rows

    def _decode(self, store: Store) -> list[Draft]:
        shared: dict[str, str] = {}
        tables = self._tables.by_class.items()
        decoders = {name: Decoder(self._graph, table.layout, shared) for name, table in tables}
        drafts = []
        for created, ref, class_name, generation, fields in store.rows():
            decoder = decoders.get(class_name)
            if decoder is None:
                self.findings.append(Finding(class_name, ref, "This version has no such class. The object is ignored."))
                continue
            values, wrong = decoder.decode(fields)
            for field, text in wrong:
                self.findings.append(Finding(class_name, ref, f"{field}: {text}. It gets its default."))
            ref = shared.setdefault(ref, ref)
            drafts.append(Draft(self._tables.by_class[class_name], ref, values, created, generation, bool(wrong)))
        return drafts

    def _write_repairs(self, store: Store, read: list[Draft], kept: list[Draft], rows: list[Row]) -> None:
        dropped = {draft.created for draft in read} - {draft.created for draft in kept}
        repaired = [
            EncodedRow(row.created, row.ref, row.class_name, row.generation, Encoder(row.record.layout)(row.record))
            for row, draft in zip(rows, kept, strict=True)
            if draft.repaired
        ]
        store.write(Batch(repaired, sorted(dropped)))
