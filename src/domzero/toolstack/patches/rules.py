"""What patches are made of here: a row each, a file each until it is cleaned, and a row for each host that has it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domzero.engine.clock import moment
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.finish import in_thread
from domzero.host.updates.protocol import Bundle, BundleError, InstallError
from domzero.idl.types import Ref
from domzero.toolstack.alerts import Alert, tell
from domzero.toolstack.stack import Stack

UNFINISHED = "upload.part"
SUFFIX = ".bundle"
TAKEN_BACK = Alert("PATCH_TAKEN_BACK", 3)
"""The host's own: a version that does not start is not kept."""


def directory_of(stack: Stack) -> Path:
    """Where the bundles are."""
    return stack.settings.state_dir / "patches"


def file_of(stack: Stack, patch: Ref) -> Path:
    """The bundle of a patch, there or not."""
    return directory_of(stack) / f"{stack.database.get('pool_patch', patch, 'uuid')}{SUFFIX}"


def applied_on(stack: Stack, patch: Ref, host: Ref) -> bool:
    """Whether a host has it."""
    rows = (stack.database.record("host_patch", ref) for ref in stack.database.get("pool_patch", patch, "host_patches"))
    return any(row["host"] == host and row["applied"] for row in rows)


@contextmanager
def in_use(stack: Stack, patch: Ref) -> Iterator[None]:
    """Nobody else installs, cleans or destroys the patch meanwhile. Raises OTHER_OPERATION_IN_PROGRESS if they do."""
    if patch in stack.patches_in_use:
        raise ApiError("OTHER_OPERATION_IN_PROGRESS", "pool_patch", patch)
    stack.patches_in_use.add(patch)
    try:
        yield
    finally:
        stack.patches_in_use.discard(patch)


async def inspected(stack: Stack, patch: Ref) -> Bundle:
    """A patch's bundle, verified anew. Raises CANNOT_FIND_PATCH when it was cleaned, INVALID_PATCH_WITH_LOG."""
    file = file_of(stack, patch)
    if not await in_thread(file.exists):
        raise ApiError("CANNOT_FIND_PATCH")
    return await inspect(stack, file)


async def inspect(stack: Stack, file: Path) -> Bundle:
    """What a file is. Raises INVALID_PATCH_WITH_LOG."""
    try:
        return await stack.updates.inspect(file)
    except BundleError as error:
        raise ApiError("INVALID_PATCH_WITH_LOG", str(error)) from error


async def assert_fits(stack: Stack, patch: Ref, host: Ref) -> Bundle:
    """The bundle, if it can be installed on the host.

    Raises PATCH_ALREADY_APPLIED, PATCH_PRECHECK_FAILED_WRONG_SERVER_VERSION, and what `inspected` raises.
    """
    stack.database.row("host", host)
    if applied_on(stack, patch, host):
        raise ApiError("PATCH_ALREADY_APPLIED", patch)
    bundle = await inspected(stack, patch)
    if not bundle.fits:
        found, needed = stack.settings.version, bundle.required_version
        raise ApiError("PATCH_PRECHECK_FAILED_WRONG_SERVER_VERSION", patch, found, needed)
    return bundle


async def install(stack: Stack, patch: Ref, host: Ref) -> str:
    """Install a patch on this host: it runs from the toolstack's next start on. What was said on the way.

    Raises as `assert_fits` and `in_use`, and PATCH_APPLY_FAILED; nothing changed then.
    """
    with in_use(stack, patch):
        await assert_fits(stack, patch, host)
        try:
            said = await stack.updates.install(file_of(stack, patch))
        except (BundleError, InstallError) as error:
            raise ApiError("PATCH_APPLY_FAILED", str(error)) from error
        record_applied(stack, patch, host)
        await stack.database.durable()
    return said


def record_applied(stack: Stack, patch: Ref, host: Ref) -> None:
    """The host has the patch."""
    database = stack.database
    record = database.record("pool_patch", patch)
    fields: dict[str, Any] = {name: record[name] for name in ("name_label", "name_description", "version", "size")}
    fields |= {"applied": True, "timestamp_applied": moment(stack.clock.now())}
    with database.transaction() as transaction:
        for known in record["host_patches"]:
            if database.get("host_patch", known, "host") == host:
                transaction.update("host_patch", known, **fields)
                break
        else:
            transaction.create("host_patch", {**fields, "host": host, "pool_patch": patch})
        everywhere = all(applied_on(stack, patch, ref) for ref in database.refs("host"))
        transaction.update("pool_patch", patch, pool_applied=everywhere)


async def clean(stack: Stack, patch: Ref) -> None:
    """Delete the bundle; gone is no error. Raises as `in_use`."""
    with in_use(stack, patch):
        await _remove_file(stack, patch)


async def destroy(stack: Stack, patch: Ref) -> None:
    """Forget a patch that no host has, file and all. Raises PATCH_IS_APPLIED, and as `in_use`."""
    with in_use(stack, patch):
        assert_not_applied(stack, patch)
        await _remove_file(stack, patch)
        with stack.database.transaction() as transaction:
            for ref in stack.database.get("pool_patch", patch, "host_patches"):
                transaction.destroy("host_patch", ref)
            transaction.destroy("pool_patch", patch)


async def _remove_file(stack: Stack, patch: Ref) -> None:
    await in_thread(file_of(stack, patch).unlink, True)


def assert_not_applied(stack: Stack, patch: Ref) -> None:
    """Raises PATCH_IS_APPLIED for one that a host has."""
    if any(applied_on(stack, patch, host) for host in stack.database.refs("host")):
        raise ApiError("PATCH_IS_APPLIED")


async def recover(stack: Stack) -> None:
    """At a start: remove bundles that are nobody's, and make the rows true to the version that runs."""
    database = stack.database
    known = {f"{row.record['uuid']}{SUFFIX}" for row in database.rows("pool_patch").values()}
    await in_thread(_remove_others, directory_of(stack), known)
    started = await stack.updates.started()
    by_uuid = {row.record["uuid"]: ref for ref, row in database.rows("pool_patch").items()}
    with database.transaction() as transaction:
        for uuid in started.taken_back:
            if uuid in by_uuid and applied_on(stack, by_uuid[uuid], stack.host):
                _take_back(stack, transaction, by_uuid[uuid])
    running = by_uuid.get(started.uuid)
    if running is not None and not applied_on(stack, running, stack.host):
        record_applied(stack, running, stack.host)


def _take_back(stack: Stack, transaction: Transaction, patch: Ref) -> None:
    record = stack.database.record("pool_patch", patch)
    for ref in record["host_patches"]:
        transaction.destroy("host_patch", ref)
    transaction.update("pool_patch", patch, pool_applied=False)
    body = f"Version {record['version']} of patch '{record['name_label']}' did not start; the one before it is back."
    tell(stack, TAKEN_BACK, "Host", stack.database.get("host", stack.host, "uuid"), body)


def _remove_others(directory: Path, known: Collection[str]) -> None:
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name not in known:
                path.unlink()
