"""Archives that others wrote: what becomes of them, and what is left of those that fail, which is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.transfer.import_pages import MACHINES, import_machines
from tests.sampling import each
from tests.toolstack.devices.test_vbd import cd_image
from tests.toolstack.devices.test_vdi import disturb
from tests.toolstack.transfer.peers import MemoryPeer, ask, import_bytes
from tests.toolstack.transfer.test_machines_round_trip import content, disks_of
from tests.toolstack.vm.world import MIB, World
from tests.xva_broken import BROKEN, CHECKSUMS, EOF, wrong_checksum
from tests.xva_writer import Machine, compressed, legacy, machine, tar, xva

CONTENT = b"boot" + bytes(3 * MIB) + b"\x55" * 5000 + bytes(MIB) + b"end"
ROWS = ("VM", "VBD", "VIF", "VDI", "network", "VM_metrics", "VBD_metrics", "VIF_metrics", "message")


def rows(host: World) -> dict[str, Any]:
    """Everything that an import could leave behind."""
    found: dict[str, Any] = {cls: set(host.stack.database.refs(cls)) for cls in ROWS}
    operations = {
        ref: row.record["current_operations"]
        for cls in ("VM", "VDI", "SR")
        for ref, row in host.stack.database.rows(cls).items()
    }
    return {**found, "files": host.files(), "operations": operations}


@asynccontextmanager
async def nothing_left(host: World) -> AsyncIterator[None]:
    before = rows(host)
    yield
    assert rows(host) == before


async def failed(host: World, archive: bytes, **query: str) -> tuple[str, ...]:
    try:
        await import_bytes(host, archive, **query)
    except ApiError as error:
        return error.description
    raise AssertionError("the import succeeded")


FORMS: list[dict[str, Any]] = [
    {},
    {"checksum": "xxhash"},
    {"export_vsn": 1},
    {"keep_alive": True},
    {"export_vsn": 0},
    {"compress": "gzip"},
    {"compress": "zstd"},
]


@pytest.mark.parametrize("form", each(7, FORMS), ids=str)
async def test_every_form_of_archive_gives_the_same_disk(host: World, form: dict[str, Any]) -> None:
    archive = xva(machine("web", {"0": CONTENT}), **form)
    (vm,) = await import_bytes(host, archive)
    (vdi,) = disks_of(host, vm)
    size = host.get("VDI", vdi, "virtual_size")
    assert await content(host, vdi) == CONTENT + bytes(size - len(CONTENT))
    row = host.row("VM", vm)
    assert (row["name_label"], row["power_state"], row["VCPUs_max"]) == ("web", "Halted", 2)
    assert row["other_config"]["import_task"].startswith("OpaqueRef:")
    assert host.get("VIF", row["VIFs"][0], "MAC") != "00:16:3e:12:34:56"
    await host.call("VM.start", vm, False, False)


@pytest.mark.slow
async def test_a_network_that_is_not_here_is_made_once(host: World) -> None:
    archive = changed("network", {"name_label": "a network of theirs", "bridge": "xapi77"})
    first, second = (await import_bytes(host, archive))[0], (await import_bytes(host, archive))[0]
    joined = {host.get("VIF", host.get("VM", vm, "VIFs")[0], "network") for vm in (first, second)}
    assert len(joined) == 1
    assert host.get("network", joined.pop(), "name_label") == "a network of theirs"


async def test_a_cd_image_is_looked_for_here(host: World) -> None:
    disc = await cd_image(host)
    name = host.get("VDI", disc, "location")
    here = await import_bytes(host, xva(machine(cd=name)))
    elsewhere = await import_bytes(host, xva(machine(cd="not-here.iso")))
    for (vm,), expected in ((here, disc), (elsewhere, NULL_REF)):
        (drive,) = (vbd for vbd in host.get("VM", vm, "VBDs") if host.get("VBD", vbd, "type") == "CD")
        assert host.get("VBD", drive, "VDI") == expected
        assert host.get("VBD", drive, "empty") == (expected == NULL_REF)


@pytest.mark.slow
async def test_the_legacy_form(host: World) -> None:
    (vm,) = await import_bytes(host, legacy("old", {"xvda": CONTENT, "xvdb": b"second"}, chunk=MIB))
    row = host.row("VM", vm)
    assert (row["name_label"], row["name_description"]) == ("old import", "made for a test")
    assert [host.get("VBD", vbd, "userdevice") for vbd in row["VBDs"]] == ["0", "1"]
    assert (await content(host, disks_of(host, vm)[0])).startswith(CONTENT)
    assert row["PV_args"] == "root=/dev/vda ro"


@pytest.mark.parametrize("what", each(11, BROKEN))
async def test_a_broken_archive_is_refused_and_leaves_nothing(host: World, what: str) -> None:
    broken = BROKEN[what]()
    async with nothing_left(host):
        assert (await failed(host, broken.data))[0] == broken.code


async def test_forced_imports_keep_what_came(host: World) -> None:
    assert (await failed(host, wrong_checksum("sha1").data))[0] == CHECKSUMS
    (vm,) = await import_bytes(host, wrong_checksum("sha1").data, force="true")
    assert (await content(host, disks_of(host, vm)[0])).startswith(b"\x01" * MIB)
    whole = xva(machine("half", {"0": b"\x07" * (3 * MIB)}))
    assert (await failed(host, whole[: 2 * MIB], force="true"))[0] == EOF
    (kept,) = await host.call("VM.get_by_name_label", "half")
    assert host.get("VM", kept, "current_operations") == {}
    assert (await content(host, disks_of(host, kept)[0])).startswith(b"\x07" * MIB)


STEPS = ["make a disk", "record the machines", "fill the disks", "complete the machines"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_failure_at_any_step_leaves_nothing(host: World, step: str) -> None:
    archive = xva(machine("web", {"0": CONTENT, "1": b"second"}, network="theirs"))

    def fail(name: str) -> None:
        if name == step:
            raise ApiError("INTERNAL_ERROR", name)

    token = before_step.set(fail)
    try:
        async with nothing_left(host):
            assert await failed(host, archive) == ("INTERNAL_ERROR", step)
    finally:
        before_step.reset(token)


@pytest.mark.parametrize("verb", each(2, ["create_disk", "source", "update_disk"]))
async def test_a_failing_medium_leaves_nothing(host: World, verb: str) -> None:
    before = rows(host)
    disturb(host, **{f"fail_{verb}": "44 the medium is full"})
    error = await failed(host, xva(machine("web", {"0": CONTENT, "1": b"second"})))
    assert error == ("SR_BACKEND_FAILURE_44", "", "the medium is full", "")
    assert rows(host) == before


async def test_a_disk_that_does_not_fit_leaves_nothing(host: World) -> None:
    async with nothing_left(host):
        huge = with_disk(size=1 << 49)
        assert (await failed(host, huge))[0] == "SR_BACKEND_FAILURE_44"
        assert (await failed(host, with_disk(size=1 << 60)))[0] == "IMPORT_ERROR"
        assert (await failed(host, with_disk(size=-5)))[0] == "IMPORT_ERROR"
        # More blocks than the disk has bytes: nothing is written beyond its end.
        assert (await failed(host, with_disk(size=MIB)))[0] == "IMPORT_ERROR"


def with_disk(**changes: Any) -> bytes:
    fields = {"virtual_size" if name == "size" else name: str(value) for name, value in changes.items()}
    return changed("VDI", fields, {"0": CONTENT})


def changed(cls: str, fields: dict[str, Any], disks: dict[str, bytes] | None = None) -> bytes:
    made = machine("web", disks)
    objects = [(c, id, {**s, **fields} if c == cls else s) for c, id, s in made.objects]
    return xva(replace(made, objects=objects))


@pytest.mark.parametrize(
    ("cls", "fields", "code"),
    each(
        3,
        [
            ("VM", {"memory_static_max": "0"}, "MEMORY_CONSTRAINT_VIOLATION"),
            ("VM", {"memory_static_min": str(1 << 60)}, "MEMORY_CONSTRAINT_VIOLATION_ORDER"),
            ("VM", {"VCPUs_max": "0"}, "INVALID_VALUE"),
            ("VM", {"name_label": ["a list"]}, "IMPORT_ERROR"),
            ("VM", {"other_config": {"mac_seed": {"a": "b"}}}, "IMPORT_ERROR"),
            ("VM", {"is_a_snapshot": True, "snapshot_of": "Ref:1"}, "IMPORT_ERROR"),
            ("VM", {"parent": "Ref:1"}, "IMPORT_ERROR"),
            ("VBD", {"VM": "Ref:77"}, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"),
            ("VBD", {"VM": "Ref:0"}, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"),
            ("VBD", {"userdevice": "99"}, "INVALID_DEVICE"),
            ("VIF", {"network": "Ref:77"}, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"),
            ("VIF", {"ipv4_allowed": ["nowhere"]}, "INVALID_IP_ADDRESS_SPECIFIED"),
            ("VDI", {"snapshot_of": "Ref:6"}, "IMPORT_ERROR"),
        ],
    ),
)
async def test_objects_that_make_no_sense(host: World, cls: str, fields: dict[str, Any], code: str) -> None:
    async with nothing_left(host):
        assert (await failed(host, changed(cls, fields)))[0] == code


@pytest.mark.slow
async def test_a_bomb_for_a_description(host: World) -> None:
    """A few kilobytes that would be forty megabytes of XML."""
    bomb = compressed(tar([("ova.xml", b"<value>" + b" " * (40 << 20))]), "gzip")
    async with nothing_left(host):
        peer = MemoryPeer(bomb, piece=4096)
        with pytest.raises(ApiError, match="larger than"):
            await ask(host, import_machines, peer, MACHINES)


async def test_what_a_stranger_says_of_itself_does_not_become_true(host: World) -> None:
    claims = {
        "power_state": "Running", "domid": "1", "is_default_template": True,
        "ha_always_run": True, "resident_on": "Ref:0", "actions_after_crash": "self-destruct",
        "other_config": {"default_template": "true"},
    }  # fmt: skip
    (vm,) = await import_bytes(host, changed("VM", claims))
    row = host.row("VM", vm)
    assert (row["power_state"], row["domid"], row["is_control_domain"]) == ("Halted", -1, False)
    assert (row["is_default_template"], row["ha_always_run"], row["resident_on"]) == (False, False, NULL_REF)
    assert row["actions_after_crash"] in ("destroy", "restart", "")


@pytest.mark.parametrize("leaves_after", each(2, [2 * MIB, 30_000, 100]))
async def test_a_client_that_goes_away_leaves_nothing(host: World, leaves_after: int) -> None:
    archive = xva(machine("web", {"0": b"\x01" * (3 * MIB)}))
    async with nothing_left(host):
        peer = MemoryPeer(archive, leaves_after=leaves_after)
        with pytest.raises(ApiError, match=EOF):
            await ask(host, import_machines, peer, MACHINES)


async def test_a_body_in_chunks_is_refused(host: World) -> None:
    peer = MemoryPeer(xva(machine()), chunked=True)
    async with nothing_left(host):
        with pytest.raises(ApiError, match="IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"):
            await ask(host, import_machines, peer, MACHINES)
    assert (peer.status, peer.taken) == (403, 0)


async def in_the_middle(host: World, archive: bytes, look: Callable[[Ref], Any]) -> asyncio.Task[Any]:
    """Begin an import, and look at its machine while its client says nothing."""
    arrived, on = asyncio.Event(), asyncio.Event()

    async def wait(taken: int) -> None:
        if taken >= 2 * MIB:
            arrived.set()
            await on.wait()

    peer = MemoryPeer(archive, wait=wait)
    task = asyncio.ensure_future(ask(host, import_machines, peer, MACHINES))
    await asyncio.wait_for(arrived.wait(), 60)
    (vm,) = await host.call("VM.get_by_name_label", "web")
    answer = look(vm)
    if asyncio.iscoroutine(answer):
        await answer
    on.set()
    return task


async def test_while_disks_are_filled_the_machine_is_busy_and_the_task_says_so(host: World) -> None:
    async def look(vm: Ref) -> None:
        row = host.row("VM", vm)
        ((task, operation),) = row["current_operations"].items()
        assert operation == "import"
        assert host.get("task", task, "other_config")["object_creation"] == "complete"
        assert "cancel" in host.get("task", task, "allowed_operations")
        assert "start" not in row["allowed_operations"]
        (vdi,) = disks_of(host, vm)
        assert host.get("VDI", vdi, "allowed_operations") == ()

    task = await in_the_middle(host, xva(machine("web", {"0": b"\x01" * (3 * MIB)})), look)
    (vm,) = await task
    assert "start" in host.get("VM", vm, "allowed_operations")


async def test_a_cancelled_import_leaves_nothing(host: World) -> None:
    async def cancel(vm: Ref) -> None:
        await host.call("task.cancel", next(iter(host.get("VM", vm, "current_operations"))))

    async with nothing_left(host):
        task = await in_the_middle(host, xva(machine("web", {"0": b"\x01" * (3 * MIB)})), cancel)
        with pytest.raises(ApiError, match="TASK_CANCELLED"):
            await task


@pytest.mark.slow
async def test_repositories(host: World) -> None:
    await cd_image(host)
    library = next(ref for ref, row in host.stack.database.rows("SR").items() if row.record["content_type"] == "iso")
    archive = xva(machine())
    assert await failed(host, archive, sr_id="nonsense") == ("DEFAULT_SR_NOT_FOUND", "nonsense")
    assert await failed(host, archive, sr_id=library) == ("SR_OPERATION_NOT_SUPPORTED", library)
    default = host.get("pool", host.stack.pool, "default_SR")
    for name, value in (("sr_id", default), ("sr_uuid", host.get("SR", default, "uuid"))):
        (vm,) = await import_bytes(host, archive, **{name: value})
        assert host.get("VDI", disks_of(host, vm)[0], "SR") == default


@pytest.mark.slow
async def test_restoring_a_machine_that_is_here(host: World) -> None:
    made = machine("web")
    (old,) = await import_bytes(host, xva(made), restore="true")
    uuid = host.get("VM", old, "uuid")
    async with nothing_left(host):
        error = await failed(host, xva(made), restore="true")
        assert error == ("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", old, "0", "0")
    for query in ({"force": "true"}, {}):
        newer = xva(
            Machine([(c, i, {**s, "version": "5"} if c == "VM" else s) for c, i, s in made.objects], made.disks)
        )
        archive = xva(made) if query else newer
        (vm,) = await import_bytes(host, archive, restore="true", **query)
        assert host.stack.database.find("VM", old) is None
        assert host.get("VM", vm, "uuid") == uuid
        assert host.get("VIF", host.get("VM", vm, "VIFs")[0], "MAC") == "00:16:3e:12:34:56"
        old = vm
    other = machine("another", vm={"other_config": host.get("VM", old, "other_config")})
    assert (await failed(host, xva(other), restore="true"))[0] == "DUPLICATE_MAC_SEED"
    await host.call("VM.start", old, False, False)
    assert (await failed(host, xva(made), restore="true", force="true"))[0] == "VM_BAD_POWER_STATE"
