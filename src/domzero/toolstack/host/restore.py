"""`/host_restore`: the toolstack's state from an archive that `host_backup` made.

Whoever sends it is an administrator; the archive is looked at as if it were from a stranger. Taken is what a backup
consists of and nothing else: plain files of the known names, in the manifest's order, of the sizes and checksums that
it says, within bounds. No name from the archive ever becomes a path. All is checked before anything is touched.
"""

from __future__ import annotations

import hashlib
import ssl
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.exchange import Arguments, Peer, PeerGoneError, serves
from domzero.engine.passwords import PasswordFileError, hashes_in
from domzero.engine.replacement import CERTIFICATE, DATABASE, PASSWORDS, Replacement
from domzero.engine.staging import ForeignFile, Staging
from domzero.engine.store import StoreError
from domzero.finish import in_thread
from domzero.toolstack.host.backup import BLOCK, BRAND, FORMAT, MANIFEST, Listed, padded
from domzero.toolstack.host.restoring import OF_ONE_RUN, check, gathering, refuse_chunks, staging, take_over
from domzero.toolstack.host.streams import create
from domzero.toolstack.stack import Stack

LARGEST: Mapping[str, int] = {DATABASE: 8 << 30, PASSWORDS: 16 << 20, CERTIFICATE: 1 << 20}
"""Bytes of each file at most."""
LARGEST_MANIFEST = 64 << 10
LARGEST_REST = 1 << 20
"""Zeros that may follow the archive's end; tar pads to whole records."""
PIECE = 1 << 20
UPLOADED = "uploaded.db"
"""What the database is called until it was looked at."""


class BackupError(Exception):
    """The archive is none of ours, or damaged; the text says why."""


@serves("PUT", "/host_restore", role="pool-admin", label="host.restore")
async def restore(stack: Stack, context: Context, peer: Peer, arguments: Arguments) -> None:
    """Replace the state by that of a backup, and start again; with `dry_run` only find out whether that could be done.

    Raises RESTORE_SCRIPT_FAILED for an archive that is none, RESTORE_INCOMPATIBLE_VERSION,
    RESTORE_TARGET_MISSING_DEVICE, RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP, COULD_NOT_IMPORT_DATABASE.
    """
    dry_run = arguments.flag("dry_run")
    refuse_chunks(peer)
    async with gathering(stack) as replacement:
        try:
            with context.task.cancellable():
                files = await receive(context, peer, replacement.incoming)
                await in_thread(_check_files, replacement.incoming, files)
                await _take_database(stack, replacement)
        except (BackupError, PasswordFileError) as error:
            raise ApiError("RESTORE_SCRIPT_FAILED", str(error)) from error
        except StoreError as error:
            raise ApiError("COULD_NOT_IMPORT_DATABASE", str(error)) from error
        except OSError as error:
            raise ApiError("RESTORE_SCRIPT_FAILED", f"The disk refuses: {error}") from error
        if not dry_run:
            await take_over(stack, replacement, [file.name for file in files])
    peer.begin(200, length=0)


async def receive(context: Context, peer: Peer, place: Path) -> list[Listed]:
    """Put the archive's files down. Raises `BackupError`, `ApiError` for a version."""
    try:
        size = await _member(peer, MANIFEST, LARGEST_MANIFEST)
        files = manifest_files(await peer.read_exactly(size))
        await peer.read_exactly(padded(size) - size)
        for listed in files:
            if await _member(peer, listed.name, LARGEST[listed.name]) != listed.size:
                raise BackupError(f"{listed.name} has another size than the manifest says.")
            target = place / (UPLOADED if listed.name == DATABASE else listed.name)
            await _put_down(peer, listed, target)
            context.task.set_progress(0.5)
        await _end(peer)
    except PeerGoneError as error:
        raise BackupError(f"The archive is not complete: {error}.") from error
    return files


def manifest_files(content: bytes) -> list[Listed]:
    """What the manifest lists. Raises `BackupError`, `ApiError` for a version."""
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BackupError(f"The manifest is no JSON: {error}.") from error
    if not isinstance(said, dict) or said.get("product_brand") != BRAND or said.get("format") != FORMAT:
        raise ApiError("RESTORE_INCOMPATIBLE_VERSION")
    listed = said.get("files")
    files = [_listed(one) for one in listed] if isinstance(listed, list) and len(listed) <= len(LARGEST) else []
    names = [file.name for file in files]
    if DATABASE not in names or len(set(names)) != len(names):
        raise BackupError("The manifest does not list the files of a backup.")
    return files


def _listed(said: Any) -> Listed:
    match said:
        case {"name": str(name), "size": int(size), "sha256": str(digest)} if 0 <= size <= LARGEST.get(name, -1):
            return Listed(name, size, digest)
    raise BackupError("The manifest lists a file that is not part of a backup, or too large.")


async def _member(peer: Peer, name: str, largest: int) -> int:
    """The size of the file that begins here, which must have that name."""
    try:
        member = tarfile.TarInfo.frombuf(await peer.read_exactly(BLOCK), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise BackupError(f"The archive has no header where {name} is due: {error}.") from error
    if member.name != name or not member.isreg() or not 0 <= member.size <= largest:
        raise BackupError(f"The archive has something else where {name} is due.")
    return member.size


async def _put_down(peer: Peer, listed: Listed, target: Path) -> None:
    digest, left = hashlib.sha256(), listed.size
    with await in_thread(create, target) as file:
        while left:
            data = await peer.read(min(left, PIECE))
            if not data:
                raise PeerGoneError(f"{listed.name} lacks {left} bytes")
            left -= len(data)
            digest.update(data)
            await in_thread(file.write, data)
    if digest.hexdigest() != listed.sha256:
        raise BackupError(f"{listed.name} is damaged: its checksum is not that of the manifest.")
    await peer.read_exactly(padded(listed.size) - listed.size)


async def _end(peer: Peer) -> None:
    taken = 0
    while data := await peer.read():
        taken += len(data)
        if taken > LARGEST_REST or data.count(0) != len(data):
            raise BackupError("Something follows the files of the archive.")
    if taken < 2 * BLOCK:
        raise BackupError("The archive has no end.")


def _check_files(place: Path, files: list[Listed]) -> None:
    names = {file.name for file in files}
    if PASSWORDS in names:
        hashes_in(place / PASSWORDS)
    if CERTIFICATE in names:
        try:
            # Without a password a protected key would have somebody asked for it on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place / CERTIFICATE, password="")
        except (ssl.SSLError, ValueError) as error:
            raise BackupError(f"{CERTIFICATE} holds no certificate with its key: {error}.") from error


async def _take_database(stack: Stack, replacement: Replacement) -> None:
    """Make the new database of the rows in the one that was sent. Raises `StoreError`, `ApiError`."""
    uploaded = replacement.incoming / UPLOADED
    async with staging(stack, replacement) as new:
        version = await in_thread(_copy_rows, uploaded, new, stack.database.format)
        tables, findings = await in_thread(new.finish, version)
    check(tables, findings, stack.database.tables)
    await in_thread(uploaded.unlink)


def _copy_rows(uploaded: Path, new: Staging, newest_format: int) -> int:
    foreign = ForeignFile(uploaded)
    try:
        version = foreign.version
        if not 0 <= version <= newest_format:
            raise ApiError("RESTORE_INCOMPATIBLE_VERSION")
        for ref, class_name, fields in foreign.rows():
            if class_name not in OF_ONE_RUN:
                new.add(ref, class_name, fields)
    finally:
        foreign.close()
    return version
