"""Commands that change things, from the machine's life to events, through the bare protocol."""

from __future__ import annotations

import threading
import time

import pytest

from tests.api.harness import InProcessHost
from tests.xe.terminal import printed, raw, refused


def state(host: InProcessHost, machine: str) -> str:
    return printed(host, "vm-param-get", f"uuid={machine}", "param-name=power-state").strip()


def repository(host: InProcessHost) -> str:
    return printed(host, "sr-list", "type=file", "--minimal").strip()


def test_the_life_of_a_machine(host: InProcessHost, machine: str) -> None:
    for command, then in (
        ("vm-start", "running"), ("vm-pause", "paused"), ("vm-unpause", "running"), ("vm-suspend", "suspended"),
        ("vm-resume", "running"), ("vm-reboot", "running"), ("vm-reboot --force", "running"), ("vm-shutdown", "halted"),
        ("vm-start --paused", "paused"), ("vm-shutdown force=true", "halted"),
    ):  # fmt: skip
        assert printed(host, *command.split(), "vm=mine") == ""
        assert state(host, machine) == then, command


def test_a_machine_starts_on_a_host_by_name(host: InProcessHost, machine: str) -> None:
    name = printed(host, "host-list", "params=name-label", "--minimal").strip()
    printed(host, "vm-start", f"uuid={machine}", f"on={name}")
    assert state(host, machine) == "running"
    assert refused(host, "vm-start", f"uuid={machine}", "on=nowhere") == "Error: No matching hosts found\n"


def test_selectors(host: InProcessHost, machine: str) -> None:
    assert refused(host, "vm-start", "vm=nobody") == "Error: No matching VMs found\n"
    assert refused(host, "vm-start", "nothing=1") == "Error: Unknown field 'nothing'\n"
    other = printed(host, "vm-clone", f"vm={machine}", "new-name-label=mine", "new-name-description=a copy").strip()
    said = refused(host, "vm-start", "vm=mine")
    assert said == "Error: Multiple matches VMs found. --multiple required to complete the operation\n"
    printed(host, "vm-start", "vm=mine", "--multiple")
    assert (state(host, machine), state(host, other)) == ("running", "running")
    printed(host, "vm-shutdown", f"uuid={other}", "--force")
    both = raw(host, "vm-start", "vm=mine", "--multiple")
    assert both.code == 1
    assert both.err.startswith(f"Operation vm-start failed on {machine}: The VM is in the wrong power state")
    assert state(host, other) == "running"
    assert printed(host, "vm-uninstall", f"uuid={other}", "force=true") == "All objects destroyed\n"


def test_uninstalling_asks_first(host: InProcessHost, machine: str) -> None:
    disk = printed(host, "vbd-list", f"vm-uuid={machine}", "params=vdi-uuid", "--minimal").strip()
    asked = raw(host, "vm-uninstall", f"uuid={machine}", answers=["no"])
    assert (asked.code, asked.err) == (1, "Error: Nothing was done.\n")
    assert asked.out == (
        "The following items are about to be destroyed\n"
        f"VM : {machine} (mine)\nVDI: {disk} (0)\nType 'yes' to continue\n"
    )
    assert state(host, machine) == "halted"
    assert printed(host, "vm-uninstall", f"uuid={machine}", answers=["yes"]).endswith("All objects destroyed\n")
    assert printed(host, "vdi-list", f"uuid={disk}") == ""


def test_a_template_that_is_not_there(host: InProcessHost) -> None:
    given = ("vm-install", "new-name-label=x")
    assert refused(host, *given, "template=none") == "Error: No matching templates found\n"
    assert "Required parameter not found: template\n" in refused(host, *given)
    assert "Required parameter not found: new-name-label\n" in refused(host, "vm-install", "template=Tiny Linux")


def test_the_disks_of_a_new_machine_are_made_where_asked_for(host: InProcessHost) -> None:
    made = printed(host, "sr-create", "type=file", "name-label=second", "content-type=user",
                   f"device-config:location={host.settings.state_dir}/second").strip()  # fmt: skip
    given = ("vm-install", "template=Tiny Linux", "new-name-label=there", f"sr-uuid={made}")
    machine = printed(host, *given).strip()
    assert printed(host, "vdi-list", f"sr-uuid={made}", "--minimal").strip()
    printed(host, "vm-uninstall", f"uuid={machine}", "--force")
    pbd = printed(host, "pbd-list", f"sr-uuid={made}", "--minimal").strip()
    printed(host, "pbd-unplug", f"uuid={pbd}")
    printed(host, "sr-forget", f"uuid={made}")


