"""Installing a Linux from a repository on the network: its installer's kernel is fetched and booted once.

What clients say in `other_config`, in XenServer's words:

| key                  | meaning                                                                             |
|----------------------|-------------------------------------------------------------------------------------|
| `install-repository` | address of the repository; anything else (`cdrom`) leaves the boot order to the CD   |
| `install-distro`     | the family of installer: a key of `FAMILIES`                                         |
| `debian-release`     | the release's code name, for `debianlike`                                            |
| `install-args`       | further arguments for the installer                                                  |
| `install-round`      | set to 2 once the installer has been started; from then on the machine boots its disk |
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.engine.errors import ApiError
from domzero.finish import in_thread
from domzero.host.download.protocol import DownloadError, is_fetchable
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.vm.specification import GUEST_FILES

REPOSITORY = "install-repository"
DISTRO = "install-distro"
RELEASE = "debian-release"
ARGUMENTS = "install-args"
ROUND = "install-round"
STARTED = "2"

LARGEST_KERNEL = 64 << 20
LARGEST_RAMDISK = 512 << 20


@dataclass(frozen=True, slots=True)
class Family:
    """Where an installer's files are below the repository, and what its kernel is told. Places in braces are filled in
    with the repository's address and the release."""

    kernel: str
    ramdisk: str
    arguments: str


FAMILIES: Mapping[str, Family] = {
    "debianlike": Family(
        "dists/{release}/main/installer-amd64/current/images/netboot/debian-installer/amd64/linux",
        "dists/{release}/main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz",
        "console=ttyS0",
    ),
    "rhlike": Family(
        "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", "inst.repo={repository} inst.text console=ttyS0"
    ),
    "sleslike": Family("boot/x86_64/loader/linux", "boot/x86_64/loader/initrd", "install={repository} console=ttyS0"),
}
"""`install-distro` → what is known of the installer (Debian installation guide, section 4.3; Fedora's and SUSE's
guides on network installation)."""


@dataclass(frozen=True, slots=True)
class Installer:
    """What to fetch, and what to tell the kernel."""

    kernel: str
    ramdisk: str
    arguments: str


def installer_of(vm: Ref, record: Mapping[str, Any]) -> Installer | None:
    """What the machine is to be installed with at its next boot; None where nothing is, or not from the network.

    Raises BOOTLOADER_FAILED for a family that is not known and for a Debian without its release.
    """
    config = record["other_config"]
    repository = config.get(REPOSITORY, "").rstrip("/")
    if config.get(ROUND) == STARTED or not is_fetchable(repository):
        return None
    family = FAMILIES.get(config.get(DISTRO, ""))
    if family is None:
        known = ", ".join(FAMILIES)
        raise ApiError("BOOTLOADER_FAILED", vm, f"other_config:{DISTRO} names none of the installers {known}")
    release = config.get(RELEASE, "")
    if "{release}" in family.kernel and not _is_plain(release):
        raise ApiError("BOOTLOADER_FAILED", vm, f"other_config:{RELEASE} has to name the release")
    arguments = (family.arguments.format(repository=repository), config.get(ARGUMENTS, ""), record["PV_args"])
    return Installer(
        f"{repository}/{family.kernel.format(release=release)}",
        f"{repository}/{family.ramdisk.format(release=release)}",
        " ".join(part for part in arguments if part),
    )


async def boot_overrides(stack: Stack, vm: Ref) -> dict[str, Any]:
    """Fields that take the place of the machine's own for its next boot: its installer's, fetched, or none.

    Raises BOOTLOADER_FAILED when the installer cannot be had.
    """
    record = stack.database.record("VM", vm)
    installer = installer_of(vm, record)
    if installer is None:
        return {}
    directory = _directory(stack, record["uuid"])
    kernel, ramdisk = directory / "linux", directory / "initrd"
    try:
        await in_thread(directory.mkdir, parents=True, exist_ok=True)
        await stack.download(installer.kernel, kernel, largest=LARGEST_KERNEL)
        await stack.download(installer.ramdisk, ramdisk, largest=LARGEST_RAMDISK)
    except (DownloadError, OSError) as error:
        raise ApiError("BOOTLOADER_FAILED", vm, f"the installer could not be fetched: {error}") from error
    return {
        "domain_type": "pv",
        "HVM_boot_policy": "",
        "PV_bootloader": "",
        "PV_kernel": str(kernel),
        "PV_ramdisk": str(ramdisk),
        "PV_args": installer.arguments,
        "PV_legacy_args": "",
    }


def record_installing(stack: Stack, vm: Ref) -> None:
    """The installer runs: from its next boot on the machine starts from its disk."""
    config = {**stack.database.get("VM", vm, "other_config"), ROUND: STARTED}
    with stack.database.transaction() as transaction:
        transaction.update("VM", vm, other_config=config)


async def discard(stack: Stack, uuid: str) -> None:
    """Remove the files that were fetched for the machine with this uuid, if there are any."""
    await in_thread(shutil.rmtree, _directory(stack, uuid), ignore_errors=True)


def _directory(stack: Stack, uuid: str) -> Path:
    return stack.settings.state_dir / GUEST_FILES / uuid


def _is_plain(word: str) -> bool:
    return word.isascii() and word.replace("-", "").isalnum()
