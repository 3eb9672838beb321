"""What is known of each family of Linux installers, as data: where its kernel is in a repository, what it is told.

Sources: Debian's and Ubuntu's installation guides (4.3, 5.3), Anaconda's boot options, linuxrc's parameters (SUSE).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


class Step(Enum):
    """What one boot under eliloader starts."""

    INSTALLER = "installer"
    DISK = "disk"
    """What was installed so far, which goes on installing itself."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One layout of a repository: paths below its address. `{release}` and `{arch}` are filled in."""

    kernel: str
    ramdisk: str
    listing: str = ""
    """The file that lists checksums; empty where none is published."""
    listed_below: str = ""
    """The directory that the listing's names are relative to, with a slash at the end."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `told` gives, by the kind of repository, how the installer learns where it is: `{url}`, `{scheme}`,
    `{host}` (with its port) and `{path}` are filled in."""

    trees: tuple[Tree, ...]
    """Layouts, tried in turn. Where the first needs no release, those that do are left out when none is named."""
    text: str
    """Kernel arguments of an installer on the serial line."""
    graphical: str
    """Kernel arguments of one on the screen."""
    told: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = (Step.INSTALLER,)
    """What each boot starts until the machine is on its own."""
    discs: tuple[Tree, ...] = ()
    """Layouts of a disc in the machine's drive, where those differ."""
    architectures: Mapping[str, str] = field(default_factory=dict)
    """`install-arch` → how the repository spells it."""
    marks: tuple[str, ...] = ()
    """What stands among an installer's arguments before those that the installed kernel is to have, too, the preferred
    one first; none where the installer sees by itself that the serial line is to stay the console."""


SERIAL = "console=ttyS0"
SCREEN = "console=tty0"
WEB = ("http", "https", "ftp")
TWO_ROUNDS = (Step.INSTALLER, Step.DISK)

RED_HAT = Tree("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", ".treeinfo")
"""The installer's kernel for ordinary machines. The one for Xen guests (`images/xen`, from 4.5 and 5.0 on) would find
no hardware here; 4.1 and 4.4 never had one."""

_ANACONDA = {
    **dict.fromkeys(WEB, "method={url} inst.repo={url}"),
    "nfs": "method=nfs:{host}:{path} inst.repo=nfs:{host}:{path}",
    "cdrom": "method=cdrom inst.repo=cdrom",
}
"""Old installers read `method`, new ones `inst.repo`; each ignores the other's."""
_RED_HAT_4 = {**dict.fromkeys(WEB, "method={url}"), "nfs": "method=nfs:{host}:{path}", "cdrom": "method=cdrom"}
_LINUXRC = {**dict.fromkeys(WEB, "install={url}"), "nfs": "install=nfs://{host}{path}", "cdrom": "install=cd:/"}
_DEBIAN = {
    scheme: f"mirror/country=manual mirror/protocol={scheme} mirror/{scheme}/hostname={{host}} "
    f"mirror/{scheme}/directory={{path}}"
    for scheme in WEB
}

_AMD64 = {"": "amd64", "x86_64": "amd64", "amd64": "amd64", "i386": "i386", "i686": "i386"}
_X86_64 = {"": "x86_64", "x86_64": "x86_64", "amd64": "x86_64", "i386": "i386", "i686": "i386"}

_DEBIAN_IMAGES = "dists/{release}/main/installer-{arch}/current/"


def _netboot(images: str, system: str) -> Tree:
    below = f"{_DEBIAN_IMAGES}{images}/"
    return Tree(
        f"{below}netboot/{system}-installer/{{arch}}/linux",
        f"{below}netboot/{system}-installer/{{arch}}/initrd.gz",
        f"{below}SHA256SUMS",
        below,
    )


DEBIAN_TREES = (
    _netboot("images", "debian"),
    _netboot("images", "ubuntu"),
    _netboot("legacy-images", "ubuntu"),  # Ubuntu 20.04
    Tree("{arch}/linux", "{arch}/initrd"),  # Ubuntu from 22.04 on: the release's directory `netboot`
)

DEBIAN = Family(
    trees=DEBIAN_TREES,
    text=SERIAL,
    graphical=SCREEN,
    told=_DEBIAN,
    discs=(
        Tree("install.amd/vmlinuz", "install.amd/initrd.gz"),
        Tree("install.386/vmlinuz", "install.386/initrd.gz"),
        Tree("casper/vmlinuz", "casper/initrd"),  # Ubuntu
    ),
    architectures=_AMD64,
    marks=("---", "--"),  # the second one is that of releases before Debian 8
)

UBUNTU = replace(DEBIAN, trees=(DEBIAN_TREES[-1], *DEBIAN_TREES[:-1]))

RHEL = Family((RED_HAT,), f"text inst.text {SERIAL}", f"inst.graphical {SCREEN}", _ANACONDA)

RHEL_4 = Family((RED_HAT,), f"text {SERIAL}", SCREEN, _RED_HAT_4, TWO_ROUNDS)

SUSE_TREES = (
    Tree("boot/{arch}/loader/linux", "boot/{arch}/loader/initrd", "CHECKSUMS"),
    Tree("boot/loader/linux", "boot/loader/initrd"),  # SLES 9
)

SUSE = Family(SUSE_TREES, f"textmode=1 {SERIAL}", SCREEN, _LINUXRC, TWO_ROUNDS, architectures=_X86_64)

FAMILIES: Mapping[str, Family] = {
    "debianlike": DEBIAN,
    "ubuntulike": UBUNTU,
    "rhlike": RHEL,
    "centoslike": RHEL,
    "rhel41": RHEL_4,
    "rhel44": RHEL_4,
    "sleslike": SUSE,
}
"""`install-distro` → family. `rhlike` is Red Hat 4.5, 5.0 and later with their rebuilds (CentOS, …)."""