def test_several_machines_go_after_one_question(host: InProcessHost) -> None:
    twins = [printed(host, "vm-install", "template=Tiny Linux", "new-name-label=twin").strip() for _ in range(2)]
    disks = [printed(host, "vbd-list", f"vm-uuid={uuid}", "params=vdi-uuid", "--minimal").strip() for uuid in twins]
    printed(host, "vm-start", f"uuid={twins[0]}")
    given = ("vm-uninstall", "vm=twin", "--multiple")
    assert raw(host, *given, answers=("no",)).code == 1
    assert sorted(printed(host, "vm-list", "name-label=twin", "--minimal").strip().split(",")) == sorted(twins)
    said = printed(host, *given, answers=("yes",))
    assert all(said.count(uuid) == 1 for uuid in (*twins, *disks))
    assert said.endswith("\nType 'yes' to continue\nAll objects destroyed\n")
    assert printed(host, "vm-list", "name-label=twin") == ""
    assert not any(printed(host, "vdi-list", f"uuid={disk}") for disk in disks)


def test_snapshots(host: InProcessHost, machine: str) -> None:
    snapshot = printed(host, "vm-snapshot", f"uuid={machine}", "new-name-label=before").strip()
    assert printed(host, "snapshot-list", "--minimal").strip() == snapshot
    assert printed(host, "snapshot-disk-list", f"snapshot-uuid={snapshot}").startswith("Disk 0 VBD:\n")
    for name in ("snapshot-of", "snapshot_of"):
        given = (f"{name}={machine}", f"params={name}", "--minimal")
        assert printed(host, "snapshot-list", *given).strip() == machine
    printed(host, "vm-param-set", f"uuid={machine}", "name-label=changed")
    printed(host, "snapshot-revert", f"snapshot-uuid={snapshot}")
    assert printed(host, "vm-param-get", f"uuid={machine}", "param-name=name-label") == "mine\n"
    template = printed(host, "snapshot-clone", f"uuid={snapshot}", "new-name-label=from it").strip()
    assert printed(host, "template-list", "name-label=from it", "--minimal").strip() == template
    printed(host, "template-uninstall", f"template-uuid={template}", "--force")
    assert refused(host, "snapshot-destroy", f"uuid={machine}") == f"Error: {machine} is no snapshot\n"
    printed(host, "snapshot-uninstall", f"snapshot-uuid={snapshot}", "--force")
    assert printed(host, "snapshot-list") == ""


def test_disks_and_drives(host: InProcessHost, machine: str) -> None:
    where = repository(host)
    disk = printed(host, "vdi-create", f"sr-uuid={where}", "name-label=data", "type=user", "virtual-size=16MiB").strip()
    printed(host, "vdi-resize", f"uuid={disk}", "disk-size=32MiB")
    assert printed(host, "vdi-param-get", f"uuid={disk}", "param-name=virtual-size") == "33554432\n"
    given = ("vbd-create", f"vm-uuid={machine}", "device=1", f"vdi-uuid={disk}", "mode=ro")
    drive = printed(host, *given).strip()
    assert printed(host, "vbd-list", f"uuid={drive}", "params=mode") == "mode ( RW)    : RO\n\n\n"
    printed(host, "vbd-destroy", f"uuid={drive}")
    printed(host, "vdi-destroy", f"uuid={disk}")
    printed(host, "vm-disk-add", f"uuid={machine}", "disk-size=8MiB", "device=2")
    assert printed(host, "vm-disk-list", f"uuid={machine}").count("virtual-size ( RO)") == 2
    printed(host, "vm-disk-remove", f"uuid={machine}", "device=2")
    assert printed(host, "vm-disk-list", f"uuid={machine}").count("virtual-size ( RO)") == 1
    said = refused(host, "vm-disk-remove", f"uuid={machine}", "device=9")
    assert said == "Error: There is no disk at the position 9\n"


def test_a_drive_that_cannot_be_had_leaves_nothing(host: InProcessHost, machine: str) -> None:
    before = printed(host, "vdi-list", "--minimal"), printed(host, "vbd-list", "--minimal")
    said = refused(host, "vm-disk-add", f"uuid={machine}", "disk-size=8MiB", "device=0")
    assert said.endswith("\ndevice: 0\n")
    printed(host, "vm-start", f"uuid={machine}")
    said = refused(host, "vm-cd-add", f"uuid={machine}", "cd-name=guest-tools.iso", "device=3")
    assert said.endswith("CD drives stay in a running machine; insert and eject their media.\n")
    assert (printed(host, "vdi-list", "--minimal"), printed(host, "vbd-list", "--minimal")) == before


