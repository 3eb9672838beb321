"""What is printed, byte for byte: scripts read it."""

from __future__ import annotations

import pytest

from tests.api.harness import InProcessHost
from tests.xe.terminal import printed


def test_a_list_of_records(host: InProcessHost, machine: str) -> None:
    assert printed(host, "vm-list", f"uuid={machine}") == (
        f"uuid ( RO)           : {machine}\n"
        "     name-label ( RW): mine\n"
        "    power-state ( RO): halted\n"
        "\n"
        "\n"
    )  # fmt: skip


def test_columns_come_in_the_records_order_whatever_the_order_they_are_asked_for(
    host: InProcessHost, machine: str
) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "other-config:a=1")
    printed(host, "vm-param-add", f"uuid={machine}", "param-name=tags", "param-key=one")
    printed(host, "vm-param-add", f"uuid={machine}", "param-name=tags", "param-key=two")
    shown = printed(host, "vm-list", f"uuid={machine}", "params=tags,suspend-VDI-uuid,VCPUs-params,name-label")
    assert shown == (
        "name-label ( RW)          : mine\n"
        "    suspend-VDI-uuid ( RO): <not in database>\n"
        "        VCPUs-params (MRW): \n"
        "                tags (SRW): one; two\n"
        "\n"
        "\n"
    )  # fmt: skip


def test_several_records_follow_each_other(host: InProcessHost) -> None:
    shown = printed(host, "template-list", "params=name-label")
    assert shown.startswith("name-label ( RW)    : Tiny Linux\n\n\nname-label ( RW)    : ")
    assert shown.endswith("\n\n\n")


def test_minimal_shows_the_first_column_on_one_line(host: InProcessHost, machine: str) -> None:
    control = printed(host, "vm-list", "is-control-domain=true", "--minimal")
    assert printed(host, "vm-list", "--minimal") == f"{control.strip()},{machine}\n"
    assert printed(host, "vm-list", "params=power-state,name-label", f"uuid={machine}", "minimal=true") == "mine\n"


def test_minimal_marks_commas_and_backslashes(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "name-label=a,b\\c")
    assert printed(host, "vm-list", f"uuid={machine}", "params=name-label", "--minimal") == "a\\,b\\\\c\n"


def test_an_empty_list_prints_nothing_and_minimal_an_empty_line(host: InProcessHost) -> None:
    assert printed(host, "vm-list", "name-label=nobody") == ""
    assert printed(host, "vm-list", "name-label=nobody", "--minimal") == "\n"


def test_what_costs_a_call_is_shown_only_by_name(host: InProcessHost, machine: str) -> None:
    listed = printed(host, "vm-param-list", f"uuid={machine}")
    assert "possible-hosts ( RO): <expensive field>\n" in listed
    assert "current-operations (SRO): \n" in listed
    hosts = printed(host, "host-list", "--minimal").strip()
    assert printed(host, "vm-param-get", f"uuid={machine}", "param-name=possible-hosts") == f"{hosts}\n"
    assert printed(host, "vm-list", f"uuid={machine}", "params=possible-hosts").endswith(f": {hosts}\n\n\n")


def test_the_host_of_a_repository(host: InProcessHost) -> None:
    name = printed(host, "host-list", "params=name-label", "--minimal")
    assert printed(host, "sr-list", "type=file", "params=host", "--minimal") == name


def test_disks_of_a_machine(host: InProcessHost, machine: str) -> None:
    vbd = printed(host, "vbd-list", f"vm-uuid={machine}", "--minimal").strip()
    vdi = printed(host, "vbd-list", f"vm-uuid={machine}", "params=vdi-uuid", "--minimal").strip()
    assert printed(host, "vm-disk-list", f"uuid={machine}") == (
        "Disk 0 VBD:\n"
        f"uuid ( RO)             : {vbd}\n"
        "    vm-name-label ( RO): mine\n"
        "       userdevice ( RW): 0\n"
        "\n"
        "\n"
        "Disk 0 VDI:\n"
        f"uuid ( RO)             : {vdi}\n"
        "       name-label ( RW): 0\n"
        "    sr-name-label ( RO): Local storage\n"
        "     virtual-size ( RO): 134217728\n"
        "\n"
        "\n"
    )  # fmt: skip
    assert printed(host, "vm-disk-list", f"uuid={machine}", "--minimal") == f"{vbd},{vdi}\n"


@pytest.mark.parametrize(
    "kind", ["pool", "pif", "network", "console", "sr", "pbd", "task", "host-cpu", "vdi", "vif", "role"]
)
def test_every_record_class_lists_all_its_fields(host: InProcessHost, kind: str) -> None:
    for uuid in filter(None, printed(host, f"{kind}-list", "--minimal").strip().split(",")[:1]):
        lines = printed(host, f"{kind}-param-list", f"uuid={uuid}").rstrip("\n").split("\n")
        assert lines[0].endswith(f": {uuid}")
        assert len({line.index(": ") for line in lines}) == 1


def test_help_of_a_command(host: InProcessHost) -> None:
    assert printed(host, "help", "vdi-resize") == (
        "command name        : vdi-resize\n"
        "        reqd params     : uuid, disk-size\n"
        "        optional params : online\n"
        "        description     : Give a disk another size.\n"
        "\n"
    )  # fmt: skip


def test_help_lists_commands(host: InProcessHost) -> None:
    common, everything = (
        printed(host, "help", "--minimal").strip().split(","),
        printed(host, "help", "--all", "--minimal").strip().split(","),
    )
    assert set(common) < set(everything)
    assert {"vm-start", "vm-list", "snapshot-create-template", "diagnostic-vm-status", "help"} <= set(common)
    assert {"pif-list", "pbd-param-get", "event-wait"} <= set(everything) - set(common)
    assert everything == sorted(everything)
    assert "vm-create" not in everything
    assert "vm-install" in printed(host, "help")


def test_every_list_there_is_can_be_shown_whole(host: InProcessHost) -> None:
    names = printed(host, "help", "--all", "--minimal").strip().split(",")
    kinds = [name.removesuffix("-param-list") for name in names if name.endswith("-param-list")]
    assert len(kinds) > 40
    for kind in kinds:
        printed(host, f"{kind}-list", "params=all")
