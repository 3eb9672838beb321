"""`/blob`: a blob's content fetched and sent.

A content is whatever some client sent, and browsers show pages of this host with the rights of whoever is logged in.
So only plain pictures and plain text are shown in place, no script in them runs, and no browser guesses at types.
"""

from __future__ import annotations

import re
from contextlib import closing

from domzero.engine.clock import moment
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Headers, Peer, PeerGoneError, RequestError, serves
from domzero.finish import in_thread
from domzero.idl.types import Ref
from domzero.toolstack.blobs import files
from domzero.toolstack.blobs.blob import BINARY
from domzero.toolstack.stack import Stack

BLOCK = 256 << 10
"""Bytes moved at once."""
_WORD = r"[A-Za-z0-9!#$&^_.+-]{1,64}"
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})( *; *{_WORD}=({_WORD}|\"[A-Za-z0-9 ./_-]{{0,64}}\"))*")
SHOWN_TEXT = frozenset({"text/plain", "text/csv"})
SAFE: Headers = (
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "sandbox; default-src 'none'"),
    ("cross-origin-resource-policy", "same-site"),
)


def find(stack: Stack, arguments: Arguments) -> Ref:
    """The blob that a request names by `ref` or `uuid`. Raises `RequestError`, HANDLE_INVALID, UUID_INVALID."""
    named = arguments.need("ref", "uuid")
    if named.startswith("OpaqueRef:"):
        return stack.database.row("blob", named).ref
    return stack.database.by_uuid("blob", named)


def is_public(stack: Stack, arguments: Arguments) -> bool:
    """Whether a request is for a blob that everybody may fetch; never raises."""
    try:
        return bool(stack.database.get("blob", find(stack, arguments), "public"))
    except (ApiError, RequestError):
        return False


@serves("GET", "/blob", role="read-only", label="blob.get", task=False, public=is_public)
async def fetch(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Send the content, under the blob's own media type as far as that is safe. 404 where nothing was ever sent."""
    record = stack.database.record("blob", find(stack, arguments))
    opened = await in_thread(files.read, files.directory_of(stack.settings.state_dir), record["uuid"])
    if opened is None:
        raise RequestError(404, "The blob is empty: nothing was sent to it yet.")
    file, size = opened
    with closing(file):
        peer.begin(200, headers(record["mime_type"], record["uuid"]), size)
        while data := await in_thread(file.read, BLOCK):
            await peer.write(data)


def headers(mime_type: str, uuid: str) -> Headers:
    """What tells a browser how to treat a content. What is no media type is sent as bytes that are to be saved."""
    sound = _MEDIA_TYPE.fullmatch(mime_type)
    kind = sound[1].lower() if sound else BINARY
    shown = kind in SHOWN_TEXT or (kind.startswith("image/") and not kind.endswith("xml"))
    disposition = "inline" if shown else "attachment"
    return (
        ("content-type", mime_type if sound else BINARY),
        ("content-disposition", f'{disposition}; filename="blob-{uuid}"'),
        *SAFE,
    )


@serves("PUT", "/blob", role="vm-power-admin", label="blob.put")
async def send(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Take the content in place of the former one. 413 where it does not fit; then, and after a failure, the former
    one stays."""
    blob = find(stack, arguments)
    if peer.chunked:
        raise RequestError(411, "Send the content with a Content-Length, not in chunks.")
    if (peer.length or 0) > files.LARGEST:
        raise RequestError(413, f"A blob has at most {files.LARGEST} bytes.")
    try:
        await _receive(stack, context, peer, blob)
    except PeerGoneError:
        raise
    except files.TooLargeError as error:
        raise RequestError(413, f"The content is too large: {error}.") from error
    except OSError as error:
        raise RequestError(500, f"The content cannot be stored: {error.strerror}.") from error
    peer.begin(200, length=0)


async def _receive(stack: Stack, context: Context, peer: Peer, blob: Ref) -> None:
    """Raises `TooLargeError`, `OSError`, and HANDLE_INVALID for a blob that has gone meanwhile."""
    uuid = stack.database.get("blob", blob, "uuid")
    upload = await in_thread(files.Upload, files.directory_of(stack.settings.state_dir), uuid)
    try:
        with context.task.cancellable():
            while data := await peer.read(1 << 20):
                await in_thread(upload.write, data)
                context.task.set_progress(upload.size / peer.length if peer.length else 0.0)
        stack.database.row("blob", blob)
        await in_thread(upload.keep)
    finally:
        await in_thread(upload.discard)
    with stack.database.transaction() as transaction:
        transaction.update("blob", blob, size=upload.size, last_updated=moment(stack.clock.now()))
    await stack.database.durable()
