"""What is changed in a machine from another toolstack so that it runs here, and what is said of what cannot run.

The rules are rows, applied in order; each looks at what those before it left. `docs/import-from-xenserver.md` lists
them for operators. Pure: a machine's fields go in and come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from domzero.engine.errors import ApiError
from domzero.toolstack.stack import StackSettings
from domzero.toolstack.vm.device_names import parse_vbd_position
from domzero.toolstack.vm.install.loader_options import for_virtio
from domzero.toolstack.vm.specification import DISK_BOOTLOADERS, INSTALLER_BOOTLOADERS, boot_of, is_hvm

ORIGINAL: Final = "import-original-"
"""Keys of other_config that keep what a field said before a rule changed it."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine of an archive. `fields` are those of its VM object."""

    fields: Mapping[str, Any]
    settings: StackSettings
    own: bool = True
    """Whether domzero wrote the archive."""
    disks: Sequence[str] = ()
    """The `userdevice` of each hard disk."""
    left_out: Sequence[str] = ()
    """Devices of kinds that machines cannot have here, by name."""
    suspended: bool = False
    """Whether it was suspended where it comes from."""
    system: str = ""
    """The guest's operating system as its agent told it (`distro`), in lower case."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule does: fields that change, and what is said to people; nothing is said where that is empty."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. `look` gives None where the rule does not apply."""

    name: str
    look: Callable[[Guest], Finding | None]
    foreign_only: bool = True


@dataclass(frozen=True, slots=True)
class Adapted:
    """A machine as it is to be here, and what is to be said of it, a sentence or two a rule."""

    fields: Mapping[str, Any]
    notes: tuple[str, ...]


def adapt(guest: Guest) -> Adapted:
    """Apply the rules to a machine."""
    notes: list[str] = []
    fields = dict(guest.fields)
    for rule in RULES:
        if guest.own and rule.foreign_only:
            continue
        found = rule.look(_with(guest, fields))
        if found is None:
            continue
        fields = _changed(fields, found.changes)
        if found.text:
            notes.append(found.text)
    return Adapted(fields, tuple(notes))


def _with(guest: Guest, fields: Mapping[str, Any]) -> Guest:
    return Guest(fields, guest.settings, guest.own, guest.disks, guest.left_out, guest.suspended, guest.system)