def test_a_machine_that_cannot_be_installed_leaves_nothing(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "is-a-template=true")
    before = printed(host, "vdi-list", "--minimal"), printed(host, "vm-list", "--minimal")
    given = ("vm-install", f"template-uuid={machine}", "new-name-label=never", "copy-bios-strings-from=nobody")
    assert refused(host, *given).endswith("type: host\nuuid: nobody\n")
    assert (printed(host, "vdi-list", "--minimal"), printed(host, "vm-list", "--minimal")) == before
    printed(host, "vm-param-set", f"uuid={machine}", "is-a-template=false")


def test_whether_a_drive_can_be_attached_is_told_when_asked(host: InProcessHost, machine: str) -> None:
    drive = printed(host, "vbd-list", f"vm-uuid={machine}", "--minimal").strip()
    given = ("vbd-param-get", f"uuid={drive}", "param-name=attachable")
    assert "attachable ( RO): <expensive field>\n" in printed(host, "vbd-param-list", f"uuid={drive}")
    assert printed(host, *given) == "true\n"
    printed(host, "vm-start", f"uuid={machine}")
    assert printed(host, *given).startswith("false (error: DEVICE_ALREADY_ATTACHED, ")


def test_a_guest_is_asked_again_for_a_drive_that_it_uses(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "other-config:sim:fail-unplug-disk=in use")
    printed(host, "vm-start", f"uuid={machine}")
    drive = printed(host, "vbd-list", f"vm-uuid={machine}", "type=Disk", "--minimal").strip()
    started = time.monotonic()
    assert "msg: in use\n" in refused(host, "vbd-unplug", f"uuid={drive}", "timeout=0.3")
    assert time.monotonic() - started >= 0.3
    said = refused(host, "vbd-unplug", f"uuid={drive}", "timeout=soon")
    assert said == "Error: Parameter timeout must be a floating-point number\n"


def test_discs(host: InProcessHost, machine: str) -> None:
    assert host.settings.state_dir is not None
    library = printed(host, "sr-list", "name-label=ISO library", "--minimal").strip()
    place = printed(host, "pbd-list", f"sr-uuid={library}", "params=device-config", "--minimal").strip()
    location = dict(entry.split(": ", 1) for entry in place.split("; "))["location"]
    with open(f"{location}/small.iso", "wb") as file:
        file.write(bytes(64 << 10))
    printed(host, "sr-scan", f"uuid={library}")
    assert "small.iso" in printed(host, "cd-list", "params=name-label", "--minimal").strip().split(",")
    printed(host, "vm-cd-add", f"uuid={machine}", "cd-name=small.iso", "device=3")
    printed(host, "vm-cd-eject", f"uuid={machine}")
    assert "No CD 0 VDI." in printed(host, "vm-cd-list", f"uuid={machine}")
    said = refused(host, "vm-cd-eject", f"uuid={machine}")
    assert said == "Error: The machine has no full CD drive\n"
    printed(host, "vm-cd-insert", f"uuid={machine}", "cd-name=small.iso")
    printed(host, "vm-cd-remove", f"uuid={machine}", "cd-name=small.iso")
    assert printed(host, "vm-cd-list", f"uuid={machine}") == ""


def test_networks_and_cards(host: InProcessHost, machine: str) -> None:
    network = printed(host, "network-create", "name-label=inner", "MTU=1400").strip()
    given = ("vif-create", f"vm-uuid={machine}", f"network-uuid={network}", "device=0", "mac=random")
    card = printed(host, *given).strip()
    assert printed(host, "vm-vif-list", f"uuid={machine}", "params=network-name-label", "--minimal") == "inner\n"
    printed(host, "vif-destroy", f"uuid={card}")
    interface = printed(host, "pif-list", "physical=true", "--minimal").strip().split(",")[0]
    vlan = printed(host, "vlan-create", f"pif-uuid={interface}", "vlan=77", f"network-uuid={network}").strip()
    assert printed(host, "pif-list", "VLAN=77", "--minimal").strip() == vlan
    printed(host, "vlan-destroy", f"uuid={vlan}")
    printed(host, "network-destroy", f"uuid={network}")
    assert printed(host, "network-list", "name-label=inner") == ""


def test_hosts(host: InProcessHost) -> None:
    for command, then in (("host-disable", "false"), ("host-enable", "true")):
        printed(host, command)
        assert printed(host, "host-list", "params=enabled", "--minimal") == f"{then}\n"
    assert printed(host, "host-dmesg")
    assert int(printed(host, "host-compute-free-memory", "host=" + printed(host, "host-list", "--minimal").strip())) > 0
    assert printed(host, "host-cpu-info").startswith("cpu_count")
    uuid = printed(host, "host-list", "--minimal").strip()
    assert "Give --force" in refused(host, "host-forget", f"uuid={uuid}")


