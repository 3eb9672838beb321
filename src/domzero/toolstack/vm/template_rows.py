"""The templates that every pool has, as rows. `domzero.toolstack.vm.templates` turns them into VM objects.

Memory figures are what each system's maker asks for at least and what its installer is comfortable with; disk sizes
are what a fresh installation needs with room to work. To change a template change its row: pools take it over at the
next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from domzero.toolstack.vm.install.families import FAMILIES

MIB = 1 << 20
GIB = 1 << 30


class BootMethod(Enum):
    """How machines made from a template start."""

    KERNEL = "kernel"
    """From a kernel and RAM disk on the host, as paravirtual guests do."""
    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """One template. Sizes are bytes; `disks` are made in the default repository at provision, the first bootable."""

    key: str
    """Stays the same when the name changes; clients find it in `reference_label`."""
    name: str
    description: str
    memory_min: int
    memory: int
    disks: tuple[int, ...]
    boot: BootMethod = BootMethod.BIOS
    boot_order: str = "cdn"
    vcpus: int = 1
    vcpus_max: int = 64
    memory_max: int = 1536 * GIB
    distro: str = ""
    """The family of installer, `other_config:install-distro`; empty for what is not Linux."""
    release: str = ""
    """The release's code name where the installer is found by it, `other_config:debian-release`."""
    install_methods: tuple[str, ...] = ()
    windows: bool = False
    kernel_arguments: str = ""


_CD = ("cdrom",)
_CD_OR_NETWORK = ("cdrom", "nfs", "http", "ftp")
"""XenServer's words; https is taken wherever http is."""

TINY_LINUX = TemplateRow(
    key="tiny-linux",
    name="Tiny Linux",
    description="A Linux in a few megabytes that boots in seconds and logs in as root on its serial console: for "
    "trying things out and for tests.",
    memory_min=128 * MIB,
    memory=256 * MIB,
    disks=(128 * MIB,),
    boot=BootMethod.KERNEL,
    vcpus_max=16,
    memory_max=64 * GIB,
    distro="tinylinux",
    # Consoles on the serial line, and none of the boot-time checks that are slow under emulation.
    kernel_arguments="console=ttyS0 quiet mitigations=off random.trust_cpu=on tsc=reliable no_timer_check",
)

OTHER = TemplateRow(
    key="other-install-media",
    name="Other install media",
    description="No assumptions: boots from the CD drive first, then from disk. For systems that are not listed.",
    memory_min=128 * MIB,
    memory=1 * GIB,
    disks=(),
    boot_order="dc",
)


def _linux(
    key: str, name: str, distro: str, memory_min: int, memory: int, disk: int, *, release: str = ""
) -> TemplateRow:
    from_network = distro in FAMILIES
    return TemplateRow(
        key,
        name,
        f"Installs {name} from its CD image{' or from a repository on the network' if from_network else ''}.",
        memory_min,
        memory,
        (disk,),
        distro=distro,
        release=release,
        install_methods=_CD_OR_NETWORK if from_network else _CD,
    )


def _windows(
    key: str, name: str, memory_min: int, memory: int, disk: int, boot: BootMethod = BootMethod.BIOS, vcpus: int = 2
) -> TemplateRow:
    return TemplateRow(
        key,
        name,
        f"Installs {name} from its CD image.",
        memory_min,
        memory,
        (disk,),
        boot=boot,
        vcpus=vcpus,
        install_methods=_CD,
        windows=True,
    )


LINUX = (
    _linux("debian-11", "Debian Bullseye 11", "debianlike", 256 * MIB, 1 * GIB, 10 * GIB, release="bullseye"),
    _linux("debian-12", "Debian 12", "debianlike", 256 * MIB, 1 * GIB, 10 * GIB, release="bookworm"),
    _linux("debian-13", "Debian 13", "debianlike", 512 * MIB, 1 * GIB, 10 * GIB, release="trixie"),
    _linux("ubuntu-22.04", "Ubuntu Jammy Jellyfish 22.04", "debianlike", 512 * MIB, 2 * GIB, 15 * GIB, release="jammy"),
    _linux("ubuntu-24.04", "Ubuntu Noble Numbat 24.04", "debianlike", 1 * GIB, 2 * GIB, 15 * GIB, release="noble"),
    _linux("rhel-8", "Red Hat Enterprise Linux 8", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("rhel-9", "Red Hat Enterprise Linux 9", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("centos-stream-9", "CentOS Stream 9", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("almalinux-8", "AlmaLinux 8", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("almalinux-9", "AlmaLinux 9", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("rocky-8", "Rocky Linux 8", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("rocky-9", "Rocky Linux 9", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("oracle-8", "Oracle Linux 8", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("oracle-9", "Oracle Linux 9", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("fedora", "Fedora Server", "rhlike", 2 * GIB, 3 * GIB, 20 * GIB),
    _linux("sles-15", "SUSE Linux Enterprise Server 15", "sleslike", 1 * GIB, 2 * GIB, 20 * GIB),
    _linux("opensuse-leap-15", "openSUSE Leap 15", "sleslike", 1 * GIB, 2 * GIB, 20 * GIB),
    _linux("alpine", "Alpine Linux 3", "alpinelike", 128 * MIB, 512 * MIB, 4 * GIB),
)

WINDOWS = (
    _windows("windows-10", "Windows 10 (64-bit)", 2 * GIB, 4 * GIB, 64 * GIB),
    _windows("windows-11", "Windows 11", 4 * GIB, 8 * GIB, 64 * GIB, BootMethod.UEFI),
    _windows("windows-server-2016", "Windows Server 2016 (64-bit)", 1 * GIB, 4 * GIB, 64 * GIB),
    _windows("windows-server-2019", "Windows Server 2019 (64-bit)", 1 * GIB, 4 * GIB, 64 * GIB),
    _windows("windows-server-2022", "Windows Server 2022 (64-bit)", 2 * GIB, 4 * GIB, 64 * GIB, BootMethod.UEFI),
    _windows("windows-server-2025", "Windows Server 2025 (64-bit)", 2 * GIB, 4 * GIB, 64 * GIB, BootMethod.UEFI),
)

TEMPLATES: tuple[TemplateRow, ...] = (TINY_LINUX, *LINUX, *WINDOWS, OTHER)
"""Every template; the rows that boot a kernel are left out where the host has none."""
