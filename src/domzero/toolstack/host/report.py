"""The parts of a report on the system: what each is called, how much it may take, and who collects it.

A part is collected when it is about to be sent, within its time; what fails says so in its own text. No text leaves
without having been through the redactor, and none is longer than its part may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import orjson

from domzero.engine.clock import moment
from domzero.engine.sensitive import without_secrets
from domzero.finish import in_thread
from domzero.host.control.protocol import ControlError
from domzero.host.diagnosis.protocol import Texts
from domzero.toolstack.host.redaction import Redactor
from domzero.toolstack.stack import Stack

LEFT_OUT = frozenset({"secret", "session", "role"})
"""Classes of which a report says nothing."""
PIECE = 128 << 10
LONGEST_OBJECT = 64 << 10
"""Characters of an object; of a larger one only its size is told."""
FILE = 2 << 20
"""Bytes after which lines go on in another file: what is in memory at once."""
ENTRY_TIME = 60.0
MIB = 1 << 20

Made = Mapping[str, str | Iterator[str]]
"""Texts by the names of their files, or whole lines of them, which may take time to make."""
Collect = Callable[[Stack], Awaitable[Made]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A part: at most so many bytes in all; `personal` says whether it tells of people: yes, no or maybe."""

    key: str
    collect: Collect
    largest: int
    personal: str


async def _logs(stack: Stack) -> Texts:
    return {"domzero.log": await asyncio.to_thread(stack.control.log_tail, 8 * MIB)}


async def _audit(stack: Stack) -> Texts:
    stack.audit.flush()
    return {"audit.log": await in_thread(_end_of_audit, stack)}


def _end_of_audit(stack: Stack) -> str:
    kept = b""
    with closing(stack.audit.read()) as pieces:
        for piece in pieces:
            kept = (kept + piece)[-8 * MIB :]
    return kept.decode(errors="replace")


async def _kernel_log(stack: Stack) -> Texts:
    return {"kernel.log": await stack.control.kernel_log(clear=False)}


async def _inventory(stack: Stack) -> Texts:
    return {"inventory.txt": "\n".join(_inventory_lines(stack)) + "\n"}


def _inventory_lines(stack: Stack) -> Iterator[str]:
    database = stack.database
    yield f"collected {moment(stack.clock.now())}"
    yield from (f"{key} {value}" for key, value in database.get("host", stack.host, "software_version").items())
    for row in database.rows("VM").values():
        record = row.record
        if not record["is_a_template"]:
            yield f"VM {record['uuid']} {record['power_state']} {record['name_label']}"
    for row in database.rows("SR").values():
        yield f"SR {row.record['uuid']} {row.record['type']} {row.record['name_label']}"


async def _database(stack: Stack) -> Made:
    tables = {
        name: [row.record for row in table.rows.values()]
        for name, table in stack.database.tables.by_class.items()
        if name not in LEFT_OUT
    }
    return {f"{name}.jsonl": _objects(records) for name, records in tables.items() if records}


def _objects(records: Collection[Mapping[str, object]]) -> Iterator[str]:
    """A line of JSON for each object, many lines together."""
    waiting: list[str] = []
    size = 0
    for record in records:
        shown = {field: without_secrets(field, value) for field, value in record.items()}
        line = orjson.dumps(shown, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE).decode()
        waiting.append(line if len(line) <= LONGEST_OBJECT else f'{{"characters":{len(line)}}}\n')
        size += len(waiting[-1])
        if size > PIECE:
            yield "".join(waiting)
            waiting, size = [], 0
    yield "".join(waiting)


ENTRIES = (
    Entry("domzero-log", _logs, 8 * MIB, "maybe"),
    Entry("audit-log", _audit, 8 * MIB, "yes"),
    Entry("kernel-log", _kernel_log, 4 * MIB, "maybe"),
    Entry("inventory", _inventory, 4 * MIB, "maybe"),
    Entry("database", _database, 64 * MIB, "yes"),
    Entry("network-status", lambda stack: stack.diagnosis.network(), 8 * MIB, "maybe"),
    Entry("storage-status", lambda stack: stack.diagnosis.storage(), 8 * MIB, "maybe"),
    Entry("process-list", lambda stack: stack.diagnosis.processes(), 2 * MIB, "maybe"),
    Entry("hypervisor", lambda stack: stack.diagnosis.hypervisor(), 16 * MIB, "maybe"),
    Entry("hardware-info", lambda stack: stack.diagnosis.hardware(), 8 * MIB, "no"),
)


def chosen(keys: Collection[str]) -> tuple[Entry, ...]:
    """The entries of these names, all of them where none is named. A name that nobody knows is passed over."""
    return tuple(entry for entry in ENTRIES if entry.key in keys) if keys else ENTRIES


async def collected(stack: Stack, entries: Collection[Entry]) -> AsyncGenerator[tuple[Entry, str, bytes], None]:
    """Entry, file name and content of everything, one after another."""
    redact = await in_thread(Redactor, stack.database)
    loop = asyncio.get_running_loop()
    for entry in entries:
        left, deadline = entry.largest, loop.time() + ENTRY_TIME
        for name, made in (await _texts(stack, entry)).items():
            lines = iter((made,)) if isinstance(made, str) else made
            for number in count():
                content = await in_thread(_finished, redact, lines, left)
                if number and (not content or loop.time() > deadline):
                    break
                left -= len(content)
                yield entry, f"{name}.{number}" if number else name, content


async def _texts(stack: Stack, entry: Entry) -> Made:
    try:
        async with asyncio.timeout(ENTRY_TIME):
            return await entry.collect(stack)
    except (ControlError, OSError) as error:
        return {f"{entry.key}-error.txt": f"{error}\n"}
    except TimeoutError:
        return {f"{entry.key}-error.txt": f"It took more than {ENTRY_TIME:g} seconds.\n"}


def _finished(redact: Redactor, texts: Iterator[str], largest: int) -> bytes:
    """The next of some texts without secrets, so many as make a file, and never more than there is room for.

    Of a text that is too long by itself the end is kept. It is cut after it was looked at: no half of a secret stays.
    """
    kept = bytearray()
    while len(kept) < FILE and (text := next(texts, None)) is not None:
        content = redact(text).encode(errors="replace")
        kept += content[-(largest - len(kept)) :] if largest > len(kept) else b""
    return bytes(kept)
