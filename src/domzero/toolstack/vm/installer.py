"""Machines that are being installed: eliloader, the boot loader that starts an operating system's installer.

What is asked for is in `install.plan`, what is known of installers in `install.families`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domzero.engine.errors import ApiError
from domzero.finish import in_thread
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.console_places import GRAPHICS_CARD
from domzero.toolstack.vm.install.acceptance import objection
from domzero.toolstack.vm.install.families import Step
from domzero.toolstack.vm.install.plan import AFTERWARDS, Plan, plan_of
from domzero.toolstack.vm.install.repository import Fetcher, InstallerMissingError
from domzero.toolstack.vm.specification import GUEST_FILES, INSTALLER_BOOTLOADERS, is_hvm

FETCHING_SHARE = 0.9
"""How much of a start is done when the installer is there."""


@dataclass(frozen=True, slots=True)
class Installation:
    """How the machine boots this time because of its installation."""

    plan: Plan | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields that take the place of the machine's own for this boot."""

    def after(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What changes in the machine's row once it runs."""
        return {} if self.plan is None else self.plan.after(record)


async def prepare(stack: Stack, vm: Ref, progress: Callable[[float], None]) -> Installation:
    """Fetch what the next boot needs, if it is a boot of an installer.

    What earlier boots needed is removed: the caller knows that the machine has no domain. Raises BOOTLOADER_FAILED.
    """
    record = stack.database.record("VM", vm)
    plan = plan_of(vm, record)
    if str(_directory(stack, record["uuid"])) in record["last_booted_record"]:
        await discard(stack, record["uuid"])
    if plan is not None and plan.fetches:
        fields = await _fetched(stack, vm, record["uuid"], plan, progress)
        return Installation(plan, {**fields, **(graphics_card(record) if plan.on_screen else {})})
    firmware = is_hvm(record) or record["PV_bootloader"] not in INSTALLER_BOOTLOADERS
    if firmware or (plan is not None and plan.step is Step.INSTALLER):
        return Installation(plan)
    return Installation(plan, {"PV_bootloader": AFTERWARDS})


def graphics_card(record: Mapping[str, Any]) -> dict[str, Any]:
    """A graphics card for this boot, so that the machine's screen is that card's."""
    return {"platform": {**record["platform"], GRAPHICS_CARD: "std"}}


async def _fetched(stack: Stack, vm: Ref, uuid: str, plan: Plan, progress: Callable[[float], None]) -> dict[str, Any]:
    shown = 0.0

    def tell(share: float) -> None:
        nonlocal shown
        if share * FETCHING_SHARE >= shown + 0.01:
            shown = share * FETCHING_SHARE
            progress(shown)

    kernel, ramdisk = await places(stack, uuid)
    try:
        await Fetcher(plan.repository, stack.download, stack.contents, tell).fetch(plan.trees, kernel, ramdisk)
        memory = stack.database.get("VM", vm, "memory_static_max")
        if why := await in_thread(objection, kernel, ramdisk, memory):
            raise InstallerMissingError(f"the installer at {plan.repository.public} cannot be booted: {why}")
    except InstallerMissingError as error:
        await discard(stack, uuid)
        raise ApiError("BOOTLOADER_FAILED", vm, str(error)) from error
    except BaseException:
        await discard(stack, uuid)
        raise
    return kernel_fields(kernel, ramdisk, plan.arguments)


def kernel_fields(kernel: Path, ramdisk: Path | None, arguments: str) -> dict[str, Any]:
    """The fields of a machine that boots a kernel of the host."""
    return {
        "domain_type": "pv",
        "HVM_boot_policy": "",
        "PV_bootloader": "",
        "PV_kernel": str(kernel),
        "PV_ramdisk": "" if ramdisk is None else str(ramdisk),
        "PV_args": arguments,
        "PV_legacy_args": "",
    }


async def places(stack: Stack, uuid: str) -> tuple[Path, Path]:
    """Where kernel and RAM disk of the machine with this uuid are put, in a directory that is made."""
    directory = _directory(stack, uuid)
    await in_thread(directory.mkdir, parents=True, exist_ok=True)
    return directory / "linux", directory / "initrd"


async def discard(stack: Stack, uuid: str) -> None:
    """Remove the files that were fetched for the machine with this uuid, if there are any."""
    await in_thread(shutil.rmtree, _directory(stack, uuid), ignore_errors=True)


def _directory(stack: Stack, uuid: str) -> Path:
    return stack.settings.state_dir / GUEST_FILES / uuid
