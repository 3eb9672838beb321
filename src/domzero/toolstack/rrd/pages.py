"""The pages of history: `/rrd_updates`, `/vm_rrd`, `/host_rrd`, `/sr_rrd` and their older names; `/rrd` to send one.

Whether the answer is XML or JSON is said by the query's `json`, else by what the `Accept` header prefers, else it is
XML. One that takes both alike, as curl's does, gets XML, as it did from every XenServer before 23.17.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, RequestError, serves
from domzero.finish import in_thread
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.document import rrd_json, rrd_xml, xport_json, xport_xml
from domzero.toolstack.rrd.export import FUNCTIONS, Owner, tabulate
from domzero.toolstack.rrd.owners import CLASSES, owner_of
from domzero.toolstack.rrd.packing import pack, restored
from domzero.toolstack.rrd.reading import DumpError, read_dump
from domzero.toolstack.stack import Stack

XML_TYPE, JSON_TYPE = "text/xml", "application/json"
PIECE = 64 << 10
"""Characters that are put together before they are sent, and others have their turn."""
NUMBER_MOST = 1 << 53
ALL, NONE = "all", "none"
"""Words that may stand for uuids."""
UUIDS_MOST = 10_000
DUMP_MOST = 8 << 20
"""Bytes of a history that is sent here; XenServer takes 2 MiB."""

_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.[0-9]{1,18})?", re.ASCII)


class Asking(Protocol):
    """As much of a peer as says what answer it wants."""

    def header(self, name: str) -> str | None: ...


@serves("GET", "/rrd_updates", role="read-only", label="RRD updates", task=False)
async def updates(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The rows after a moment, of machines that run, and of the host and repositories if asked for."""
    start = number_of(arguments, "start", needed=True)
    interval = number_of(arguments, "interval")
    if interval < 0:
        raise RequestError(400, "interval is negative.")
    function = arguments.get("cf") or None
    if function is not None and function not in FUNCTIONS:
        raise RequestError(400, f"cf is none of {', '.join(FUNCTIONS)}.")
    as_json = prefers_json(peer, arguments)
    owners = list(_wanted(stack, arguments))
    table = tabulate(owners, stack.archives.now(), start, interval, function)
    await _send(peer, xport_json(table) if as_json else xport_xml(table), as_json=as_json)


