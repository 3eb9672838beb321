"""Patches of the pool, and what each host has of them."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.patches import rules
from domzero.toolstack.stack import Stack


@implements("pool_patch.precheck")
async def precheck(stack: Stack, context: Context, self: Ref, host: Ref) -> str:
    """Whether the patch can be installed on the host; see `rules.assert_fits` for what is raised where it cannot."""
    bundle = await rules.assert_fits(stack, self, host)
    return f"Version {bundle.version} can be installed."


@implements("pool_patch.apply")
async def apply(stack: Stack, context: Context, self: Ref, host: Ref) -> str:
    """Install the patch; the host runs it once its toolstack has been restarted. What the installation said."""
    return await rules.install(stack, self, host)


@implements("pool_patch.pool_apply")
async def pool_apply(stack: Stack, context: Context, self: Ref) -> None:
    """Install the patch on every host that does not have it."""
    for host in stack.database.refs("host"):
        if not rules.applied_on(stack, self, host):
            await rules.install(stack, self, host)


@implements("pool_patch.clean")
async def clean(stack: Stack, context: Context, self: Ref) -> None:
    """Delete the file; what is recorded of the patch stays."""
    await rules.clean(stack, self)


@implements("pool_patch.clean_on_host")
async def clean_on_host(stack: Stack, context: Context, self: Ref, host: Ref) -> None:
    """The same on one host."""
    stack.database.row("host", host)
    await rules.clean(stack, self)


@implements("pool_patch.pool_clean")
async def pool_clean(stack: Stack, context: Context, self: Ref) -> None:
    """The same on all."""
    await rules.clean(stack, self)


@implements("pool_patch.destroy")
async def destroy(stack: Stack, context: Context, self: Ref) -> None:
    """Forget a patch that no host has, file and all. Raises PATCH_IS_APPLIED."""
    await rules.destroy(stack, self)


@implements("host_patch.apply")
async def apply_on_its_host(stack: Stack, context: Context, self: Ref) -> str:
    """Install the patch that the record belongs to on the record's host. What the installation said."""
    record = stack.database.record("host_patch", self)
    if record["applied"]:
        raise ApiError("PATCH_ALREADY_APPLIED", self)
    if stack.database.find("pool_patch", record["pool_patch"]) is None:
        raise ApiError("CANNOT_FIND_PATCH")
    return await rules.install(stack, record["pool_patch"], record["host"])


@implements("host_patch.destroy")
async def destroy_on_its_host(stack: Stack, context: Context, self: Ref) -> None:
    """Forget a patch that its host does not have, file and all. Raises PATCH_IS_APPLIED."""
    record = stack.database.record("host_patch", self)
    if record["applied"]:
        raise ApiError("PATCH_IS_APPLIED")
    if stack.database.find("pool_patch", record["pool_patch"]) is not None:
        await rules.clean(stack, record["pool_patch"])
    with stack.database.transaction() as transaction:
        transaction.destroy("host_patch", self)
