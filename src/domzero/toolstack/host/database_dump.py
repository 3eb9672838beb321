"""`/pool/xmldbdump`: the database as XML, out and in again. Sessions and tasks are not part of it.

The dump holds everything else that is stored, values of secret objects included; whoever has it, has those.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import aclosing
from typing import Any

from domzero.engine.codec import Encoder
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, serves
from domzero.engine.replacement import DATABASE
from domzero.engine.staging import Staging
from domzero.engine.store import StoreError
from domzero.finish import in_thread
from domzero.idl.records import Layout, Record
from domzero.toolstack.host.restoring import OF_ONE_RUN, check, gathering, refuse_chunks, staging, take_over
from domzero.toolstack.host.streams import attachment, threaded
from domzero.toolstack.stack import Stack
from domzero.wire import state_xml
from domzero.wire.state_xml import StateError, StateReader, StateRow

BRAND = "domzero"
SCHEMA_MAJOR = "1"
PIECE = 128 << 10
"""Bytes that are sent together, or a little more."""
LARGEST = 8 << 30
"""Bytes of a dump that is taken."""


@serves("GET", "/pool/xmldbdump", role="pool-admin", label="pool.dump_database")
async def dump(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the database as it is at this moment."""
    pieces = dumped(stack.database, stack.settings.version)
    peer.begin(200, attachment("text/xml; charset=utf-8", "state.db.xml"))
    with context.task.cancellable():
        async with aclosing(threaded(pieces)) as stream:
            async for piece in stream:
                await peer.write(piece)


@serves("PUT", "/pool/xmldbdump", role="pool-admin", label="pool.restore_database")
async def restore(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Replace the database by a dump, and start again; with `dry_run` only find out whether that could be done.

    Raises RESTORE_INCOMPATIBLE_VERSION, RESTORE_TARGET_MISSING_DEVICE, RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP,
    COULD_NOT_IMPORT_DATABASE.
    """
    dry_run = arguments.flag("dry_run")
    refuse_chunks(peer)
    async with gathering(stack) as replacement:
        try:
            async with staging(stack, replacement) as new:
                with context.task.cancellable():
                    await _receive(context, peer, Incoming(stack.database, new))
                    tables, findings = await in_thread(new.finish, stack.database.format)
            check(tables, findings, stack.database.tables)
        except (StateError, StoreError) as error:
            raise ApiError("COULD_NOT_IMPORT_DATABASE", str(error)) from error
        if not dry_run:
            await take_over(stack, replacement, (DATABASE,))
    peer.begin(200, length=0)


async def _receive(context: Context, peer: Peer, incoming: Incoming) -> None:
    taken = 0
    while data := await peer.read():
        taken += len(data)
        if taken > LARGEST:
            raise StateError(f"the dump has more than {LARGEST} bytes")
        await in_thread(incoming.take, data)
        if peer.length:
            context.task.set_progress(0.8 * taken / peer.length)
    await in_thread(incoming.end)


def dumped(database: Database, version: str) -> Generator[bytes, None, None]:
    """The file, piece by piece, of the objects there are when this is called."""
    tables = [
        (table.layout, [(ref, row.record) for ref, row in table.rows.items()])
        for name, table in database.tables.by_class.items()
        if name not in OF_ONE_RUN
    ]
    return _pieces(manifest(database, version), tables)


def manifest(database: Database, version: str) -> Mapping[str, str]:
    """What says whether a dump fits."""
    return {
        "schema_major_vsn": SCHEMA_MAJOR,
        "schema_minor_vsn": str(database.format),
        "product_brand": BRAND,
        "product_version": version,
        "generation_count": str(database.generation),
    }


def _pieces(
    said: Mapping[str, str], tables: list[tuple[Layout, list[tuple[str, Record]]]]
) -> Generator[bytes, None, None]:
    waiting = bytearray(state_xml.opening(said))
    for layout, rows in tables:
        fields = [(at, field.name, field.type) for at, field in enumerate(layout.fields) if field.inverse is None]
        waiting += state_xml.table_opening(layout.name)
        for ref, record in rows:
            values = record.values_
            waiting += state_xml.encode_row(ref, ((name, type_, values[at]) for at, name, type_ in fields))
            if len(waiting) > PIECE:
                yield bytes(waiting)
                waiting.clear()
        waiting += state_xml.TABLE_CLOSING
    yield bytes(waiting + state_xml.CLOSING)


class Incoming:
    """A dump on its way into a new database. Blocks. Raises `StateError`, `StoreError`, `ApiError` for its version."""

    def __init__(self, database: Database, staging: Staging) -> None:
        self._database = database
        self._staging = staging
        self._reader = StateReader()
        self._checked = False
        self._seen: set[tuple[str, str]] = set()
        self._classes = {
            name: (table.layout, Encoder(table.layout))
            for name, table in database.tables.by_class.items()
            if name not in OF_ONE_RUN
        }

    def take(self, data: bytes) -> None:
        """Some of the bytes."""
        self._add(self._reader.feed(data))

    def end(self) -> None:
        """There are no more."""
        self._add(self._reader.finish())
        self._check_version()

    def _add(self, rows: list[StateRow]) -> None:
        if rows and not self._checked:
            self._check_version()
        for row in rows:
            found = self._classes.get(row.table)
            if found is not None:
                self._staging.add(row.ref, row.table, self._encoded(row, *found))

    def _check_version(self) -> None:
        said, ours = self._reader.manifest, manifest(self._database, "")
        if any(said.get(name) != ours[name] for name in ("product_brand", "schema_major_vsn", "schema_minor_vsn")):
            raise ApiError("RESTORE_INCOMPATIBLE_VERSION")
        self._checked = True

    def _encoded(self, row: StateRow, layout: Layout, encode: Encoder) -> str:
        if (row.table, row.ref) in self._seen:
            raise StateError(f"{row.table} {row.ref} is there twice")
        self._seen.add((row.table, row.ref))
        values: list[Any] = list(layout.defaults)
        for at, field in enumerate(layout.fields):
            text = row.fields.get(field.name)
            if text is None or field.inverse is not None:
                continue
            try:
                values[at] = state_xml.decode_value(self._database.graph, field.type, text)
            except StateError as error:
                raise StateError(f"{row.table} {row.ref}: {field.name}: {error}") from None
        return encode(Record(layout, tuple(values)))