def test_a_host_gets_another_name(host: InProcessHost) -> None:
    uuid = printed(host, "host-list", "--minimal").strip()
    before = printed(host, "host-param-get", f"uuid={uuid}", "param-name=hostname").strip()
    printed(host, "host-set-hostname-live", f"host-uuid={uuid}", "host-name=renamed")
    assert printed(host, "host-list", "params=hostname", "--minimal") == "renamed\n"
    printed(host, "host-set-hostname-live", f"host-uuid={uuid}", f"host-name={before}")
    assert refused(host, "host-disable", "host-name=nobody") == "Error: No matching hosts found\n"


def test_dangers_have_to_be_asked_for(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-start", f"uuid={machine}", "--paused")
    assert "Give --force" in refused(host, "vm-reset-powerstate", f"uuid={machine}")
    assert state(host, machine) == "paused"
    assert "still present" in refused(host, "vm-reset-powerstate", f"uuid={machine}", "--force")
    printed(host, "vm-shutdown", f"uuid={machine}", "--force")
    printed(host, "vm-reset-powerstate", f"uuid={machine}", "--force")
    assert state(host, machine) == "halted"


def test_memory_and_processors(host: InProcessHost, machine: str) -> None:
    sizes = "static-min=64MiB static-max=512MiB dynamic-min=128MiB dynamic-max=256MiB"
    printed(host, "vm-memory-limits-set", f"uuid={machine}", *sizes.split())
    assert printed(host, "vm-param-get", f"uuid={machine}", "param-name=memory-static-max") == f"{512 << 20}\n"
    said = raw(host, "vm-memory-limits-set", f"uuid={machine}", *sizes.replace("64MiB", "1GiB").split())
    assert said.code == 1
    assert said.err
    assert int(printed(host, "vm-compute-maximum-memory", f"uuid={machine}", "total=1GiB")) > 0


def test_secrets_and_appliances(host: InProcessHost, machine: str) -> None:
    secret = printed(host, "secret-create", "value=s").strip()
    assert printed(host, "secret-param-get", f"uuid={secret}", "param-name=value") == "s\n"
    printed(host, "secret-destroy", f"uuid={secret}")
    appliance = printed(host, "appliance-create", "name-label=all").strip()
    printed(host, "vm-param-set", f"uuid={machine}", f"appliance={appliance}")
    printed(host, "appliance-start", f"uuid={appliance}")
    assert state(host, machine) == "running"
    printed(host, "appliance-shutdown", f"uuid={appliance}", "--force")
    assert state(host, machine) == "halted"


def test_waiting_for_an_event(host: InProcessHost, machine: str) -> None:
    assert printed(host, "event-wait", "class=vm", f"uuid={machine}", "power-state=halted") == ""
    ended = threading.Event()

    def wait() -> None:
        assert printed(host, "event-wait", "class=vm", f"uuid={machine}", "power-state=/=halted") == ""
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not ended.wait(0.1)
    printed(host, "vm-start", f"uuid={machine}")
    waiting.join(20)
    assert ended.is_set()
    assert refused(host, "event-wait", "class=nothing") == "Error: There are no events for the class nothing\n"


def test_a_client_that_leaves_ends_its_wait(host: InProcessHost) -> None:
    import socket

    from tests.xe.terminal import HELLO, local, request

    before = host.daemon.server.connections
    with local(host) as connection:
        connection.sendall(request(b"event-wait\nclass=vm\nname-label=never") + HELLO)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096).startswith(HELLO[:10])
        while connection.recv(4096):
            continue
    deadline = time.monotonic() + 30
    while host.daemon.server.connections > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert host.daemon.server.connections <= before


@pytest.mark.parametrize(
    ("command", "code", "param"),
    [
        ("sr-scan uuid=none", "UUID_INVALID", "uuid: none"),
        ("vm-destroy uuid={machine}", "VM_BAD_POWER_STATE", "actual:"),
    ],
)
def test_errors_of_the_api_are_explained(
    host: InProcessHost, machine: str, command: str, code: str, param: str
) -> None:
    from domzero.datamodel.graph import GRAPH

    printed(host, "vm-start", f"uuid={machine}")
    said = refused(host, *command.format(machine=machine).split())
    assert said.startswith(GRAPH.errors[code].doc + "\n")
    assert param in said
    assert "OpaqueRef" not in said


def test_errors_of_storage_are_shown_by_their_code(host: InProcessHost) -> None:
    said = raw(host, "sr-create", "type=file", "name-label=x", "content-type=user")
    assert (said.code, said.err, said.out) == (1, "", "")
    ((code, params),) = said.errors
    assert code.startswith("SR_BACKEND_FAILURE_")
    assert params


def test_a_password_is_changed(host: InProcessHost) -> None:
    from tests.api.harness import PASSWORD

    assert raw(host, "user-password-change", "old=wrong", "new=other").code == 1
    printed(host, "user-password-change", f"old={PASSWORD}", f"new={PASSWORD}")
