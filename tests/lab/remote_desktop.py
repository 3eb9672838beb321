"""Remote desktop seen from both sides, run by `script/lab remote-desktop`: some minutes without KVM.

A Debian with xrdp, as its packages leave it and behind a firewall that lets nobody in, gets the guest agent from the
host's own disc. The host then has remote desktop switched: a client logs in and its screen shows the session's colour,
in the guest the service and the firewall are as the API says, also after the guest was booted again.

    python -m tests.lab.remote_desktop GUEST STATE PICTURE

GUEST is a directory with `kernel`, `ramdisk` and `disk.qcow2`, made by script/lab; PICTURE is where the screen is put.
It needs a network namespace of its own, for it makes bridges.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import XenAPI

from tests.api.harness import InProcessHost, in_process, login
from tests.host.qemu.guest import Console
from tests.lab.screen import Colour, screen, viewer

PATIENCE = 300.0
"""Seconds that a boot or a login may take where the processor is emulated."""
SIZE = 3 << 30
USER = "somebody"
RULE = "nft list chain inet filter input | grep -q 'dport 3389 accept comment \"domzero-guest\"'"
LISTENS = "ss --listening --tcp --numeric --no-header | grep -q ':3389 '"
RUNS = "systemctl is-active --quiet xrdp.service"


def say(what: str) -> None:
    sys.stdout.write(f"lab: {what}\n")
    sys.stdout.flush()


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What a condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.2)
    return result


@dataclass
class Machine:
    """The guest, from the host's side and from its own."""

    host: InProcessHost
    api: Any
    vm: str

    @contextmanager
    def inside(self) -> Iterator[Callable[..., str]]:
        """What runs a command in the guest, gives what it printed, and fails where it does."""
        status = self.host.run(self.host.daemon.stack.hypervisor.status(int(self.api.VM.get_domid(self.vm))))
        console = Console(status.serial_socket)
        self.host.run(console.__aenter__())

        def run(command: str, seconds: float = 55.0) -> str:
            return str(self.host.run(console.run(command, seconds)))

        try:
            until(lambda: "GUEST UP" in console.text, "the boot")
            yield run
        finally:
            self.host.run(console.__aexit__(None, None, None))

    def metrics(self) -> dict[str, Any]:
        """The guest metrics of the present domain."""
        reference = self.api.VM.get_guest_metrics(self.vm)
        if reference == "OpaqueRef:NULL":
            return {"other": {}, "networks": {}}
        return dict(self.api.VM_guest_metrics.get_record(reference))

    def wait_for_state(self, state: str) -> None:
        """Until the API says whether remote desktop is on."""
        until(lambda: self.metrics()["other"].get("data-ts") == state, f"data-ts = {state}")

    def address(self) -> str:
        return str(until(lambda: self.metrics()["networks"].get("0/ip"), "an address"))

    def ask(self, function: str) -> None:
        """Have the agent asked, as soon as the rate limit lets it be."""

        def asked() -> bool:
            try:
                self.api.VM.call_plugin(self.vm, "guest-agent-operation", function, {})
            except XenAPI.Failure as failure:
                if failure.details[0] != "VM_CALL_PLUGIN_RATE_LIMIT":
                    raise
                return False
            return True

        until(asked, function, 30)


