"""A guest small enough to boot in two seconds: a kernel from the distribution, busybox, and an init of ours.

The guest prints `GUEST UP`, then `COUNT n` a few times a second, and runs each line it reads from its serial port,
answering `DONE <token> <exit code>`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

CACHE = Path(os.environ.get("DOMZERO_TEST_KERNEL", Path(tempfile.gettempdir()) / "domzero-test-kernel"))
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sr_mod", "virtio_net", "virtio_balloon", "virtio_console")
MORE_MODULES = ("virtio-rng", "pvpanic-mmio", "button", "evdev")

INIT = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules); do insmod $module || echo "insmod $module failed"; done
echo 1 > /proc/sys/kernel/sysrq
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -echo
mkdir -p /etc/acpi/PWRF
printf '#!/bin/sh\\npoweroff -f\\n' > /etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid -d > /dev/null 2>&1 &
count() { n=0; while :; do n=$((n+1)); echo "COUNT $n"; usleep 200000; done; }
count &
echo GUEST UP
while read -r token line; do eval "$line"; echo "DONE $token $?"; done
"""


def kernel_tree() -> Path:
    """Where `boot/vmlinuz-*` and `lib/modules/*` of a cloud kernel are; downloaded once where none is installed."""
    for tree in (Path("/"), CACHE):
        if list(tree.glob("boot/vmlinuz-*-cloud-amd64")) and list(tree.glob("lib/modules/*-cloud-amd64")):
            return tree
    with tempfile.TemporaryDirectory() as directory:
        depends = subprocess.run(
            ["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True
        ).stdout
        package = next(word for word in depends.split() if word.startswith("linux-image-"))
        if package == "linux-image-cloud-amd64":
            package = depends.split("Depends:")[1].split()[0]
        subprocess.run(["apt-get", "download", package], check=True, cwd=directory, capture_output=True)
        partial = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
        subprocess.run(["dpkg-deb", "-x", str(next(Path(directory).glob("*.deb"))), str(partial)], check=True)
        try:
            partial.rename(CACHE)
        except OSError:
            subprocess.run(["rm", "-rf", str(partial)], check=True)  # another test process was faster
    return CACHE


def kernel() -> Path:
    return next(kernel_tree().glob("boot/vmlinuz-*-cloud-amd64"))


def build(path: Path, programs: Iterable[Path] = ()) -> Path:
    """Write the initial ram disk (a newc archive) to `path`, with programs of this machine and what they load."""
    release = next(kernel_tree().glob("lib/modules/*-cloud-amd64"))
    modules = _with_dependencies(release, (*MODULES, *MORE_MODULES))
    archive = bytearray()
    for name in ("bin", "proc", "sys", "dev", "etc", "modules.d"):
        archive += _entry(name, 0o040755)
    archive += _entry("dev/console", 0o020600, device=(5, 1))
    archive += _entry("bin/busybox", 0o100755, Path("/bin/busybox").read_bytes())
    archive += _entry("bin/sh", 0o120777, b"busybox")
    archive += _entry("init", 0o100755, INIT.encode())
    listing = []
    for number, module in enumerate(modules):
        listing.append(f"/modules.d/{number:02}-{module.name}")
        archive += _entry(listing[-1][1:], 0o100644, module.read_bytes())
    archive += _entry("modules", 0o100644, " ".join(listing).encode())
    archive += _programs(programs)
    archive += _entry("TRAILER!!!", 0)
    path.write_bytes(archive)
    return path


def _programs(programs: Iterable[Path]) -> bytes:
    files = list(programs)
    for program in programs:
        said = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
        files += [Path(word) for word in said.split() if word.startswith("/") and Path(word) not in files]
    archive, made = bytearray(), {Path("bin")}
    for file in files:
        for directory in reversed(file.relative_to("/").parents[:-1]):
            if directory not in made:
                archive += _entry(str(directory), 0o040755)
                made.add(directory)
        archive += _entry(str(file)[1:], 0o100755, file.read_bytes())
    return bytes(archive)


def _with_dependencies(release: Path, wanted: Iterable[str]) -> list[Path]:
    """Module files in an order in which they can be inserted."""
    found = {path.stem.replace("-", "_"): path for path in release.rglob("*.ko")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        path = found[name.replace("-", "_")]
        if path in ordered:
            return
        said = subprocess.run(["/sbin/modinfo", "-F", "depends", str(path)], check=True, capture_output=True, text=True)
        for dependency in filter(None, said.stdout.strip().split(",")):
            add(dependency)
        ordered.append(path)

    for name in wanted:
        add(name)
    return ordered


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