@serves("GET", "/vm_rrds", role="read-only", label="VM history", task=False)
@serves("GET", "/vm_rrd", role="read-only", label="VM history", task=False)
async def of_machine(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The whole history of a machine, whether it runs or not."""
    await _send_archive(stack, peer, arguments, _named(stack, "VM", arguments.need("uuid", "ref")))


@serves("GET", "/host_rrds", role="read-only", label="Host history", task=False)
@serves("GET", "/host_rrd", role="read-only", label="Host history", task=False)
async def of_host(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The whole history of the host: of this one, unless its uuid says otherwise."""
    name = arguments.get("uuid")
    await _send_archive(stack, peer, arguments, _named(stack, "host", name or stack.host))


@serves("GET", "/sr_rrd", role="read-only", label="SR history", task=False)
async def of_repository(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """The whole history of a repository."""
    await _send_archive(stack, peer, arguments, _named(stack, "SR", arguments.need("uuid", "ref")))


@serves("PUT", "/rrd", role="pool-admin", label="RRD upload")
async def take(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Give a machine, a host or a repository the history in the body, XML as of the pages above, in place of its own.

    XenServer's `archive` may be said; here history is always kept.
    """
    arguments.flag("archive")
    owner = _anybody(stack, arguments.need("uuid"))
    if peer.chunked:
        raise RequestError(411, "Send the history with a Content-Length, not in chunks.")
    document = bytearray()
    while (peer.length or 0) <= DUMP_MOST >= len(document) and (data := await peer.read()):
        document += data
    if max(peer.length or 0, len(document)) > DUMP_MOST:
        raise RequestError(413, f"A history has at most {DUMP_MOST} bytes.")
    try:
        archive = await in_thread(read_dump, bytes(document))
    except DumpError as error:
        raise RequestError(400, f"The history cannot be read: {error}.") from error
    if not await stack.archives.put(owner, archive):
        raise RequestError(500, "The history holds until the next start: it cannot be written down.")
    peer.begin(200, length=0)


def _anybody(stack: Stack, uuid: str) -> Owner:
    for cls in CLASSES.values():
        try:
            return _named(stack, cls, uuid)
        except ApiError:
            continue
    raise RequestError(404, f"There is no machine, host or repository with the uuid {uuid[:64]}.")


def _named(stack: Stack, cls: str, name: str) -> Owner:
    """The owner with that uuid or reference. Raises UUID_INVALID, HANDLE_INVALID."""
    ref = name if name.startswith("OpaqueRef:") else stack.database.by_uuid(cls, name)
    return owner_of(stack.database, cls, ref)


async def _send_archive(stack: Stack, peer: Peer, arguments: Arguments, owner: Owner) -> None:
    as_json = prefers_json(peer, arguments)
    archive = await stack.archives.kept(owner)
    if archive is None:
        raise RequestError(404, f"Nothing was measured of {owner} yet.")
    # A copy is written down, in a thread: readings go on meanwhile.
    await _send(peer, iter([await in_thread(_document, pack(archive), as_json)]), as_json=as_json)


def _document(packed: list[bytes], as_json: bool) -> str:
    archive = restored(b"".join(packed))
    return "".join(rrd_json(archive) if as_json else rrd_xml(archive))


async def _send(peer: Peer, text: Iterator[str], *, as_json: bool) -> None:
    """Send pieces as they are made."""
    peer.begin(headers=(("content-type", JSON_TYPE if as_json else XML_TYPE),))
    waiting, size = [], 0
    for piece in text:
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE:
            await peer.write("".join(waiting).encode())
            waiting, size = [], 0
    await peer.write("".join(waiting).encode())


def _wanted(stack: Stack, arguments: Arguments) -> Iterator[tuple[Owner, Archive]]:
    """Whose rows are asked for. Raises `RequestError` 404 for what does not exist."""
    archives = stack.archives
    if arguments.flag("host"):
        yield from _found(stack, [owner_of(stack.database, "host", stack.host)])
    for kind, name, absent in (("vm", "vm_uuid", ALL), ("sr", "sr_uuid", NONE)):
        said = ",".join(filter(None, arguments.every(name)))
        words = said or (arguments.get("uuid") if kind == "vm" else None) or absent
        if words == ALL:
            yield from ((owner, archive) for owner, archive in archives.live() if owner.kind == kind)
        elif words != NONE:
            uuids = words.split(",")
            if len(uuids) > UUIDS_MOST:
                raise RequestError(400, f"{name} names too many.")
            yield from _found(stack, [_existing(stack, CLASSES[kind], uuid.strip()) for uuid in dict.fromkeys(uuids)])


def _existing(stack: Stack, cls: str, uuid: str) -> Owner:
    try:
        return _named(stack, cls, uuid)
    except ApiError:
        raise RequestError(404, f"There is no {cls} with the uuid {uuid[:64]}.") from None


def _found(stack: Stack, owners: Iterable[Owner]) -> Iterator[tuple[Owner, Archive]]:
    for owner in owners:
        archive = stack.archives.get(owner)
        if archive is not None:
            yield owner, archive


def number_of(arguments: Arguments, name: str, *, needed: bool = False) -> int:
    """A number without its fraction, 0 where it is left out. Raises `RequestError` 400."""
    text = arguments.need(name) if needed else arguments.get(name) or "0"
    found = _NUMBER.fullmatch(text.strip())
    if found is None or abs(int(found[1])) > NUMBER_MOST:
        raise RequestError(400, f"{name} is no number.")
    return int(found[1])


def prefers_json(peer: Asking, arguments: Arguments) -> bool:
    """Whether the answer is to be JSON. Raises `RequestError` 400 for a `json` that is no truth value."""
    if "json" in arguments:
        return arguments.flag("json", default=True)
    accepted = peer.header("accept")
    if accepted is None:
        return False
    return _quality(accepted, ("application/json", "text/json")) > _quality(accepted, (XML_TYPE, "application/xml"))


def _quality(accepted: str, types: Iterable[str]) -> float:
    """How much an `Accept` header likes the best of some media types (RFC 9110, section 12.5.1)."""
    best = 0.0
    for kind in types:
        rank, liking = -1, 0.0
        for part in accepted.split(","):
            name, *parameters = (word.strip().lower() for word in part.split(";"))
            fits = {kind: 2, f"{kind.partition('/')[0]}/*": 1, "*/*": 0}.get(name, -1)
            if fits > rank:
                rank, liking = fits, _weight(parameters)
        best = max(best, liking)
    return best


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                weight = float(parameter[2:])
            except ValueError:
                return 0.0
            return weight if math.isfinite(weight) else 0.0
    return 1.0
