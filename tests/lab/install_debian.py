"""Debian's own installer, run to a finished system by `script/lab install-debian`: an hour or so without KVM.

Its images are those of Debian's package `debian-installer-12-netboot-amd64`, unpacked in the directory given. A server
on loopback is the repository: it has the images, the answers to the installer's questions, and passes on everything
else from the mirror given, so that the guest needs no way out of its own. The machine is paravirtual with `eliloader`:
the first boot is the installer's, the next one its disk's.

    python -m tests.lab.install_debian IMAGES MIRROR STATE

IMAGES is `/usr/lib/debian-installer/images/12/amd64/text` of the package, MIRROR an address that ends in `/debian`.
"""

from __future__ import annotations

import hashlib
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

from tests.api.guest import Guest
from tests.api.harness import in_process, login

PATIENCE = 4 * 3600.0
HOST_AS_THE_GUEST_SEES_IT = "10.0.2.2"
"""QEMU's user-mode network (qemu-system-x86_64(1), -netdev user)."""
BELOW = "dists/bookworm/main/installer-amd64/current/images/"
GIB = 1 << 30

ANSWERS = """\
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string installed
d-i netcfg/get_domain string example
d-i mirror/country string manual
d-i mirror/http/proxy string
d-i apt-setup/services-select multiselect
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
d-i base-installer/kernel/image string linux-image-cloud-amd64
d-i pkgsel/run_tasksel boolean false
d-i pkgsel/upgrade select none
d-i pkgsel/update-policy select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/bootdev string /dev/vda
d-i finish-install/reboot_in_progress note
"""


def say(what: str) -> None:
    sys.stdout.write(f"lab: {what}\n")
    sys.stdout.flush()


def repository(images: Path) -> dict[str, bytes]:
    """What of a Debian mirror is served from the package, and the answers."""
    names = [f"netboot/debian-installer/amd64/{name}" for name in ("linux", "initrd.gz")]
    files = {name: (images / name.removeprefix("netboot/")).read_bytes() for name in names}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  ./{name}\n" for name, content in files.items())
    served = {f"/debian/{BELOW}{name}": content for name, content in files.items()}
    return {**served, f"/debian/{BELOW}SHA256SUMS": sums.encode(), "/answers": ANSWERS.encode()}


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


def make_machine(api: Any, port: int) -> str:
    """A paravirtual machine with a blank disk and a card, to be installed from the repository."""
    vm = str(api.VM.clone(api.VM.get_by_name_label("Debian 12")[0], "Debian, installed"))
    api.VM.set_domain_type(vm, "pv")
    api.VM.set_PV_bootloader(vm, "eliloader")
    api.VM.set_VCPUs_max(vm, "2")
    api.VM.set_VCPUs_at_startup(vm, "2")
    api.VM.provision(vm)
    guest_sees = f"{HOST_AS_THE_GUEST_SEES_IT}:{port}"
    arguments = f"auto=true priority=critical url=http://{guest_sees}/answers mirror/http/hostname={guest_sees}"
    wanted = {"install-repository": f"http://127.0.0.1:{port}/debian", "install-args": arguments}
    api.VM.set_other_config(vm, {**api.VM.get_other_config(vm), **wanted})
    network = api.network.get_all()[0]
    card = {"device": "0", "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {}}
    api.VIF.create({**card, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    return vm


def shown(log: bytes) -> str:
    """The words that stand on the installer's screen, without its frames."""
    screen = pyte.Screen(80, 24)
    pyte.ByteStream(screen).feed(log[-(256 << 10) :])
    words = " ".join(line for line in screen.display if line.strip()).split()
    return " ".join(word for word in words if any(letter.isalnum() for letter in word))[-160:]


def watch(guest: Guest, missing: list[str]) -> None:
    """Until the installed system asks for a login; tells what happens about once a minute.

    A package that the mirror lacks would have the installer wait for somebody to press a key.
    """
    api, vm = guest.api, guest.vm
    installing, begun, told = api.VM.get_domid(vm), time.monotonic(), 0.0
    while time.monotonic() - begun < PATIENCE:
        domain = api.VM.get_domid(vm)
        log = guest.serial() if domain != "-1" else b""
        if domain != installing and b"installed login:" in log:
            return
        if missing:
            raise SystemExit(f"lab: the mirror is not whole: it lacks {', '.join(missing)}")
        if api.VM.get_power_state(vm) != "Running":
            raise SystemExit(f"lab: the machine is {api.VM.get_power_state(vm)}")
        if time.monotonic() - told > 60:
            told = time.monotonic()
            say(f"{(told - begun) / 60:.0f} min, domain {domain}: {shown(log)}")
        time.sleep(2)
    raise SystemExit("lab: the installation did not end in time")


def main(images: Path, mirror: str, state: Path) -> None:
    """Install, and boot what was installed."""
    with (
        serving(repository(images), mirror) as (port, missing),
        in_process(state, hypervisor="qemu", accel="auto", network="user") as host,
    ):
        api = login(host.url).xenapi
        vm = make_machine(api, port)
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
    main(Path(sys.argv[1]), sys.argv[2].rstrip("/"), Path(sys.argv[3]))
