"""Commands that no other test gives, each carried out once: that they ask the API for the right thing."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

from domzero.datamodel.graph import GRAPH
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from domzero.xe.catalogue import HAND_WRITTEN
from tests.api.harness import InProcessHost
from tests.xe.terminal import printed, refused

NAME = re.compile(r"\b[a-z]+-[a-z0-9-]+\b|\bconsole\b")
ENDS_THE_HOST = {"host-" + "shutdown-agent", "host-" + "restart-agent"}
"""Their messages have tests of their own, with a daemon of their own (`host-` is put before them, or this file would
name them)."""


def one(host: InProcessHost, *arguments: str) -> str:
    """The one line that a command prints."""
    (line,) = printed(host, *arguments).splitlines()
    return line


def shown(host: InProcessHost, kind: str, uuid: str, field: str) -> str:
    return one(host, f"{kind}-param-get", f"uuid={uuid}", f"param-name={field}")


def test_every_command_is_in_a_test() -> None:
    tests = Path(__file__).parents[1].rglob("test_*.py")
    words = {word for path in tests for word in NAME.findall(path.read_text())}
    here = set(GRAPH.methods) - set(UNIMPLEMENTED)
    present = {command.name for command in HAND_WRITTEN if set(command.needs) <= here}
    assert present - words == ENDS_THE_HOST


def test_a_machine_that_runs(host: InProcessHost, machine: str) -> None:
    where, vm = one(host, "host-list", "--minimal"), f"uuid={machine}"
    printed(host, "vm-copy-bios-strings", vm, f"host-uuid={where}")
    assert one(host, "vm-is-bios-customized", vm) == "This machine has BIOS strings of its own."
    printed(host, "vm-start", vm)
    printed(host, "vm-migrate", vm, f"host={where}", "--live", "--force", "compress=true")
    assert refused(host, "vm-migrate", vm, f"host={where}", "compress=very").startswith("Error: Parameter compress")
    assert shown(host, "vm", machine, "resident-on") == where
    printed(host, "vm-vcpu-hotplug", vm, "new-vcpus=1")
    for command in ("vm-memory-target-set", "vm-memory-balloon"):
        printed(host, command, vm, "target=256MiB")
    printed(host, "vm-memory-target-wait", vm)
    assert shown(host, "vm", machine, "memory-target") == str(256 << 20)
    printed(host, "vm-memory-shadow-multiplier-set", vm, "multiplier=1.5")
    assert shown(host, "vm", machine, "HVM-shadow-multiplier") == "1.500"
    assert int(one(host, "vm-compute-memory-overhead", vm)) > 0
    assert machine in printed(host, "host-get-vms-which-prevent-evacuation", f"uuid={where}")
    assert "NO_HOSTS_AVAILABLE" in refused(host, "host-evacuate", "batch-size=1")
    assert refused(host, "host-evacuate", "batch-size=all") == "Error: Parameter batch-size must be an integer\n"
    printed(host, "host-enable")
    assert printed(host, "host-get-uncooperative-vms", f"uuid={where}") == ""
    said = refused(host, "vm-call-plugin", f"vm-uuid={machine}", "plugin=guest-agent-operation", "fn=request-rdp-on")
    assert said.startswith("The plugin ended in failure")
    assert refused(host, "vm-call-host-plugin", f"vm-uuid={machine}", "plugin=none", "fn=none")


def test_a_machine_that_is_halted(host: InProcessHost, machine: str) -> None:
    vm = f"uuid={machine}"
    printed(host, "vm-memory-dynamic-range-set", vm, "min=200MiB", "max=256MiB")
    assert shown(host, "vm", machine, "memory-dynamic-min") == str(200 << 20)
    printed(host, "vm-memory-static-range-set", vm, "min=100MiB", "max=300MiB")
    assert shown(host, "vm", machine, "memory-static-max") == str(300 << 20)
    printed(host, "vm-memory-set", vm, "memory=256MiB")
    assert shown(host, "vm", machine, "memory-dynamic-min") == str(256 << 20)
    place = one(host, "sr-list", "type=file", "--minimal")
    copied = one(host, "vm-copy", vm, "new-name-label=copy", "new-name-description=of mine", f"sr-uuid={place}")
    assert shown(host, "vm", copied, "name-description") == "of mine"
    printed(host, "vm-uninstall", f"uuid={copied}", "--force")
    assert "vm-snapshot-with-quiesce" in refused(host, "vm-snapshot-with-quiesce", vm, "new-name-label=x")
    appliance = one(host, "appliance-create", "name-label=together")
    printed(host, "appliance-destroy", f"uuid={appliance}")
    assert printed(host, "appliance-list") == ""


def test_a_checkpoint(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-start", f"uuid={machine}")
    kept = one(host, "vm-checkpoint", f"uuid={machine}", "new-name-label=kept")
    made = [
        one(host, "snapshot-create-template", f"snapshot-uuid={kept}", "new-name-label=sharing"),
        one(host, "snapshot-copy", f"uuid={kept}", "new-name-label=apart"),
    ]
    assert sorted(made) == sorted(one(host, "template-list", f"uuid={uuid}", "--minimal") for uuid in made)
    assert "Give --force" in refused(host, "snapshot-reset-powerstate", f"uuid={kept}")
    printed(host, "snapshot-reset-powerstate", f"uuid={kept}", "--force")
    assert shown(host, "snapshot", kept, "power-state") == "halted"
    for uuid in made:
        printed(host, "template-uninstall", f"template-uuid={uuid}", "--force")
    printed(host, "snapshot-uninstall", f"snapshot-uuid={kept}", "--force")


def test_disks_and_drives(host: InProcessHost, machine: str) -> None:
    place = one(host, "sr-list", "type=file", "--minimal")
    disk = one(host, "vdi-create", f"sr-uuid={place}", "name-label=disk", "virtual-size=1MiB")
    printed(host, "sr-update", f"uuid={place}")
    printed(host, "vdi-update", f"uuid={disk}")
    clone = one(host, "vdi-clone", f"uuid={disk}", "new-name-label=clone", "driver-params:a=b")
    location = shown(host, "vdi", clone, "location")
    printed(host, "vdi-forget", f"uuid={clone}")
    given = (f"uuid={clone}", f"sr-uuid={place}", "type=user", f"location={location}", "name-label=known again")
    assert one(host, "vdi-introduce", *given) == clone
    copies = [one(host, "vdi-snapshot", f"uuid={disk}"), one(host, "vdi-copy", f"uuid={disk}", f"sr-uuid={place}")]
    empty = one(host, "vbd-create", f"vm-uuid={machine}", "device=3", "type=CD")
    printed(host, "vbd-insert", f"uuid={empty}", "vdi-uuid=" + one(host, "cd-list", "--minimal").partition(",")[0])
    assert shown(host, "vbd", empty, "empty") == "false"
    printed(host, "vbd-eject", f"uuid={empty}")
    drive = one(host, "vbd-create", f"vm-uuid={machine}", "device=4", f"vdi-uuid={disk}")
    printed(host, "vm-start", f"uuid={machine}")
    for command, then in (("vbd-unplug", "false"), ("vbd-plug", "true")):
        printed(host, command, f"uuid={drive}")
        assert shown(host, "vbd", drive, "currently-attached") == then
    printed(host, "vm-uninstall", f"uuid={machine}", "--force")
    for uuid in (clone, *copies):
        printed(host, "vdi-destroy", f"uuid={uuid}")


def test_repositories(host: InProcessHost, tmp_path: Path) -> None:
    where, uuid = one(host, "host-list", "--minimal"), str(uuid4())
    for command in ("sr-probe", "sr-probe-ext"):
        assert "no support for the operation" in refused(host, command, "type=file", "device-config:location=/nowhere")
    assert one(host, "sr-introduce", "name-label=known", "type=file", f"uuid={uuid}") == uuid
    given = (f"host-uuid={where}", f"sr-uuid={uuid}", f"device-config:location={tmp_path}/known")
    plug = one(host, "pbd-create", *given)
    assert shown(host, "pbd", plug, "device-config") == f"location: {tmp_path}/known"
    printed(host, "pbd-destroy", f"uuid={plug}")
    printed(host, "sr-forget", f"uuid={uuid}")
    own = one(host, "pbd-list", "sr-uuid=" + one(host, "sr-list", "name-label=ISO library", "--minimal"), "--minimal")
    for command, then in (("pbd-unplug", "false"), ("pbd-plug", "true")):
        printed(host, command, f"uuid={own}")
        assert shown(host, "pbd", own, "currently-attached") == then
    assert "field: data_source\n" in refused(host, "sr-data-source-forget", "type=file", "data-source=none")


def test_cards_and_interfaces(host: InProcessHost, machine: str) -> None:
    where = one(host, "host-list", "--minimal")
    inner = one(host, "network-create", "name-label=inner")
    first, second = one(host, "pif-list", "device=eth0", "--minimal"), one(host, "pif-list", "device=eth1", "--minimal")
    outer = shown(host, "pif", first, "network-uuid")
    card = one(host, "vif-create", f"vm-uuid={machine}", "device=3", f"network-uuid={inner}")
    printed(host, "vm-start", f"uuid={machine}")
    for command, then in (("vif-unplug", "false"), ("vif-plug", "true")):
        printed(host, command, f"uuid={card}")
        assert shown(host, "vif", card, "currently-attached") == then
    printed(host, "vif-move", f"uuid={card}", f"network-uuid={outer}")
    assert shown(host, "vif", card, "network-uuid") == outer
    tagged = one(host, "pool-vlan-create", f"pif-uuid={second}", "vlan=7", f"network-uuid={inner}")
    assert shown(host, "pif", tagged, "VLAN") == "7"
    printed(host, "vlan-destroy", "uuid=" + one(host, "vlan-list", "--minimal"))
    for command, then in (("pif-unplug", "false"), ("pif-plug", "true")):
        printed(host, command, f"uuid={second}")
        assert shown(host, "pif", second, "currently-attached") == then
    printed(host, "pif-reconfigure-ip", f"uuid={second}", "mode=static", "IP=10.9.8.7", "netmask=255.255.255.0")
    assert shown(host, "pif", second, "IP") == "10.9.8.7"
    printed(host, "pif-reconfigure-ip", f"uuid={second}", "mode=none")
    printed(host, "pif-reconfigure-ipv6", f"uuid={second}", "mode=none")
    printed(host, "pif-set-primary-address-type", f"uuid={second}", "primary_address_type=ipv4")
    bond = one(host, "bond-create", f"network-uuid={inner}", f"pif-uuids={second}")
    printed(host, "bond-set-mode", f"uuid={bond}", "mode=active-backup")
    assert shown(host, "bond", bond, "mode") == "active-backup"
    printed(host, "bond-destroy", f"uuid={bond}")
    for command in ("pif-forget", "pif-db-forget"):
        printed(host, command, f"uuid={second}")
        second = one(host, "pif-introduce", "device=eth1", f"host-uuid={where}")
    printed(host, "pif-scan", f"host-uuid={where}")
    printed(host, "pool-management-reconfigure", f"network-uuid={outer}")
    printed(host, "host-management-disable")
    printed(host, "host-management-reconfigure", f"pif-uuid={first}")
    printed(host, "host-emergency-management-reconfigure", "interface=eth0")
    assert one(host, "host-get-management-interface", f"host-uuid={where}") == first


def test_the_host_and_its_people(host: InProcessHost) -> None:
    where = one(host, "host-list", "--minimal")
    assert one(host, "host-all-editions") == "free"
    assert int(one(host, "host-compute-memory-overhead")) > 0
    assert printed(host, "host-license-view").startswith("sku_type")
    printed(host, "host-syslog-reconfigure", f"host-uuid={where}")
    printed(host, "pool-designate-new-master", f"host-uuid={where}")
    printed(host, "pool-sync-database")
    assert printed(host, "pool-recover-slaves") == ""
    for command in ("host-shutdown", "host-reboot"):
        assert refused(host, command) == "The host has to be disabled before this can be done.\n"
    assert "up and running" in refused(host, "host-power-on")
    assert printed(host, "session-subject-identifier-list") == ""
    printed(host, "session-subject-identifier-logout", "subject-identifier=nobody")
    printed(host, "session-subject-identifier-logout-all")
    observer = one(host, "observer-create", "name-label=watching")
    printed(host, "observer-destroy", f"uuid={observer}")
    nobody = {
        "task-cancel": "uuid", "subject-remove": "subject-uuid", "subject-role-add": "uuid", "patch-destroy": "uuid",
        "subject-role-remove": "uuid", "patch-pool-clean": "uuid", "vmss-destroy": "uuid",
        "pvs-cache-storage-destroy": "uuid",
    }  # fmt: skip
    for command, name in nobody.items():
        role = ("role-name=read-only",) if "-role-" in command else ()
        assert refused(host, command, f"{name}=nobody", *role).endswith("uuid: nobody\n"), command
    for command in ("patch-precheck", "patch-apply"):
        assert refused(host, command, "uuid=nobody", f"host-uuid={where}").endswith("uuid: nobody\n")


def test_messages(host: InProcessHost) -> None:
    where = one(host, "host-list", "--minimal")
    printed(host, "message-create", "name=NOTE", "priority=4", "body=look here", f"host-uuid={where}")
    uuid = one(host, "message-list", "name=NOTE", "--minimal")
    assert (shown(host, "message", uuid, "class"), shown(host, "message", uuid, "obj-uuid")) == ("Host", where)
    printed(host, "message-destroy", f"uuids={uuid}")
    assert printed(host, "message-list", "name=NOTE") == ""
