"""XenServer's own commands, those of 4.1's time and today's, against ours: each is there, or has a reason not to be.

`commands.tsv` has a row for each: the release that has it, the parameters that every release requires, those that some
release may be given, and for one that is absent why:

* `waits: MESSAGE` or `waits: METHOD /PAGE`: this host does not carry that out yet; when it does, the command is due.
* `unknown: MESSAGE`: no such message is in the API of this release.
* `other:` a sentence.

`more` names parameters that ours needs and the original does not, `untaken` those that ours does not know: they are for
messages that this host does not carry out yet (see `WAITING`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.toolstack.unimplemented import UNIMPLEMENTED
from domzero.xe.catalogue import catalogue
from domzero.xe.records import record_classes
from tests.api.harness import InProcessHost
from tests.xe.terminal import printed

RECORDS = record_classes(GRAPH)
WHOLE = catalogue(GRAPH, RECORDS, frozenset(GRAPH.methods), lambda _method, _path: True)
with Path(__file__).with_name("commands.tsv").open(newline="") as _file:
    TABLE: Mapping[str, Mapping[str, str]] = {row["command"]: row for row in csv.DictReader(_file, dialect="excel-tab")}
PRESENT = {name: row for name, row in TABLE.items() if not row["absent"]}
ABSENT = {name: row["absent"] for name, row in TABLE.items() if row["absent"]}

WAITING = {
    "vm-migrate": "VM.migrate_send",
    "vm-import": "VM.import_convert",
    "vdi-pool-migrate": "VDI.pool_migrate",
    "pool-emergency-transition-to-master": "pool.emergency_transition_to_master",
    "pool-sync-updates": "pool.sync_updates",
}
"""By command with parameters that are not known, the message that they are for."""

KINDS = """
appliance blob bond certificate cluster cluster-host console crashdump drtask feature gpu-group host host-cpu
host-crashdump message network network-sriov observer patch pbd pci pgpu pif pool pusb pvs-cache-storage pvs-proxy
pvs-server pvs-site repository role sdn-controller secret sm snapshot sr subject task template tunnel update usb-group
vbd vdi vgpu vgpu-type vif vlan vm vmss vtpm vusb
"""
"""The kinds of records that XenServer's `xe` has, of those whose class this API has."""


def test_the_table_is_the_whole_of_both_releases() -> None:
    assert len(TABLE) > 400
    releases = [row["release"] for row in TABLE.values()]
    assert {release: releases.count(release) for release in ("4.1", "both", "8")} == {"4.1": 15, "both": 217, "8": 170}


def test_what_has_no_reason_to_be_absent_is_there() -> None:
    assert sorted(PRESENT.keys() - WHOLE.keys()) == []
    assert sorted(ABSENT.keys() & WHOLE.keys()) == []


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_reasons_to_be_absent(host: InProcessHost, name: str) -> None:
    kind, _, what = ABSENT[name].partition(": ")
    assert kind in ("waits", "unknown", "other"), name
    if kind == "other":
        assert len(what) > 20
    elif kind == "unknown":
        assert what not in GRAPH.methods, f"{name} is due"
    elif " /" in what:
        assert not host.daemon.server.routes.has(*what.split(" ")), f"{name} is due"
    else:
        assert what in UNIMPLEMENTED, f"{name} is due"


def test_what_the_original_requires_is_known_and_nothing_more_is_required() -> None:
    for name, row in PRESENT.items():
        command, required = WHOLE[name], set(filter(None, row["required"].split(",")))
        known = {*command.required, *command.optional, *_selecting(command.selector)}
        assert required - known == set(), name
        assert set(command.required) - required == set(filter(None, row["more"].split(","))), name


def test_what_the_original_may_be_given_is_known() -> None:
    for name, row in PRESENT.items():
        command = WHOLE[name]
        known = {*command.required, *command.optional, *_selecting(command.selector)}
        unknown = _bare(row["optional"].split(",")) - _bare(known)
        assert unknown == _bare(row["untaken"].split(",")), name


def test_what_is_not_taken_waits_for_a_message() -> None:
    assert {name for name, row in PRESENT.items() if row["untaken"]} == WAITING.keys()
    for name, message in WAITING.items():
        assert message in UNIMPLEMENTED, f"{name} is due"


def test_every_kind_of_record_has_its_commands() -> None:
    assert set(KINDS.split()) == RECORDS.keys()
    for kind, record in RECORDS.items():
        writable = [column for column in record.columns if column.writable]
        changes = ["set", "clear"] if writable else []
        changes += ["add", "remove"] if any(column.is_set or column.is_map for column in writable) else []
        due = {
            f"{kind}-{action}" for action in ("list", "param-list", "param-get", *(f"param-{word}" for word in changes))
        }
        assert due == {name for name in WHOLE if name == f"{kind}-list" or name.startswith(f"{kind}-param-")}


def test_this_host_has_every_command_whose_messages_and_pages_it_has(host: InProcessHost) -> None:
    shown = printed(host, "help", "--all", "--minimal").strip().split(",")
    methods, routes = set(host.daemon.stack.methods()), host.daemon.server.routes
    due = {
        name
        for name, command in WHOLE.items()
        if set(command.needs) <= methods - set(UNIMPLEMENTED)
        and all(routes.has(*page.split(" ")) for page in command.pages)
        and not command.hidden
    }
    assert set(shown) == due


def _bare(names: Iterable[str]) -> set[str]:
    """Parameters without what stands before a key: releases write `config`, `config:` and `config-`."""
    return {name.rstrip(":-") for name in names} - {""}


def _selecting(selector: str) -> tuple[str, ...]:
    """What chooses an object where a command has a selector."""
    return ("uuid", selector, f"{selector}-uuid") if selector else ()
