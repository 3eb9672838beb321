"""What derived messages do to every kind of field, and that a change is on disk before its answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.engine.calls import Answer
from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF
from tests.engine.conftest import MakeToy
from tests.engine.toy_calls import STRANGER, Toy


async def test_constructor_and_destructor(toy: Toy) -> None:
    session = await toy.root()
    args = {"name_label": "desk", "watts": "40", "host": toy.host, "levels": {"8": 0.5}, "on": True, "uuid": "mine"}
    lamp = await toy.call("lamp.create", session, args)
    record = await toy.call("lamp.get_record", session, lamp)
    assert (record["watts"], record["levels"], record["on"], record["colour"]) == (40, {8: 0.5}, False, "white")
    assert record["uuid"] not in ("", "mine")
    assert await toy.call("lamp.get_by_uuid", session, record["uuid"]) == lamp
    assert await toy.call("lamp.get_all_records", session) == {lamp: record}
    assert await toy.call("lamp.get_all_records_where", session, 'field "name_label" = "desk"') == {lamp: record}
    assert await toy.call("lamp.get_all_records_where", session, 'field "name_label" = "x"') == {}
    assert (await toy.fails("lamp.get_all_records_where", session, "field ="))[0] == "INVALID_VALUE"
    await toy.call("lamp.destroy", session, lamp)
    assert await toy.call("lamp.get_all", session) == ()
    assert await toy.fails("lamp.destroy", session, lamp) == ("HANDLE_INVALID", "lamp", lamp)


async def test_constructor_runs_as_a_task_too(toy: Toy) -> None:
    session = await toy.root()
    task = await toy.call("Async.lamp.create", session, {"name_label": "desk", "watts": 1})
    await toy.until(lambda: toy.task(task)["status"] != "pending")
    (lamp,) = toy.database.refs("lamp")
    assert toy.task(task)["result"] == f"<value>{lamp}</value>"


async def test_map_entries(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await toy.call("lamp.add_to_other_config", session, lamp, "room", "attic")
    duplicate = await toy.fails("lamp.add_to_other_config", session, lamp, "room", "cellar")
    assert duplicate == ("MAP_DUPLICATE_KEY", "lamp", "other_config", lamp, "room")
    await toy.call("lamp.remove_from_other_config", session, lamp, "room")
    await toy.call("lamp.remove_from_other_config", session, lamp, "room")
    await toy.call("lamp.add_to_other_config", session, lamp, "room", "cellar")
    assert await toy.call("lamp.get_other_config", session, lamp) == {"room": "cellar"}
    await toy.call("lamp.add_to_levels", session, lamp, "8", 1)
    assert await toy.call("lamp.get_levels", session, lamp) == {8: 1.0}
    assert (await toy.fails("lamp.add_to_levels", session, lamp, 8, 2.0))[-1] == "8"
    await toy.call("lamp.set_other_config", session, lamp, {})
    assert await toy.call("lamp.get_other_config", session, lamp) == {}


async def test_set_entries(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp(tags=("b",))
    for tag in ("a", "b", "a"):
        await toy.call("lamp.add_tags", session, lamp, tag)
    assert await toy.call("lamp.get_tags", session, lamp) == ("b", "a")
    for tag in ("b", "c"):
        await toy.call("lamp.remove_tags", session, lamp, tag)
    assert await toy.call("lamp.get_tags", session, lamp) == ("a",)


async def test_references_are_to_what_is_there(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    await toy.call("lamp.set_spare", session, lamp, toy.host)
    for wrong in ("OpaqueRef:nobody", lamp):
        assert await toy.fails("lamp.set_spare", session, lamp, wrong) == ("HANDLE_INVALID", "host", wrong)
    assert await toy.call("lamp.get_spare", session, lamp) == toy.host
    for null in (NULL_REF, ""):
        await toy.call("lamp.set_spare", session, lamp, null)
        assert await toy.call("lamp.get_spare", session, lamp) == NULL_REF


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("set_tags", [[]]),
        ("add_tags", ["x"]),
        ("remove_tags", ["x"]),
        ("set_other_config", [{}]),
        ("add_to_other_config", ["x", "y"]),
        ("remove_from_other_config", ["x"]),
        ("destroy", []),
    ],
)
async def test_writers_of_an_object_that_is_not_there(toy: Toy, method: str, arguments: list[object]) -> None:
    description = await toy.fails(f"lamp.{method}", await toy.root(), NULL_REF, *arguments)
    assert description == ("HANDLE_INVALID", "lamp", NULL_REF)


async def test_change_is_on_disk_before_its_answer(start: MakeToy, tmp_path: Path) -> None:
    toy = await start(path=tmp_path / "state.db")
    session = await toy.root()
    lamp = await toy.call("lamp.create", session, {"name_label": "desk", "watts": 1})
    await toy.call("lamp.set_name_label", session, lamp, "bed")
    await toy.call("lamp.switch_on", session, lamp, False)
    # No orderly end: the file is read as it was when the last answer came.
    again = await start(path=copied(tmp_path) / "state.db")
    assert (again.database.get("lamp", lamp, "name_label"), again.database.get("lamp", lamp, "on")) == ("bed", True)
    assert await again.call("lamp.get_name_label", session, lamp) == "bed"


def copied(directory: Path) -> Path:
    """A copy of the database's files as they are now."""
    copy = directory / "copy"
    copy.mkdir()
    for file in directory.glob("state.db*"):
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


async def test_write_that_changes_nothing_is_answered_at_once(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    assert isinstance(toy.dispatcher.call("lamp.set_name_label", [session, lamp, "lamp"], STRANGER), Answer)


async def test_refused_write_changes_nothing(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    record = toy.database.record("lamp", lamp)
    with pytest.raises(ApiError, match="INVALID_VALUE"):
        await toy.call("lamp.set_bright", session, lamp, -1.0)
    assert toy.database.record("lamp", lamp) is record
