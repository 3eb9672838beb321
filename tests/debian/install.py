"""Debian's own installer, run to a finished system by `script/lab install-debian`: an hour or so without KVM.

Its images are those of Debian's package `debian-installer-13-netboot-amd64`, unpacked in the directory given. A server
on loopback is the repository: it has the images, the answers to the installer's questions, and passes on everything
else from the mirror given, so that the guest needs no way out of its own. What the mirror lacks of the installer is
built first (`mirror`). The machine is paravirtual with `eliloader`: the first boot is the installer's, the next
one its disk's.

    python -m tests.debian.install RELEASE IMAGES MIRROR STATE KEPT

RELEASE is Debian's code name, IMAGES `/usr/lib/debian-installer/images/13/amd64/text` of the package, MIRROR an address
that ends in `/debian`, STATE an empty directory for the host, KEPT one for packages, of use again another time.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyte

from domzero.host.hypervisor.protocol import DomainNotFoundError
from tests.api.guest import Guest
from tests.api.harness import in_process, login
from tests.debian.mirror import ORDINARY, Filling, Mirror, fill, installed
from tests.debian.packages import names, stanzas

TEMPLATE = "Debian 13"
NAME = "installed"
"""Of the installed system. The installer asks for it before it has read the answers."""
KERNEL, RAM_DISK = "linux", "initrd.gz"
KERNEL_IMAGE = re.compile(r"kernel-image-(.+)-di")
PANIC = b"Kernel panic"
PATIENCE = 4 * 3600.0
HOST_AS_THE_GUEST_SEES_IT = "10.0.2.2"
"""QEMU's user-mode network (qemu-system-x86_64(1), -netdev user)."""
FOR_EMULATION = "mitigations=off clearcpuid=cx16"
"""QEMU before 8.0 emulates CMPXCHG16B, which Linux allocates memory with, in such a way that an interrupt soon after it
may find nonsense in EFLAGS. What stands behind `---` is for the installed kernel (Debian's installation guide, 5.3)."""

FURTHER = (
    "linux-image-cloud-amd64", "grub-pc", "initramfs-tools", "busybox", "zstd", "console-setup",
    "keyboard-configuration", "locales", "sudo", "ca-certificates", "installation-report", "e2fsprogs", "os-prober",
    "laptop-detect", "discover", "util-linux-extra", "eject", "pciutils",
)  # fmt: skip
"""What the installer adds to the base packages, with these answers on this hardware."""

ANSWERS = """\
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i mirror/country string manual
d-i mirror/suite string {release}
d-i mirror/http/proxy string
d-i apt-setup/services-select multiselect
d-i apt-setup/enable-source-repositories boolean false
d-i apt-setup/non-free-firmware boolean false
d-i passwd/root-password-crypted password !
d-i passwd/root-login boolean false
d-i passwd/user-fullname string Somebody
d-i passwd/username string somebody
d-i passwd/user-password-crypted password !
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i partman-auto/disk string /dev/vda
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i base-installer/install-recommends boolean false
d-i base-installer/initramfs-tools/driver-policy select dep
d-i base-installer/kernel/image string linux-image-cloud-amd64
d-i pkgsel/run_tasksel boolean false
d-i pkgsel/upgrade select none
d-i pkgsel/update-policy select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/bootdev string /dev/vda
d-i finish-install/reboot_in_progress note
"""


ANSWERS_WITH_FILLING = """\
d-i mirror/udeb/suite string {suite}
d-i debian-installer/allow_unauthenticated boolean true
"""
"""The index of what was built for want of the mirror's is signed by nobody."""


def say(what: str) -> None:
    sys.stdout.write(f"lab: {what}\n")
    sys.stdout.flush()