def make_machine(host: InProcessHost, api: Any, session: str, files: Path) -> Machine:
    """A machine with the disk, a card on the host's own network, and the disc with the guest tools in its drive."""
    guest = Path(str(host.settings.state_dir)) / "guest"
    guest.mkdir(exist_ok=True)
    vm = str(api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "Debian with xrdp"))
    api.VM.set_is_a_template(vm, False)
    for field, name in (("kernel", "kernel"), ("ramdisk", "ramdisk")):
        shutil.copy(files / name, guest / name)
        getattr(api.VM, f"set_PV_{field}")(vm, str(guest / name))
    api.VM.set_PV_args(vm, "root=LABEL=desktop rw console=ttyS0 quiet systemd.show_status=false")
    api.VM.set_memory_limits(vm, *4 * [str(1 << 30)])
    api.VM.set_VCPUs_max(vm, "2")
    api.VM.set_VCPUs_at_startup(vm, "2")
    (disc,) = api.VDI.get_by_name_label("guest-tools.iso")
    for vdi, device, kind in ((upload(host, api, session, files / "disk.qcow2"), "0", "Disk"), (disc, "3", "CD")):
        api.VBD.create({
            "VM": vm, "VDI": vdi, "userdevice": device, "bootable": kind == "Disk", "type": kind, "empty": False,
            "mode": "RW" if kind == "Disk" else "RO", "unpluggable": True, "other_config": {},
            "qos_algorithm_type": "", "qos_algorithm_params": {},
        })  # fmt: skip
    card = {"VM": vm, "network": api.network.get_all()[0], "device": "0", "MAC": "", "MTU": "1500"}
    api.VIF.create({**card, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    return Machine(host, api, vm)


def upload(host: InProcessHost, api: Any, session: str, file: Path) -> str:
    """A disk of the default repository with the content of a qcow2 file."""
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    vdi = str(api.VDI.create({
        "SR": sr, "name_label": "desktop", "name_description": "", "virtual_size": str(SIZE), "type": "user",
        "sharable": False, "read_only": False, "other_config": {}, "sm_config": {},
    }))  # fmt: skip
    task = api.task.create("upload", "")
    query = f"session_id={session}&vdi={vdi}&task_id={task}&format=qcow2"
    argv = ["curl", "-sS", "-k", "-f", "-T", str(file), f"{host.url}/import_raw_vdi?{query}"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    until(lambda: api.task.get_status(task) != "pending", "the upload")
    assert api.task.get_status(task) == "success", api.task.get_error_info(task)
    return vdi


def port(address: str) -> str:
    """What one meets who connects to remote desktop's port: `open`, `refused` or `silent`."""
    try:
        with socket.create_connection((address, 3389), timeout=4):
            return "open"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"


def install_agent(run: Callable[..., str]) -> None:
    """As docs/guest-agent.md says; and again after the package was removed."""
    run("mount -o ro /dev/cdrom /mnt")
    for before in ("", "dpkg --remove domzero-guest && "):
        run(f"{before} sh /mnt/Linux/install.sh")
        for state in ("is-enabled", "is-active"):
            run(f"systemctl {state} --quiet domzero-guest.service")
    run("umount /mnt")


def is_on(machine: Machine, run: Callable[..., str], address: str) -> None:
    """On all sides."""
    machine.wait_for_state("1")
    run(RUNS)
    run(RULE)
    until(lambda: port(address) == "open", "the opening of the port", 30)


def is_off(machine: Machine, run: Callable[..., str], address: str) -> None:
    """On all sides. The guest's firewall drops what it does not know."""
    machine.wait_for_state("0")
    run(f"! {RUNS}")
    run(f"! {LISTENS}")
    run(f"! {RULE}")
    assert port(address) == "silent"


def logs_in(machine: Machine, address: str, password: str, colour: Colour, directory: Path, picture: Path) -> None:
    """A client gets the session's screen, and loses it when remote desktop is switched off."""
    with screen(directory) as shown, viewer(shown, address, USER, password, directory) as client:
        assert shown.share(colour) == 0
        took = client.shows(shown, colour, PATIENCE)
        shown.picture().save(picture)
        say(f"the client shows the session's screen after {took:.0f} s: {picture}")
        machine.ask("request_rdp_off")
        until(lambda: client.process.poll() is not None, "the client's end", 90)


def round_trip(machine: Machine, directory: Path, picture: Path) -> None:
    """Everything, from a guest without an agent to one that keeps what it was told."""
    api, vm = machine.api, machine.vm
    password, colour = secrets.token_hex(12), (0x30 + secrets.randbelow(0xA0), 0xC8, 0x20)
    with machine.inside() as run:
        say("Debian is up")
        run(f"echo '{USER}:{password}' | chpasswd && echo '#{bytes(colour).hex()}' >/etc/colour")
        install_agent(run)
        say("the agent is installed from the host's disc")
        machine.wait_for_state("1")
        other = machine.metrics()["other"]
        assert other["feature-ts"] == other["feature-ts2"] == "1"
        address = machine.address()
        say(f"the agent reports {address}, and a desktop that the firewall keeps to itself")
        run(RUNS)
        assert port(address) == "silent"
        machine.ask("request_rdp_off")
        is_off(machine, run, address)
        machine.ask("request-rdp-on")
        is_on(machine, run, address)
    say("switched off and on")
    api.VM.clean_reboot(vm)
    with machine.inside() as run:
        is_on(machine, run, machine.address())
        say("on after a boot")
        logs_in(machine, machine.address(), password, colour, directory, picture)
        is_off(machine, run, machine.address())
    api.VM.clean_reboot(vm)
    with machine.inside() as run:
        is_off(machine, run, machine.address())
    say("off after a boot")
    api.VM.clean_shutdown(vm)


def main(files: Path, state: Path, picture: Path) -> None:
    with in_process(state, hypervisor="qemu", accel="auto", network="bridge") as host:
        session = login(host.url)
        api = session.xenapi
        machine = make_machine(host, api, session.handle, files)
        try:
            api.VM.start(machine.vm, False, False)
            round_trip(machine, state, picture)
        finally:
            if api.VM.get_power_state(machine.vm) != "Halted":
                api.VM.hard_shutdown(machine.vm)
    say("all is well")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
