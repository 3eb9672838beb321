"""From what a machine's row says to what its next boot has to fetch and tell: pure functions.

What clients say in `other_config`, in XenServer's words:

| key                                  | meaning                                                                      |
|--------------------------------------|------------------------------------------------------------------------------|
| `install-repository`                 | where the repository is, see `source`                                        |
| `install-distro`                     | the family of installer: a key of `families.FAMILIES`                        |
| `debian-release`                     | the release's code name, for Debian and Ubuntu                               |
| `install-arch`                       | the processor, for families that keep several in one repository              |
| `install-kernel`, `install-ramdisk`  | paths below the repository, in place of the family's                         |
| `install-args`                       | further kernel arguments for the installer                                   |
| `install-vnc`                        | `true` for an installer on the machine's screen, instead of its serial line  |
| `install-round`                      | which boot comes next, counted from 1; set by us after each                  |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.vm.install.families import FAMILIES, SERIAL, Family, Step, Tree
from domzero.toolstack.vm.install.source import CDROM, Repository, read_repository
from domzero.toolstack.vm.specification import DISK_BOOTLOADERS, INSTALLER_BOOTLOADERS, is_hvm

REPOSITORY: Final = "install-repository"
DISTRO: Final = "install-distro"
RELEASE: Final = "debian-release"
ARCHITECTURE: Final = "install-arch"
KERNEL: Final = "install-kernel"
RAMDISK: Final = "install-ramdisk"
ARGUMENTS: Final = "install-args"
VNC: Final = "install-vnc"
ROUND: Final = "install-round"

AFTERWARDS: Final = "pygrub"
"""What boots a machine once eliloader has installed it."""
COMMAND_LINE_LIMIT: Final = 2047
"""Bytes that Linux takes on x86 (COMMAND_LINE_SIZE, less its end)."""
ON: Final = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True)
class Plan:
    """One boot of a machine that is being installed."""

    round: int
    is_last: bool
    repository: Repository
    step: Step
    trees: tuple[Tree, ...] = ()
    """Where to look for the installer, everything filled in."""
    arguments: str = ""
    on_screen: bool = False
    """Whether the installer shows itself on the machine's graphics card, which it has to have then."""
    insists: bool = False
    """Whether what was asked of the installer is lost when its disc's own loader starts it."""

    @property
    def fetches(self) -> bool:
        """Whether there is a kernel to fetch from the network."""
        return self.step is Step.INSTALLER and self.repository.kind != CDROM

    @property
    def looks_at_disc(self) -> bool:
        """Whether a kernel is looked for on the disc in the machine's drive."""
        return self.step is Step.INSTALLER and self.repository.kind == CDROM and bool(self.trees)

    def after(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What changes in the machine's row once it runs."""
        changes: dict[str, Any] = {"other_config": {**record["other_config"], ROUND: str(self.round + 1)}}
        if self.is_last and record["PV_bootloader"] in INSTALLER_BOOTLOADERS:
            changes["PV_bootloader"] = AFTERWARDS
        return changes


def plan_of(vm: Ref, record: Mapping[str, Any]) -> Plan | None:
    """What the machine's next boot installs; None where it starts as its other fields say.

    Machines with firmware or a kernel of their own are installed from a repository on the network, too; `cdrom` and
    whatever else they name leaves those to their boot order. Raises BOOTLOADER_FAILED for what cannot be carried out.
    """
    config = record["other_config"]
    installs = record["PV_bootloader"] in INSTALLER_BOOTLOADERS and not is_hvm(record)
    if record["PV_bootloader"] in DISK_BOOTLOADERS and not is_hvm(record):
        return None
    named = config.get(REPOSITORY, "")
    repository = read_repository(named or CDROM)
    if not installs and (repository is None or repository.kind == CDROM):
        return None
    if repository is None:
        raise _failed(vm, f"other_config:{REPOSITORY} is no http, https, ftp or nfs address, and not cdrom")
    return _plan(vm, record, repository)


def _plan(vm: Ref, record: Mapping[str, Any], repository: Repository) -> Plan | None:
    config = record["other_config"]
    number = _round(vm, config)
    family = FAMILIES.get(config.get(DISTRO, ""))
    if family is None and repository.kind != CDROM:
        raise _failed(vm, f"other_config:{DISTRO} names none of the installers {', '.join(FAMILIES)}")
    steps = (Step.INSTALLER,) if family is None else family.steps
    if number > len(steps):
        return None
    step, is_last = steps[number - 1], number == len(steps)
    if family is None or step is Step.DISK:
        return Plan(number, is_last, repository, step)
    trees = _trees(vm, family, config, family.discs if repository.kind == CDROM and family.discs else family.trees)
    on_screen = config.get(VNC, "").lower() in ON
    arguments = _arguments(vm, family, record, repository, family.graphical if on_screen else family.text)
    insists = any(config.get(key) for key in (ARGUMENTS, KERNEL, RAMDISK))
    return Plan(number, is_last, repository, step, trees, arguments, on_screen, insists)


def _round(vm: Ref, config: Mapping[str, str]) -> int:
    text = config.get(ROUND, "1")
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and int(text) > 0):
        raise _failed(vm, f"other_config:{ROUND} is no number of a round")
    return int(text)


