"""Blob objects: made for an object or for nobody, and removed; their content comes and goes over HTTP (`pages`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.finish import in_thread
from domzero.idl.types import NEVER, Ref
from domzero.toolstack.blobs import files
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

OWNERS: Final = ("VM", "SR", "network", "host", "pool")
"""The classes whose objects have blobs."""
BINARY: Final = "application/octet-stream"


@implements("blob.create")
def create(stack: Stack, context: Context, mime_type: str, public: bool) -> Ref:
    """An empty blob that belongs to no object."""
    with stack.database.transaction() as transaction:
        return _create(transaction, mime_type, public=public)


@implements("blob.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Remove a blob with its content, and from the object that it belongs to."""
    uuid = stack.database.get("blob", self, "uuid")
    with stack.database.transaction() as transaction:
        for cls in OWNERS:
            for owner, row in list(stack.database.rows(cls).items()):
                if self in row.record["blobs"].values():
                    left = {name: blob for name, blob in row.record["blobs"].items() if blob != self}
                    transaction.update(cls, owner, blobs=left)
        transaction.destroy("blob", self)
    await stack.database.durable()
    await in_thread(files.remove, files.directory_of(stack.settings.state_dir), (uuid,))


@implements("VM.create_new_blob")
def create_for_machine(stack: Stack, context: Context, vm: Ref, name: str, mime_type: str, public: bool) -> Ref:
    """An empty blob of a machine. Raises MAP_DUPLICATE_KEY for a name that the machine has a blob of."""
    return _create_for(stack, "VM", vm, name, mime_type, public=public)


@implements("SR.create_new_blob")
def create_for_repository(stack: Stack, context: Context, sr: Ref, name: str, mime_type: str, public: bool) -> Ref:
    """An empty blob of a repository. Raises MAP_DUPLICATE_KEY."""
    return _create_for(stack, "SR", sr, name, mime_type, public=public)


@implements("network.create_new_blob")
def create_for_network(stack: Stack, context: Context, network: Ref, name: str, mime_type: str, public: bool) -> Ref:
    """An empty blob of a network. Raises MAP_DUPLICATE_KEY."""
    return _create_for(stack, "network", network, name, mime_type, public=public)


@implements("host.create_new_blob")
def create_for_host(stack: Stack, context: Context, host: Ref, name: str, mime_type: str, public: bool) -> Ref:
    """An empty blob of a host. Raises MAP_DUPLICATE_KEY."""
    return _create_for(stack, "host", host, name, mime_type, public=public)


@implements("pool.create_new_blob")
def create_for_pool(stack: Stack, context: Context, pool: Ref, name: str, mime_type: str, public: bool) -> Ref:
    """An empty blob of the pool. Raises MAP_DUPLICATE_KEY."""
    return _create_for(stack, "pool", pool, name, mime_type, public=public)


def _create_for(stack: Stack, cls: str, owner: Ref, name: str, mime_type: str, *, public: bool) -> Ref:
    blobs = stack.database.get(cls, owner, "blobs")
    if name in blobs:
        raise ApiError("MAP_DUPLICATE_KEY", cls, "blobs", owner, name)
    with stack.database.transaction() as transaction:
        blob = _create(transaction, mime_type, public=public, name=name)
        transaction.update(cls, owner, blobs={**blobs, name: blob})
    return blob


def _create(transaction: Transaction, mime_type: str, *, public: bool, name: str = "") -> Ref:
    fields = {"name_label": name, "mime_type": mime_type or BINARY, "public": public, "last_updated": NEVER}
    return transaction.create("blob", fields)


def remove_blobs(stack: Stack, transaction: Transaction, blobs: Mapping[str, Ref]) -> None:
    """Remove the blobs of an object that is removed; `collect` removes their contents."""
    for blob in blobs.values():
        if stack.database.find("blob", blob) is not None:
            transaction.destroy("blob", blob)


async def collect(stack: Stack) -> None:
    """Remove the contents of blobs that are gone. What cannot be removed is logged, and tried again another time."""
    directory = files.directory_of(stack.settings.state_dir)
    try:
        found = await in_thread(files.sizes, directory)
        # Looked up after the directory: a blob is made before its content is.
        if gone := found.keys() - _uuids(stack):
            await in_thread(files.remove, directory, gone)
    except OSError as error:
        log.warning("what blobs left behind cannot be removed: %s", error)


async def recover(stack: Stack) -> None:
    """At a start: remove what no blob has any more or what did not come to its end, and make the rows' sizes true."""
    directory = files.directory_of(stack.settings.state_dir)
    found = await in_thread(files.sizes, directory)
    await in_thread(files.remove, directory, found.keys() - _uuids(stack), unfinished=True)
    with stack.database.transaction() as transaction:
        for ref, row in list(stack.database.rows("blob").items()):
            transaction.update("blob", ref, size=found.get(row.record["uuid"], 0))


def _uuids(stack: Stack) -> set[str]:
    return {row.record["uuid"] for row in stack.database.rows("blob").values()}