def repository(release: str, images: Path, filling: Filling) -> dict[str, bytes]:
    """What of a Debian mirror is not taken from the mirror: the installer's images, the filling, and the answers."""
    below = f"dists/{release}/main/installer-amd64/current/images/"
    paths = [f"netboot/debian-installer/amd64/{name}" for name in (KERNEL, RAM_DISK)]
    files = {name: (images / name.removeprefix("netboot/")).read_bytes() for name in paths}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  ./{name}\n" for name, content in files.items())
    answers = ANSWERS.format(release=release)
    if filling.suite:
        answers += ANSWERS_WITH_FILLING.format(suite=filling.suite)
    own = {f"{below}{name}": content for name, content in files.items()} | filling.files
    served = {f"/debian/{name}": content for name, content in own.items()}
    return {**served, f"/debian/{below}SHA256SUMS": sums.encode(), "/answers": answers.encode()}


def in_ram_disk(images: Path) -> tuple[str, set[str]]:
    """The version of the installer's kernel, and the names of all packages that its RAM disk has."""
    archive = gzip.decompress((images / "debian-installer" / "amd64" / RAM_DISK).read_bytes())
    packages = stanzas(cpio_file(archive, "var/lib/dpkg/status").decode())
    own = {package["Package"] for package in packages}
    [kernel] = [image[1] for name in own if (image := KERNEL_IMAGE.fullmatch(name))]
    virtual = {name for package in packages for [name] in names(package.get("Provides", ""))}
    return kernel, own | virtual


def cpio_file(archive: bytes, wanted: str) -> bytes:
    """A file of an archive in the format that Linux's RAM disks have (cpio(5), "newc"). Raises `KeyError`."""
    position = 0
    while archive[position : position + 6] == b"070701":
        header = [int(archive[at : at + 8], 16) for at in range(position + 6, position + 110, 8)]
        size, name_length = header[6], header[11]
        start = position + 110 + name_length
        name = archive[position + 110 : start - 1].decode()
        start += -start % 4
        if name.removeprefix("./") == wanted:
            return archive[start : start + size]
        position = start + size + -size % 4
    raise KeyError(wanted)


def look_at(mirror: Mirror, images: Path, kept: Path) -> Filling:
    """What to serve besides the mirror's files; ends the program where it lacks what nothing can replace."""
    lacking = mirror.lacking(installed(mirror.packages(ORDINARY), FURTHER))
    if lacking:
        raise SystemExit(f"lab: the mirror is not whole: it lacks {', '.join(one['Filename'] for one in lacking)}")
    filling = fill(mirror, *in_ram_disk(images), kept)
    if filling.built:
        say(f"the mirror lacks packages of the installer, built from ordinary ones: {', '.join(filling.built)}")
    if filling.left_out:
        say(f"it lacks others, which the installer has to do without: {', '.join(filling.left_out)}")
    return filling


