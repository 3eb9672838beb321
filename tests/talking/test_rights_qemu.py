"""What a guest may do with the store, tried from inside the guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from domzero.host.xenstore.limits import DEFAULT
from domzero.wire.xenstore import Operation
from tests.talking.guest import TalkingGuest, soon

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def neighbour(talking: TalkingGuest) -> Iterator[int]:
    """Another machine's domain, which stands still."""
    api = talking.api
    vm = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "neighbour")
    api.VM.provision(vm)
    api.VM.start(vm, True, False)
    yield int(api.VM.get_domid(vm))
    api.VM.hard_shutdown(vm)
    api.VM.destroy(vm)


def ask(guest: TalkingGuest, *requests: tuple[object, ...]) -> list[str]:
    """What the store answers inside to requests: an operation, or one with how often, and the parts of its payload."""
    words = (
        ":".join(str(int(part) if isinstance(part, Operation) else part) for part in request) for request in requests
    )
    return guest.run(f"ask {' '.join(words)}").splitlines()


def repeated(operation: Operation, times: int, *parts: object) -> tuple[object, ...]:
    """A request that is made so often, or until it is refused."""
    return (f"{int(operation)}*{times}", *parts)


def test_the_usual_tools_work_inside(guest: TalkingGuest) -> None:
    guest.run("xenstore-write data/one 1 data/two 'a b'")
    assert guest.run("xenstore-read data/one data/two").splitlines() == ["1", "a b"]
    assert {"one", "two"} <= set(guest.run("xenstore-list data").splitlines())
    home = f"/local/domain/{guest.domid}"
    assert guest.run("xenstore-ls -p data/one") == ""
    assert f'{home}/data/two = "a b"   (n{guest.domid})' in guest.run(f"xenstore-ls -fp {home}/data")
    guest.run("xenstore-chmod data/one n$(xenstore-read domid) r0")
    assert f"(n{guest.domid},r0)" in guest.run(f"xenstore-ls -fp {home}/data")
    guest.run("xenstore-rm data/one; ! xenstore-exists data/one; xenstore-rm data/two")


def test_programs_that_open_xens_device_are_served_by_a_link(guest: TalkingGuest) -> None:
    assert guest.run("(unset XENSTORED_PATH; xenstore-read domid)") == str(guest.domid)


def test_a_watch_is_told_inside(guest: TalkingGuest) -> None:
    """The port is one program's at a time: who watches hears of what the host writes."""
    guest.run("xenstore-watch -n 2 vm-data/told >/tmp/told &")
    soon(lambda: guest.watches_of("vm-data/told"))
    guest.write("vm-data/told", b"1")
    assert guest.run("wait; cat /tmp/told; xenstore-rm vm-data/told").splitlines() == ["vm-data/told"] * 2


def test_what_is_not_the_guests_cannot_be_seen(guest: TalkingGuest, neighbour: int) -> None:
    listed = ("/", "/local/domain", "/local/domain/0", f"/local/domain/{neighbour}", "/vm", "/nowhere")
    uuid = guest.api.VM.get_uuid(guest.api.VM.get_by_name_label("neighbour")[0])
    read = ("/local/domain/0/name", f"/local/domain/{neighbour}/name", f"/vm/{uuid}/name", "/nowhere/at/all")
    operations = (Operation.READ, Operation.GET_PERMS, Operation.DIRECTORY)
    answers = ask(
        guest,
        *((Operation.DIRECTORY, path) for path in listed),
        *((operation, path) for path in read for operation in operations),
    )
    assert set(answers) == {"EACCES"}
    assert guest.run("xenstore-ls /local/domain/0 2>&1 || true").endswith("Permission denied")


def test_what_is_not_the_guests_cannot_be_changed(guest: TalkingGuest, neighbour: int) -> None:
    own = ("name", "vm", "domid", "memory/target", "memory/new", "cpu/1/availability", "device/vif/0/mac", "new")
    others = ("/local/domain/0/x", f"/local/domain/{neighbour}/data/x", f"/local/domain/{neighbour}/control/shutdown")
    removed = ("name", "device", "/local/domain/0", f"/local/domain/{guest.domid}", f"/local/domain/{neighbour}/data")
    before = guest.run("xenstore-read name vm memory/target")
    answers = ask(
        guest,
        *((Operation.WRITE, path, "=evil") for path in (*own, *others, "/vm/x", "/x")),
        *((Operation.MKDIR, path) for path in ("new", "memory/new", *others, "/vm/x", "/x")),
        *((Operation.RM, path) for path in removed),
    )
    assert set(answers) == {"EACCES"}
    assert guest.run("xenstore-read name vm memory/target") == before


def test_nobody_becomes_somebody_else(guest: TalkingGuest, neighbour: int) -> None:
    own = guest.domid
    answers = ask(
        guest,
        (Operation.INTRODUCE, 77, 1, 1),
        (Operation.RELEASE, neighbour),
        (Operation.RESUME, neighbour),
        (Operation.SET_TARGET, own, neighbour),
        (Operation.CONTROL, "check"),
        (Operation.SET_PERMS, "name", f"b{own}"),
        (Operation.READ, f"/local/domain/{neighbour}/name"),
    )
    assert set(answers) == {"EACCES"}
    given = ask(guest, (Operation.WRITE, "data/mine", "=1"), (Operation.SET_PERMS, "data/mine", f"n{neighbour}"))
    assert given == ["OK", "EPERM"]
    guest.run("xenstore-rm data/mine")


def test_quotas_are_answered_with_the_protocols_errors(guest: TalkingGuest) -> None:
    limits = DEFAULT
    answers = ask(
        guest,
        (Operation.WRITE, "data/big", f"={'x' * 1000}"),
        (Operation.READ, "data//x"),
        (Operation.READ, "data/" + "x" * limits.path_length),
        repeated(Operation.WATCH, limits.watches + 1, "data/big", "token#"),
        repeated(Operation.TRANSACTION_START, limits.transactions + 1, ""),
        repeated(Operation.WRITE, limits.nodes + 1, "data/many/#", "="),
        (Operation.RM, "data/many"),
        (Operation.RM, "data/big"),
    )
    assert answers == ["OK", "EINVAL", "EINVAL", "E2BIG", "ENOSPC", "ENOSPC", "OK", "OK"]
    assert (
        guest.run("xenstore-write data/big $(head -c 2048 /dev/zero | tr '\\0' x); xenstore-read data/big | wc -c")
        == "2049"
    )
    guest.run("! xenstore-write data/big $(head -c 2049 /dev/zero | tr '\\0' x); xenstore-rm data/big")


def test_who_breaks_the_protocol_loses_the_port_and_gets_it_again(guest: TalkingGuest) -> None:
    """Neither the agent's own port nor its watches suffer."""
    assert guest.watches_of("control/shutdown") == 1
    before = guest.agent_said()
    guest.run("head -c 64 /dev/zero | tr '\\0' '\\377' >$XENSTORED_PATH")
    assert guest.eventually("xenstore-read name") == "talks"
    assert guest.watches_of("control/shutdown") == 1
    assert guest.agent_said() == before
