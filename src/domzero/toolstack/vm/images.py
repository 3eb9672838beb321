"""Saved memory: images on a repository, each a VDI of type `suspend`.

An image never changes once it is complete, so a suspended machine and its checkpoints may refer to the same one
(`VM.suspend_VDI`); it goes when the last of them lets go. Until the hypervisor said that all of it is on disk the image
is not managed, so that nobody takes it for one to resume from.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.storage.repositories import asking, attached, refresh_size
from domzero.toolstack.vm.memory_needs import memory_held

log = logging.getLogger(__name__)


def choose_repository(stack: Stack, vm: Ref) -> Ref:
    """Where the machine's memory is to be saved: its own choice, the pool's, the host's, then any that has room.

    Repositories that this host cannot write to are passed over. Raises VM_NO_SUSPEND_SR when none is left, and
    SR_SUSPEND_SPACE_INSUFFICIENT when those that are left are too full.
    """
    usable = holding_images(stack, _candidates(stack, vm))
    if not usable:
        raise ApiError("VM_NO_SUSPEND_SR", vm)
    sr = first_with_room(stack, usable, memory_held(stack.database.record("VM", vm)))
    if sr is None:
        raise ApiError("SR_SUSPEND_SPACE_INSUFFICIENT", usable[0])
    return sr


def holding_images(stack: Stack, candidates: Iterable[Ref]) -> list[Ref]:
    """Those of the repositories in which this host can make image files, each once; null references are none."""
    return [sr for sr in dict.fromkeys(candidates) if _can_hold_images(stack, sr)]


def first_with_room(stack: Stack, usable: Iterable[Ref], needed: int) -> Ref | None:
    """The first that has so many bytes free, or does not tell."""
    for sr in usable:
        record = stack.database.record("SR", sr)
        free = record["physical_size"] - record["physical_utilisation"]
        if record["physical_size"] <= 0 or free >= needed:
            return sr
    return None


def _candidates(stack: Stack, vm: Ref) -> Iterator[Ref]:
    database = stack.database
    yield database.get("VM", vm, "suspend_SR")
    yield database.get("pool", stack.pool, "suspend_image_SR")
    yield database.get("host", stack.host, "suspend_image_sr")
    yield database.get("pool", stack.pool, "default_SR")
    yield from (sr for sr in database.refs("SR") if not database.get("SR", sr, "shared"))


def _can_hold_images(stack: Stack, sr: Ref) -> bool:
    if stack.database.find("SR", sr) is None:
        return False
    try:
        driver, _ = attached(stack, sr)
    except ApiError:
        return False
    info = driver.info()
    return "VDI_CREATE" in info.capabilities and info.holds_images


async def remember(stack: Stack, vm: Ref, image_uuid: str) -> Ref:
    """The row of an image that is about to be made, referred to by the machine; on disk when this returns.

    The row comes before the file, so that no file is left which nobody knows of. Raises as `choose_repository`.
    """
    sr = choose_repository(stack, vm)
    record = stack.database.record("VM", vm)
    with stack.database.transaction() as transaction:
        fields = {**_fields(record), "uuid": image_uuid, "SR": sr, "location": image_uuid}
        image = transaction.create("VDI", fields)
        transaction.update("VM", vm, suspend_VDI=image)
    await stack.database.durable()
    return image


async def make(stack: Stack, image: Ref) -> None:
    """The empty file of an image whose row is there."""
    record = stack.database.record("VDI", image)
    driver, repository = attached(stack, record["SR"])
    await asking(driver.create_image(repository, record["uuid"]))


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name_label": "Suspend image",
        "name_description": f"Memory of {record['name_label']}",
        "type": "suspend",
        "managed": False,
        "sharable": False,
        "other_config": {"vm_uuid": record["uuid"]},
    }


async def path(stack: Stack, image: Ref) -> Path:
    """The image's file. Raises SUSPEND_IMAGE_NOT_ACCESSIBLE."""
    try:
        return (await disks.disk_source(stack, image)).path
    except ApiError as error:
        raise ApiError("SUSPEND_IMAGE_NOT_ACCESSIBLE", image) from error


async def complete(stack: Stack, image: Ref) -> None:
    """The hypervisor has written the whole image: record its size and that it is one. On disk when this returns."""
    await disks.update_vdi(stack, image)
    with stack.database.transaction() as transaction:
        transaction.update("VDI", image, managed=True)
    disks.refresh_operations(stack, (image,))
    try:
        await refresh_size(stack, stack.database.get("VDI", image, "SR"))
    except ApiError as error:
        log.info("the sizes of the repository stay as they were: %s", error)
    await stack.database.durable()


def is_complete(stack: Stack, image: Ref) -> bool:
    """Whether the image can be resumed from."""
    found = stack.database.find("VDI", image)
    return found is not None and bool(found.record["managed"])


async def release(stack: Stack, image: Ref) -> None:
    """Delete the image unless a machine still refers to it. One that cannot be deleted is left to an operator."""
    if stack.database.find("VDI", image) is None:
        return
    if stack.image_users.of(image):
        return
    try:
        await disks.destroy_vdi(stack, image)
    except ApiError as error:
        log.warning("the memory image %s stays behind: %s", image, error)


async def discard(stack: Stack, vm: Ref, image: Ref) -> None:
    """Let the machine no longer refer to the image, and delete it."""
    if stack.database.find("VM", vm) is not None and stack.database.get("VM", vm, "suspend_VDI") == image:
        with stack.database.transaction() as transaction:
            transaction.update("VM", vm, suspend_VDI=NULL_REF)
    await release(stack, image)
