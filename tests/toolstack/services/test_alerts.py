"""What the host tells by itself, and what clients do with messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domzero.host.storage.protocol import Repository, StorageError
from domzero.host.storage.sim import SimStorage
from domzero.toolstack import alerts
from domzero.toolstack.network import network_snapshot
from domzero.toolstack.storage.media import replug_all
from tests.api.harness import in_process, login
from tests.toolstack.vm.world import World, world
from tests.xe.terminal import printed, refused


def told(host: World) -> list[tuple[str, int]]:
    """Names and priorities, in the order in which they came; gone afterwards."""
    rows = sorted(host.stack.database.rows("message").values(), key=lambda row: row.created)
    with host.stack.database.transaction() as transaction:
        for row in rows:
            transaction.destroy("message", row.ref)
    return [(row.record["name"], row.record["priority"]) for row in rows]


async def test_a_machines_life(host: World) -> None:
    vm = await host.machine(name_label="a <machine>")
    for method, *more in (
        ("start", False, False), ("suspend",), ("resume", False, False), ("hard_reboot",), ("clean_shutdown",),
        ("clone", "b"), ("start", True, False), ("hard_shutdown",),
    ):  # fmt: skip
        await host.over(host.call(f"VM.{method}", vm, *more), 10)
    uuid = host.get("VM", vm, "uuid")
    messages = (await host.call("message.get", "VM", uuid, "19700101T00:00:00Z")).values()
    assert {message["obj_uuid"] for message in messages} == {uuid}
    assert all("'a <machine>'" in message["body"] for message in messages)
    assert told(host) == [
        ("VM_STARTED", 5), ("VM_SUSPENDED", 5), ("VM_RESUMED", 5), ("VM_REBOOTED", 3), ("VM_SHUTDOWN", 3),
        ("VM_CLONED", 5), ("VM_STARTED", 5), ("VM_SHUTDOWN", 3),
    ]  # fmt: skip


async def test_what_failed_is_not_told_as_done(host: World) -> None:
    vm = await host.machine(other_config={"sim:fail-start": "no"})
    assert await host.fails("VM.start", vm, False, False)
    assert told(host) == []


async def test_what_guests_do(host: World) -> None:
    fates: dict[str, list[tuple[str, int]]] = {
        "crash-after": [("VM_STARTED", 5), ("VM_CRASHED", 3)],
        "shutdown-after": [("VM_STARTED", 5), ("VM_SHUTDOWN", 3)],
    }
    for fate, expected in fates.items():
        vm = await host.machine(other_config={f"sim:{fate}": "5"})
        await host.call("VM.start", vm, False, False)
        await host.clock.advance(6)
        await host.until_state(vm, "Halted")
        await host.settle()
        assert told(host) == expected
    vm = await host.machine(other_config={"sim:reboot-after": "5"})
    await host.call("VM.start", vm, False, False)
    await host.clock.advance(6)
    await host.settle()
    assert told(host)[:2] == [("VM_STARTED", 5), ("VM_REBOOTED", 3)]


async def test_a_repository_that_does_not_come_back(host: World, monkeypatch: Any) -> None:
    async def refuse(self: SimStorage, repository: Repository) -> None:
        raise StorageError(140, "no medium")

    monkeypatch.setattr(SimStorage, "attach", refuse)
    await replug_all(host.stack)
    assert told(host) == [("PBD_PLUG_FAILED_ON_SERVER_START", 3)]


async def test_a_change_of_management_that_a_restart_takes_back(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    async with world(tmp_path, database=database) as first:
        before = network_snapshot.take(first.stack.database, first.stack.host)
        network_snapshot.write(tmp_path, before)
        host = first.get("host", first.stack.host, "uuid")
    async with world(tmp_path, database=database) as second:
        messages = await second.call("message.get", "Host", host, "19700101T00:00:00Z")
        assert [one["name"] for one in messages.values()] == ["HOST_MANAGEMENT_CHANGE_TAKEN_BACK"]


async def test_there_is_an_end_to_messages(host: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(alerts, "MESSAGES_KEPT", 20)
    monkeypatch.setattr(alerts, "ROOM", 5)
    uuid = host.get("pool", host.stack.pool, "uuid")
    for number in range(25):
        await host.call("message.create", f"number {number}", 5, "Pool", uuid, "")
    kept = sorted(int(record["name"].split()[1]) for record in (await host.call("message.get_all_records")).values())
    assert 15 <= len(kept) <= 20
    assert kept == list(range(25 - len(kept), 25))


async def test_messages_outlive_what_they_are_about_but_are_not_made_of_nothing(host: World) -> None:
    vm = await host.machine()
    uuid = host.get("VM", vm, "uuid")
    message = await host.call("message.create", "NOTE", 1, "VM", uuid, "remember")
    await host.call("VM.destroy", vm)
    assert (await host.call("message.get_record", message))["body"] == "remember"
    assert (await host.fails("message.create", "NOTE", 1, "VM", uuid, ""))[0] == "UUID_INVALID"
    assert (await host.fails("message.get", "VM", uuid, "19700101T00:00:00Z"))[0] == "UUID_INVALID"
    assert (await host.fails("message.destroy_many", [message, "OpaqueRef:none"]))[0] == "HANDLE_INVALID"
    assert await host.call("message.get_all") == (message,)


def test_the_binding_and_xe(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        api = login(host.url).xenapi
        token = getattr(api.event, "from")(["message"], "", 0.0)["token"]
        machine = printed(host, "vm-install", "template=Tiny Linux", "new-name-label=mine").strip()
        printed(host, "vm-start", f"uuid={machine}")
        found = getattr(api.event, "from")(["message"], token, 5.0)["events"]
        assert [(event["operation"], event["snapshot"]["name"]) for event in found] == [
            ("add", "VM_CLONED"),
            ("add", "VM_STARTED"),
        ]
        assert "VM_STARTED" in printed(host, "message-list", "name=VM_STARTED")
        printed(host, "message-destroy-all", "priority=3")
        printed(host, "message-destroy-all", "before=20200101T00:00:00Z")
        assert len(api.message.get_all()) == 2
        assert "must be a time" in refused(host, "message-destroy-all", "after=yesterday")
        assert "must be an integer" in refused(host, "message-destroy-all", "priority=high")
        printed(host, "message-destroy-all", "after=20200101T00:00:00Z", "priority=5")
        assert api.message.get_all() == []