@contextmanager
def serving(files: dict[str, bytes], mirror: str) -> Iterator[tuple[int, list[str]]]:
    """The repository's server: its port, and the packages so far that the mirror should have and has not."""
    missing: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            if body is not None:
                self._head(200, str(len(body)))
                self.wfile.write(body)
            elif self.path.startswith("/debian/"):
                self._pass_on(mirror + self.path.removeprefix("/debian"))
            else:
                self._head(404, "0")

        def _pass_on(self, address: str) -> None:
            try:
                with urllib.request.urlopen(address, timeout=120) as answer:
                    self._head(200, answer.headers["Content-Length"])
                    shutil.copyfileobj(answer, self.wfile)
            except urllib.error.HTTPError as error:
                with error:
                    self._head(error.code, "0")
                if "/pool/" in address:
                    missing.append(address)

        def _head(self, code: int, length: str) -> None:
            self.send_response(code)
            self.send_header("Content-Length", length)
            self.end_headers()

        def log_message(self, *_about: object) -> None:
            """The installer's own log tells more."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, missing
        finally:
            server.shutdown()
            thread.join()


def make_machine(api: Any, release: str, port: int) -> str:
    """A paravirtual machine with a blank disk and a card, to be installed from the repository."""
    vm = str(api.VM.clone(api.VM.get_by_name_label(TEMPLATE)[0], "Debian, installed"))
    api.VM.set_domain_type(vm, "pv")
    api.VM.set_PV_bootloader(vm, "eliloader")
    api.VM.set_VCPUs_max(vm, "2")
    api.VM.set_VCPUs_at_startup(vm, "2")
    api.VM.provision(vm)
    guest_sees = f"{HOST_AS_THE_GUEST_SEES_IT}:{port}"
    arguments = (
        f"auto=true priority=critical url=http://{guest_sees}/answers mirror/http/hostname={guest_sees} "
        f"interface=auto hostname={NAME} domain=example "
        f"DEBCONF_DROP_TRANSLATIONS=1 {FOR_EMULATION} --- {FOR_EMULATION}"
    )
    repository = f"http://127.0.0.1:{port}/debian"
    wanted = {"install-repository": repository, "install-args": arguments, "debian-release": release}
    api.VM.set_other_config(vm, {**api.VM.get_other_config(vm), **wanted})
    network = api.network.get_all()[0]
    card = {"device": "0", "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {}}
    api.VIF.create({**card, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    return vm


def shown(log: bytes) -> str:
    """The words that stand on the installer's screen, without its frames."""
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    stream.select_other_charset("@")  # ISO 2022 instead of UTF-8: else frames are letters
    stream.feed(log[-(256 << 10) :])
    words = " ".join(line for line in screen.display if line.strip()).split()
    return " ".join(word for word in words if any(letter.isalnum() for letter in word))[-160:]


def said(guest: Guest) -> bytes:
    """What the present domain wrote so far; nothing while the machine goes from one domain to the next."""
    try:
        return guest.serial()
    except (DomainNotFoundError, FileNotFoundError):
        return b""


def watch(guest: Guest, missing: list[str]) -> None:
    """Until the installed system asks for a login; tells what happens about once a minute.

    A package that the mirror lacks would have the installer wait for somebody to press a key.
    """
    api, vm = guest.api, guest.vm
    installing, begun, told = api.VM.get_domid(vm), time.monotonic(), 0.0
    while time.monotonic() - begun < PATIENCE:
        domain = api.VM.get_domid(vm)
        log = said(guest)
        if domain != installing and f"{NAME} login:".encode() in log:
            return
        if PANIC in log:
            raise SystemExit(f"lab: Linux crashed: {log[log.index(PANIC) :][:200].decode(errors='replace')}")
        if missing:
            raise SystemExit(f"lab: the mirror is not whole: it lacks {', '.join(missing)}")
        if api.VM.get_power_state(vm) != "Running":
            raise SystemExit(f"lab: the machine is {api.VM.get_power_state(vm)}")
        if time.monotonic() - told > 60:
            told = time.monotonic()
            say(f"{(told - begun) / 60:.0f} min, domain {domain}: {shown(log)}")
        time.sleep(2)
    raise SystemExit("lab: the installation did not end in time")


def main(release: str, images: Path, address: str, state: Path, kept: Path) -> None:
    """Install, and boot what was installed."""
    filling = look_at(Mirror(address, release), images, kept)
    with (
        serving(repository(release, images, filling), address) as (port, missing),
        in_process(state, hypervisor="qemu", accel="auto", network="user") as host,
    ):
        api = login(host.url).xenapi
        vm = make_machine(api, release, port)
        guest = Guest(host, api, vm, PATIENCE)
        try:
            api.VM.start(vm, False, False)
            assert api.VM.get_PV_bootloader(vm) == "pygrub"
            say("Debian's installer runs")
            watch(guest, missing)
            say("the installed Debian asks for a login")
        finally:
            if api.VM.get_power_state(vm) != "Halted":
                api.VM.hard_shutdown(vm)
    say("all is well")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3].rstrip("/"), Path(sys.argv[4]), Path(sys.argv[5]))
