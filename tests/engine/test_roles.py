"""Every message under every role, the role objects, and users whose rights change while they are logged in."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid5

import pytest

from domzero.datamodel.roles import ROLES
from domzero.engine.calls import LOCAL
from domzero.engine.errors import ApiError
from domzero.engine.roles import _NAMESPACE, NO_RANK, permission_uuid
from domzero.engine.users import UnknownUserError
from tests.engine.conftest import MakeToy
from tests.engine.toy_calls import GRAPH, PASSWORD, Toy

RANKS = {role.name: role.rank for role in ROLES}


@pytest.mark.parametrize("role", RANKS)
async def test_every_message_under_every_role(toy: Toy, role: str) -> None:
    session = await toy.session_of(role)
    surplus = ["surplus"] * 9
    for name, method in GRAPH.methods.items():
        if not method.message.session:
            continue
        for form in (name, name.replace(".", "_", 1), *([f"Async.{name}"] if method.message.asynchronous else [])):
            description = await toy.fails(form, session, *surplus)
            if RANKS[role] >= RANKS[method.message.least_role]:
                assert description[0] == "MESSAGE_PARAMETER_COUNT_MISMATCH", form
            else:
                assert description[:2] == ("RBAC_PERMISSION_DENIED", name.lower()), form


@pytest.mark.parametrize("name", ["vm.start", "", "host_metrics.get_all", *map(str, range(20))])
def test_the_uuids_of_permissions_are_of_version_5(name: str) -> None:
    assert permission_uuid(name) == str(uuid5(_NAMESPACE, name))


@pytest.mark.parametrize("role", RANKS)
async def test_permissions_of_a_session_are_what_it_may_call(toy: Toy, role: str) -> None:
    session = await toy.session_of(role)
    record = await toy.call("session.get_record", session, session)
    may = {
        name.lower()
        for name, method in GRAPH.methods.items()
        if method.message.session and RANKS[method.message.least_role] <= RANKS[role]
    }
    assert set(record["rbac_permissions"]) == may
    assert set(await toy.call("subject.get_permissions_name_label", session, record["subject"])) == may


async def test_short_way_of_getters_obeys_roles(toy: Toy) -> None:
    lamp, session = toy.lamp(), await toy.session_of("read-only")
    assert await toy.call("lamp.get_watts", session, lamp) == 40
    toy.engine.sessions.live[session].rank = NO_RANK
    assert (await toy.fails("lamp.get_watts", session, lamp))[:2] == ("RBAC_PERMISSION_DENIED", "lamp.get_watts")
    assert (await toy.fails("lamp.get_record", session, lamp))[:2] == ("RBAC_PERMISSION_DENIED", "lamp.get_record")


async def test_role_objects(toy: Toy) -> None:
    session = await toy.root()
    (operator,) = await toy.call("role.get_by_name_label", session, "vm-operator")
    record = await toy.call("role.get_record", session, operator)
    uuid = next(role.uuid for role in ROLES if role.name == "vm-operator")
    assert (operator, record["uuid"], record["is_internal"]) == (f"OpaqueRef:{uuid}", uuid, False)
    names = await toy.call("role.get_permissions_name_label", session, operator)
    assert {"lamp.switch_on", "lamp.get_watts", "lamp.add_to_other_config"} <= set(names)
    assert not {"lamp.repair", "lamp.set_other_config"} & set(names)
    permissions = await toy.call("role.get_permissions", session, operator)
    assert permissions == record["subroles"]
    (permission,) = await toy.call("role.get_by_name_label", session, "lamp.repair")
    assert await toy.call("role.get_subroles", session, permission) == ()
    assert await toy.call("role.get_permissions", session, permission) == (permission,)
    able = await toy.call("role.get_by_permission", session, permission)
    labels = {await toy.call("role.get_name_label", session, role) for role in able}
    assert labels == {"vm-admin", "vm-power-admin", "pool-operator", "pool-admin"}
    assert await toy.call("role.get_by_permission_name_label", session, "lamp.repair") == able
    assert await toy.call("role.get_by_permission_name_label", session, "lamp.fly") == ()
    assert await toy.fails("role.get_by_permission", session, "no") == ("HANDLE_INVALID", "role", "no")


async def test_role_objects_are_made_true_at_start_and_left_alone_when_they_are(start: MakeToy, tmp_path: Path) -> None:
    toy = await start(path=tmp_path / "state.db")
    with toy.database.transaction() as transaction:
        gone = transaction.create("role", {"name_label": "from another time"})
        (admin,) = toy.database.by_name_label("role", "pool-admin")
        transaction.update("role", admin, subroles=())
    await toy.stop()
    toy = await start(path=tmp_path / "state.db")
    assert toy.database.find("role", gone) is None
    assert toy.database.get("role", admin, "subroles") != ()
    generation = toy.database.generation
    toy.engine.roles.reconcile(toy.database)
    assert toy.database.generation == generation


async def test_who_held_a_role_under_another_uuid_holds_it_still(start: MakeToy, tmp_path: Path) -> None:
    """As databases of older versions have it."""
    toy = await start(path=tmp_path / "state.db")
    await toy.engine.users.add("ann", PASSWORD, "vm-admin")
    subject = toy.engine.users.find_subject("ann")
    with toy.database.transaction() as transaction:
        old = transaction.create("role", {"name_label": "vm-operator"})
        transaction.update("subject", subject, roles=(old, toy.engine.roles.ref("vm-operator")))
    await toy.stop()
    toy = await start(path=tmp_path / "state.db")
    assert toy.database.find("role", old) is None
    assert toy.database.get("subject", subject, "roles") == (toy.engine.roles.ref("vm-operator"),)
    session = await toy.call("session.login_with_password", "ann", PASSWORD)
    await toy.call("lamp.switch_on", session, toy.lamp(), False)
    assert (await toy.fails("lamp.repair", session, toy.lamp()))[0] == "RBAC_PERMISSION_DENIED"


async def test_change_of_roles_acts_on_open_sessions(toy: Toy) -> None:
    root, lamp = await toy.root(), toy.lamp()
    user = await toy.session_of("read-only")
    subject = await toy.call("session.get_subject", user, user)
    (reader,) = await toy.call("role.get_by_name_label", root, "read-only")
    (admin,) = await toy.call("role.get_by_name_label", root, "vm-admin")
    assert (await toy.fails("lamp.set_name_label", user, lamp, "x"))[0] == "RBAC_PERMISSION_DENIED"
    await toy.call("subject.add_to_roles", root, subject, admin)
    await toy.call("lamp.set_name_label", user, lamp, "x")
    assert await toy.fails("subject.add_to_roles", root, subject, admin) == ("ROLE_ALREADY_EXISTS",)
    assert await toy.fails("subject.add_to_roles", root, subject, "no") == ("ROLE_NOT_FOUND",)
    await toy.call("subject.remove_from_roles", root, subject, admin)
    assert await toy.fails("subject.remove_from_roles", root, subject, admin) == ("ROLE_NOT_FOUND",)
    assert (await toy.fails("lamp.set_name_label", user, lamp, "y"))[0] == "RBAC_PERMISSION_DENIED"
    await toy.call("subject.remove_from_roles", root, subject, reader)
    assert (await toy.fails("lamp.get_name_label", user, lamp))[0] == "RBAC_PERMISSION_DENIED"
    await toy.call("subject.destroy", root, subject)
    assert await toy.fails("lamp.get_name_label", user, lamp) == ("SESSION_INVALID", user)


async def test_subject_without_role_or_password_does_not_log_in(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domzero.engine.login.DELAY", (0.0, 0.0))
    root = await toy.root()
    subject = await toy.call("subject.create", root, {"subject_identifier": "eve", "other_config": {"a": "b"}})
    assert await toy.call("subject.get_roles", root, subject) == ()
    assert await toy.fails("subject.create", root, {"subject_identifier": "eve"}) == ("SUBJECT_ALREADY_EXISTS",)
    assert (await toy.fails("session.login_with_password", "eve", ""))[0] == "SESSION_AUTHENTICATION_FAILED"
    await toy.passwords.set("eve", PASSWORD)
    assert (await toy.fails("session.login_with_password", "eve", PASSWORD))[0] == "SESSION_AUTHORIZATION_FAILED"
    assert (await toy.fails("session.login_with_password", "eve", "wrong"))[0] == "SESSION_AUTHENTICATION_FAILED"


async def test_local_users_are_made_changed_and_removed(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domzero.engine.login.DELAY", (0.0, 0.0))
    users = toy.engine.users
    await users.add("ann", PASSWORD, "vm-admin", "Ann")
    session = await toy.call("session.login_with_password", "ann", PASSWORD)
    user = await toy.call("session.get_this_user", session, session)
    assert await toy.call("user.get_fullname", session, user) == "Ann"
    await users.add("ann", "another", "read-only")
    assert len(toy.database.refs("subject")) == 1
    assert (await toy.fails("session.login_with_password", "ann", PASSWORD))[0] == "SESSION_AUTHENTICATION_FAILED"
    again = await toy.call("session.login_with_password", "ann", "another")
    assert (await toy.fails("lamp.repair", again, "x"))[0] == "RBAC_PERMISSION_DENIED"
    assert (await toy.fails("lamp.repair", session, "x"))[0] == "RBAC_PERMISSION_DENIED"
    await users.remove("ann")
    assert await toy.fails("lamp.get_all", session) == ("SESSION_INVALID", session)
    assert (await toy.fails("session.login_with_password", "ann", "another"))[0] == "SESSION_AUTHENTICATION_FAILED"
    with pytest.raises(UnknownUserError):
        await users.remove("ann")
    with pytest.raises(UnknownUserError):
        await users.remove("root")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("root", PASSWORD, "read-only"), "INVALID_VALUE"),
        (("", PASSWORD, "read-only"), "INVALID_VALUE"),
        (("ann", PASSWORD, "king"), "ROLE_NOT_FOUND"),
        (("ann", "", "read-only"), "CHANGE_PASSWORD_REJECTED"),
    ],
)
async def test_bad_users_are_refused(toy: Toy, arguments: tuple[Any, ...], code: str) -> None:
    with pytest.raises(ApiError, match=code):
        await toy.engine.users.add(*arguments)
    assert toy.database.refs("subject") == ()


async def test_user_objects(toy: Toy) -> None:
    root = await toy.root()
    user = await toy.call("user.create", root, {"short_name": "bob", "fullname": "Bob"})
    code = ("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "user", "short_name", "bob")
    assert await toy.fails("user.create", root, {"short_name": "bob", "fullname": "B"}) == code
    await toy.passwords.set("bob", PASSWORD)
    await toy.call("user.destroy", root, user)
    assert "bob" not in toy.passwords
    assert await toy.fails("user.destroy", root, user) == ("HANDLE_INVALID", "user", user)
    own = await toy.call("session.get_this_user", root, root)
    assert (await toy.fails("user.destroy", root, own))[0] == "OPERATION_NOT_ALLOWED"
    assert await toy.call("session.login_with_password", "", "", origin=LOCAL)


async def test_a_user_s_sessions_end_with_the_user(toy: Toy) -> None:
    root, session = await toy.root(), await toy.session_of("vm-admin")
    user = await toy.call("session.get_this_user", root, session)
    await toy.call("user.destroy", root, user)
    assert await toy.fails("session.get_uuid", session, session) == ("SESSION_INVALID", session)
    assert toy.database.find("session", session) is None