def _trees(vm: Ref, family: Family, config: Mapping[str, str], known: tuple[Tree, ...]) -> tuple[Tree, ...]:
    own = {key: config[key] for key in (KERNEL, RAMDISK) if config.get(key)}
    for key, path in own.items():
        if not is_path_below(path):
            raise _failed(vm, f"other_config:{key} is no path below the repository")
    if len(own) == len((KERNEL, RAMDISK)):
        return (Tree(own[KERNEL], own[RAMDISK]),)
    release = config.get(RELEASE, "")
    named = config.get(ARCHITECTURE, "")
    if family.architectures and named not in family.architectures:
        raise _failed(vm, f"other_config:{ARCHITECTURE} is none of {', '.join(filter(None, family.architectures))}")
    trees = [tree for tree in known if "{release}" not in tree.kernel or _is_plain(release)]
    if "{release}" in known[0].kernel and not _is_plain(release):
        raise _failed(vm, f"other_config:{RELEASE} has to name the release")
    words = {"release": release, "arch": family.architectures.get(named, "")}
    return tuple(
        Tree(
            own.get(KERNEL) or tree.kernel.format(**words),
            own.get(RAMDISK) or tree.ramdisk.format(**words),
            tree.listing.format(**words),
            tree.listed_below.format(**words),
        )
        for tree in trees
    )


def _arguments(vm: Ref, family: Family, record: Mapping[str, Any], repository: Repository, shown: str) -> str:
    config = record["other_config"]
    told = family.told.get(repository.kind, "").format(
        url=repository.public, host=repository.host, path=repository.path or "/"
    )
    text = " ".join(part for part in (told, shown, config.get(ARGUMENTS, ""), record["PV_args"]) if part)
    if family.marks and SERIAL in shown:
        text = _with_lasting_console(text, family.marks)
    if not text.isprintable() or len(text.encode()) > COMMAND_LINE_LIMIT:
        raise _failed(vm, f"the kernel takes one line of at most {COMMAND_LINE_LIMIT} bytes of arguments")
    return text


def _with_lasting_console(text: str, marks: tuple[str, ...]) -> str:
    """The arguments, such that the installed system speaks where its installer spoke, unless they say where."""
    words = text.split()
    begin = next((number for number, word in enumerate(words) if word in marks), None)
    if begin is None:
        return f"{text} {marks[0]} {SERIAL}"
    return text if any(word.startswith("console=") for word in words[begin:]) else f"{text} {SERIAL}"


def is_path_below(path: str) -> bool:
    """Whether this is a plain relative path that stays below where it begins."""
    plain = path.isascii() and path.isprintable() and not any(letter in path for letter in " ?#%\\:@")
    return plain and not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))


def _is_plain(word: str) -> bool:
    return word.isascii() and word.replace("-", "").replace(".", "").isalnum()


def _failed(vm: Ref, why: str) -> ApiError:
    return ApiError("BOOTLOADER_FAILED", vm, why)