def _changed(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the changes made; texts that are replaced are kept in other_config."""
    after = {**fields, **changes}
    config = dict(after["other_config"])
    for name in changes:
        before = fields[name]
        if isinstance(before, str) and before and before != after[name]:
            config.setdefault(ORIGINAL + name, before)
    return {**after, "other_config": config}


def _own_kernel(guest: Guest) -> Finding | None:
    """Every host makes its Tiny Linux itself, somewhere else."""
    changes = {}
    for name, here in (("PV_kernel", guest.settings.guest_kernel), ("PV_ramdisk", guest.settings.guest_ramdisk)):
        there = guest.fields[name]
        if here is not None and there and Path(there).name == here.name and there != str(here):
            changes[name] = str(here)
    return Finding(changes) if changes else None


def _kernel_elsewhere(guest: Guest) -> Finding | None:
    if is_hvm(guest.fields) or not guest.fields["PV_kernel"] or guest.fields["PV_bootloader"]:
        return None
    if _boots(guest):
        return None
    kernel = guest.fields["PV_kernel"]
    changes = {"PV_kernel": "", "PV_ramdisk": "", "PV_bootloader": "pygrub"}
    return Finding(
        changes, f"Its kernel {kernel} was a file of its old host. It boots what its own disk boots instead."
    )


def _loader_elsewhere(guest: Guest) -> Finding | None:
    loader = guest.fields["PV_bootloader"]
    if is_hvm(guest.fields) or not loader or loader in DISK_BOOTLOADERS | INSTALLER_BOOTLOADERS:
        return None
    if Path(loader).name in DISK_BOOTLOADERS:
        return Finding({"PV_bootloader": Path(loader).name})
    text = f"The boot loader {loader} does not exist here. It boots what its own disk boots instead."
    return Finding({"PV_bootloader": "pygrub"}, text)


def _arguments(guest: Guest) -> Finding | None:
    """Kernel arguments name the first serial line, and disks by virtio's names: those count hard disks only."""
    if is_hvm(guest.fields):
        return None
    positions = [position for disk in guest.disks if (position := parse_vbd_position(disk)) is not None]
    changes = {}
    for name in ("PV_args", "PV_legacy_args"):
        text = for_virtio(guest.fields[name], positions)
        if text != guest.fields[name]:
            changes[name] = text
    return Finding(changes) if changes else None


def _paravirtual(guest: Guest) -> Finding | None:
    if is_hvm(guest.fields) or guest.fields["is_a_template"] or guest.fields["PV_kernel"]:
        return None
    return Finding(text=(
        "It was made for Xen's paravirtual interface. Here the kernel on its disk runs on virtio hardware: it needs"
        " virtio drivers (Linux 2.6.25 or later), and disks named /dev/xvd in its own files are /dev/vd."
    ))  # fmt: skip


def _windows(guest: Guest) -> Finding | None:
    viridian = guest.fields["platform"].get("viridian", "false") in ("true", "1")
    if not is_hvm(guest.fields) or guest.fields["is_a_template"] or not (viridian or "windows" in guest.system):
        return None
    return Finding(text=(
        "It looks like Windows, whose disks are virtio here: it starts only if the virtio disk driver (viostor) was"
        " installed before it was exported."
    ))  # fmt: skip


def _uefi(guest: Guest) -> Finding | None:
    boots_uefi = guest.fields["HVM_boot_params"].get("firmware") == "uefi"
    if not is_hvm(guest.fields) or guest.fields["is_a_template"] or not boots_uefi:
        return None
    return Finding(text=(
        "It boots by UEFI, whose boot entries are not kept here: its disk must have a loader at"
        " \\EFI\\BOOT\\BOOTX64.EFI, where the firmware looks without any."
    ))  # fmt: skip


def _memory_left(guest: Guest) -> Finding | None:
    if not guest.suspended:
        return None
    return Finding(text="It was suspended. Another hypervisor's saved memory cannot be gone on from: it is halted.")


def _passed_through(guest: Guest) -> Finding | None:
    config = guest.fields["other_config"]
    if "pci" not in config:
        return None
    devices = config["pci"]
    left = {key: value for key, value in config.items() if key != "pci"}
    return Finding({"other_config": left}, f"Devices of its old host ({devices}) are not passed through here.")


def _left_out(guest: Guest) -> Finding | None:
    if not guest.left_out:
        return None
    return Finding(text=f"Devices that machines cannot have here were left out: {', '.join(guest.left_out)}.")


def _cannot_start(guest: Guest) -> Finding | None:
    if _boots(guest) or guest.fields["is_a_template"]:
        return None
    return Finding(text="It cannot start as it is: neither a kernel of this host nor a boot loader is set.")


def _boots(guest: Guest) -> bool:
    """Whether there is something to boot, apart from what is in its drives."""
    if guest.fields["PV_bootloader"] in INSTALLER_BOOTLOADERS:
        return True
    try:
        boot_of("", guest.fields, (), guest.settings)
    except ApiError:
        return False
    return True


RULES: Final = (
    Rule("tiny-linux", _own_kernel, foreign_only=False),
    Rule("suspended", _memory_left),
    Rule("kernel-of-the-old-host", _kernel_elsewhere),
    Rule("boot-loader", _loader_elsewhere),
    Rule("kernel-arguments", _arguments),
    Rule("paravirtual", _paravirtual),
    Rule("windows", _windows),
    Rule("uefi", _uefi),
    Rule("passed-through", _passed_through),
    Rule("left-out", _left_out, foreign_only=False),
    Rule("cannot-start", _cannot_start, foreign_only=False),
)
"""The rules in the order in which they are applied."""


def boots_from_disk(fields: Mapping[str, Any]) -> bool:
    """Whether a machine without its own kernel relies on a BIOS boot loader that it may never have needed before."""
    return not is_hvm(fields) and not fields["PV_kernel"] and fields["PV_bootloader"] not in INSTALLER_BOOTLOADERS


NO_BOOT_CODE: Final = (
    "Its boot disk holds no boot loader, as Xen needed none: pygrub (of Debian's xen-utils) looks for its kernel there"
    " at each start. Where that finds none, start it from a rescue CD and run grub-install, or set a kernel of this"
    " host as PV_kernel."
)
