"""Every program that tests start by name is there on a fresh Debian, or `script/bootstrap --dev` installs it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.sources import ROOT, Module, everything, nodes

STARTING = re.compile(r"(subprocess|process|asyncio)\.(run|Popen|check_output|check_call|create_subprocess_exec)")
COMMANDS = {"argv", "command"}
"""Names under which command lines are put together."""

PROGRAM = re.compile(r"[a-z][a-z0-9_.+-]*")

BASE = {
    "apt-cache", "apt-get", "bash", "cp", "dd", "dpkg-deb", "ldd", "losetup", "mount", "nsenter", "printenv", "printf",
    "prlimit", "rm", "setpriv", "setsid", "sh", "sha1sum", "tar", "umount", "unshare",
}  # fmt: skip
"""What Debian's essential and required packages have, and apt."""

PACKAGES = {
    "busybox": "busybox-static", "import": "imagemagick", "ip": "iproute2", "man": "man-db", "mke2fs": "e2fsprogs",
    "modprobe": "kmod", "openssl": "openvswitch-switch", "ovs-appctl": "openvswitch-switch",
    "ovs-ofctl": "openvswitch-switch", "ovs-vsctl": "openvswitch-switch", "ovsdb-tool": "openvswitch-switch",
    "qemu-img": "qemu-utils", "qemu-io": "qemu-utils", "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-x86", "readelf": "binutils", "tgtadm": "tgt", "tgtd": "tgt",
    "vgremove": "lvm2", "xmllint": "libxml2-utils", "xtigervncviewer": "tigervnc-viewer",
}  # fmt: skip
"""By program, the package of `script/bootstrap` that brings it, where that is not called like the program."""

MADE_UP = {"qemu-system-test"}

ELSEWHERE = ("tests/lab/", "tests/debian/")
"""What runs where script/lab installs everything."""


def started(module: Module) -> Iterator[tuple[str, str]]:
    """Where a module starts a program by name, and which; those it looks for first are left out."""
    for where, words in command_lines(module):
        match words:
            case [ast.Constant(value=str(name)), *_] if (
                PROGRAM.fullmatch(name) and f'which("{name}")' not in module.text
            ):
                yield where, name
            case _:
                pass


def command_lines(module: Module) -> Iterator[tuple[str, list[ast.expr]]]:
    for call in nodes(module, ast.Call):
        if call.args and isinstance(call.args[0], ast.List | ast.Tuple) and STARTING.fullmatch(ast.unparse(call.func)):
            yield module.at(call), call.args[0].elts
    for line in nodes(module, ast.Assign):
        names = {target.id for target in line.targets if isinstance(target, ast.Name)}
        if names & COMMANDS and isinstance(line.value, ast.List | ast.Tuple):
            yield module.at(line), line.value.elts


def installed() -> set[str]:
    return set(re.findall(r"^ +row (\S+)", (ROOT / "script/bootstrap").read_text(), re.MULTILINE))


@pytest.mark.slow  # reads all tests
def test_programs_come_with_debian_or_with_bootstrap() -> None:
    tests = [one for one in everything() if one.where.startswith("tests/") and not one.where.startswith(ELSEWHERE)]
    found = [place for module in tests for place in started(module)]
    packages = installed()
    missing = [
        f"{where}: {name}"
        for where, name in found
        if name not in BASE | MADE_UP and PACKAGES.get(name, name) not in packages
    ]
    assert not missing, "nothing installs these programs:\n" + "\n".join(sorted(missing))
    assert {"readelf", "qemu-img", "openssl"} <= {name for _, name in found}
