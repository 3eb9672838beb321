"""Fields: read, set, added to, removed from, cleared, and what is said when that cannot be."""

from __future__ import annotations

import pytest

from tests.api.harness import InProcessHost
from tests.xe.terminal import printed, refused


def field(host: InProcessHost, machine: str, name: str, *more: str) -> str:
    return printed(host, "vm-param-get", f"uuid={machine}", f"param-name={name}", *more).rstrip("\n")


def test_scalars(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "name-label=other", "user-version=7", "is-a-template=false",
            "VCPUs-max=4", "HVM-shadow-multiplier=1.5", "actions-after-crash=Preserve")  # fmt: skip
    assert field(host, machine, "name-label") == "other"
    assert field(host, machine, "user-version") == "7"
    assert field(host, machine, "VCPUs-max") == "4"
    assert field(host, machine, "HVM-shadow-multiplier") == "1.500"
    assert field(host, machine, "actions-after-crash") == "preserve"


def test_a_reference_is_a_uuid(host: InProcessHost, machine: str) -> None:
    where = printed(host, "host-list", "--minimal").strip()
    printed(host, "vm-param-set", f"uuid={machine}", f"affinity={where}")
    assert field(host, machine, "affinity") == where
    printed(host, "vm-param-clear", f"uuid={machine}", "param-name=affinity")
    assert field(host, machine, "affinity") == "<not in database>"
    assert refused(host, "vm-param-set", f"uuid={machine}", "affinity=nobody").endswith("type: host\nuuid: nobody\n")


def test_maps(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "xenstore-data:vm-data/a=1", "xenstore-data-vm-data/b=x=y")
    assert field(host, machine, "xenstore-data") == "vm-data/a: 1; vm-data/b: x=y"
    assert field(host, machine, "xenstore-data", "param-key=vm-data/b") == "x=y"
    printed(host, "vm-param-set", f"uuid={machine}", "xenstore-data:vm-data/a=2")
    printed(host, "vm-param-add", f"uuid={machine}", "param-name=xenstore-data", "param-key=vm-data/c=3", "vm-data/d=4")
    assert field(host, machine, "xenstore-data") == "vm-data/b: x=y; vm-data/a: 2; vm-data/d: 4; vm-data/c: 3"
    printed(host, "vm-param-remove", f"uuid={machine}", "param-name=xenstore-data", "param-key=vm-data/b")
    assert field(host, machine, "xenstore-data", "param-key=vm-data/d") == "4"
    printed(host, "vm-param-clear", f"uuid={machine}", "param-name=xenstore-data")
    assert field(host, machine, "xenstore-data") == ""


def test_sets(host: InProcessHost, machine: str) -> None:
    for tag in ("one", "two", "one"):
        printed(host, "vm-param-add", f"uuid={machine}", "param-name=tags", f"param-key={tag}")
    assert field(host, machine, "tags") == "one; two"
    assert field(host, machine, "tags", "--minimal") == "one,two"
    printed(host, "vm-param-remove", f"uuid={machine}", "param-name=tags", "param-key=one")
    assert field(host, machine, "tags") == "two"
    printed(host, "vm-param-clear", f"uuid={machine}", "param-name=tags")
    assert field(host, machine, "tags") == ""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("vm-param-get param-name=other-config param-key=none", "Key none not found in map"),
        ("vm-param-get param-name=nothing", "Unknown field 'nothing'"),
        ("vm-param-get param-name=name-label param-key=x", "Field 'name-label' is not a map"),
        ("vm-param-set nothing=1", "Unknown field 'nothing'"),
        ("vm-param-set power-state=running", "Field 'power-state' is read-only."),
        ("vm-param-set uuid=x dom-id=1", "Field 'dom-id' is read-only."),
        ("vm-param-set tags=x", "Field 'tags' is a set. Use vm-param-add and vm-param-remove."),
        ("vm-param-set other-config=x", "Field 'other-config' is a map. Set an entry as other-config:key=value."),
        ("vm-param-set name-label:x=y", "Field 'name-label' is not a map."),
        ("vm-param-set user-version=many", "Parameter user-version must be an integer"),
        ("vm-param-set user-version=99999999999999999999", "Parameter user-version must be an integer"),
        ("vm-param-set HVM-shadow-multiplier=nan", "Parameter HVM-shadow-multiplier must be a floating-point number"),
        ("vm-param-set is-a-template=perhaps", "Parameter is-a-template must be a boolean (true or false)"),
        ("vm-param-set actions-after-reboot=dance", "Parameter actions-after-reboot must be one of: destroy, restart"),
        ("vm-param-add param-name=allowed-operations param-key=x", "Field 'allowed-operations' is read-only."),
        ("vm-param-add param-name=name-label param-key=x",
         "Field 'name-label' is neither a set nor a map. Use vm-param-set."),
        ("vm-param-add param-name=other-config param-key=x",
         "An entry for the map 'other-config' is written key=value"),
        ("vm-param-remove param-name=other-config param-key=none", "Key none is not in the map"),
        ("vm-param-remove param-name=tags param-key=none", "Key none is not in the set"),
        ("vm-param-clear param-name=user-version", "Field 'user-version' cannot be cleared"),
        ("vm-param-clear param-name=uuid", "Field 'uuid' is read-only."),
    ],
)  # fmt: skip
def test_what_cannot_be(host: InProcessHost, machine: str, command: str, said: str) -> None:
    assert refused(host, *command.split(), f"uuid={machine}") == f"Error: {said}\n"


def test_what_is_missing(host: InProcessHost, machine: str) -> None:
    hint = "For usage run: 'xe help'\n"
    assert refused(host, "vm-param-get", "param-name=uuid") == f"Required parameter not found: uuid\n{hint}"
    given = ("vm-param-add", f"uuid={machine}", "param-name=tags")
    assert refused(host, *given) == f"Required parameter not found: param-key\n{hint}"


def test_filters(host: InProcessHost, machine: str) -> None:
    printed(host, "vm-param-set", f"uuid={machine}", "other-config:purpose=test")
    printed(host, "vm-param-add", f"uuid={machine}", "param-name=tags", "param-key=mine")
    for condition in (
        "other-config:purpose=test", "other-config-purpose=test", "tags:contains=mine", "tags=mine",
        "allowed-operations:contains=start", "allowed-VBD-devices:contains=1",
    ):  # fmt: skip
        assert printed(host, "vm-list", condition, "power-state=halted", "--minimal") == f"{machine}\n", condition
    for condition in ("other-config:purpose=other", "other-config:none=test", "tags:contains=yours"):
        assert printed(host, "vm-list", condition) == ""
    assert refused(host, "vm-list", "nothing=1") == "Error: Unknown field 'nothing'\n"
    assert refused(host, "vm-list", "nothing:x=1") == "Error: Unknown field 'nothing:x'\n"
    assert refused(host, "vm-list", "params=uuid,nothing") == "Error: Unknown field 'nothing'\n"
