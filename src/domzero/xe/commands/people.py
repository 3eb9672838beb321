"""Commands on accounts, tasks, messages, secrets, appliances and events."""

from __future__ import annotations

from functools import partial

from domzero.engine.errors import ApiError
from domzero.xe.arguments import flag, integer, message, obj, text
from domzero.xe.command import Command
from domzero.xe.errors import CommandError, missing
from domzero.xe.filtering import Filter, filter_of
from domzero.xe.generated import wait_filter
from domzero.xe.line import GLOBAL
from domzero.xe.talk import Talk
from domzero.xe.values import moment, number

WAIT = 30.0
"""Seconds that one call for events may wait."""
NOT = "/="


async def _role(talk: Talk) -> str:
    uuid, name = talk.line.get("role-uuid"), talk.line.get("role-name")
    if uuid is not None:
        return await talk.by_uuid("role", uuid)
    if name is None:
        raise missing("role-name")
    found = await talk.api.call("role.get_by_name_label", name)
    if not found:
        raise CommandError(f"There is no role {name}")
    return str(found[0])


async def _change_roles(method: str, talk: Talk) -> None:
    ref = await talk.by_uuid("subject", talk.line.need("uuid"))
    await talk.api.call(method, ref, await _role(talk))


async def _subject_add(talk: Talk) -> None:
    name = talk.line.need("subject-name")
    identifier = await talk.api.call("auth.get_subject_identifier", name)
    information = await talk.api.call("auth.get_subject_information_from_identifier", identifier)
    ref = await talk.api.call("subject.create", {"subject_identifier": identifier, "other_config": dict(information)})
    await talk.value(await talk.uuid("subject", ref))


async def _secret_create(talk: Talk) -> None:
    ref = await talk.api.call("secret.create", {"value": talk.line.need("value"), "other_config": {}})
    await talk.value(await talk.uuid("secret", ref))


async def _appliance_create(talk: Talk) -> None:
    record = {
        "name_label": talk.line.need("name-label"),
        "name_description": talk.line.get("name-description") or "",
    }
    await talk.value(await talk.uuid("VM_appliance", await talk.api.call("VM_appliance.create", record)))


async def _appliance_shutdown(talk: Talk) -> None:
    ref = await talk.by_uuid("VM_appliance", talk.line.need("uuid"))
    how = "hard_shutdown" if talk.line.flag("force") else "clean_shutdown"
    await talk.api.call(f"VM_appliance.{how}", ref)


async def _message_create(talk: Talk) -> None:
    line = talk.line
    for param, cls in (("vm-uuid", "VM"), ("host-uuid", "Host"), ("sr-uuid", "SR"), ("pool-uuid", "Pool")):
        uuid = line.get(param)
        if uuid is not None:
            await talk.by_uuid(cls if cls in ("VM", "SR") else cls.lower(), uuid)
            priority = await integer("priority").convert(talk, line)
            await talk.api.call("message.create", line.need("name"), priority, cls, uuid, line.need("body"))
            return
    raise missing("vm-uuid")


async def _message_destroy(talk: Talk) -> None:
    uuids = talk.line.get("uuids") or talk.line.need("uuid")
    for ref in [await talk.by_uuid("message", uuid.strip()) for uuid in uuids.split(",") if uuid.strip()]:
        await talk.api.call("message.destroy", ref)


async def _message_destroy_all(talk: Talk) -> None:
    """Remove the messages that every given condition holds for; all of them where none is given."""
    given = {name: talk.line.get(name) for name in ("before", "after", "priority")}
    before = None if given["before"] is None else moment("before", given["before"])
    after = None if given["after"] is None else moment("after", given["after"])
    priority = None if given["priority"] is None else number("priority", given["priority"])
    doomed = [
        ref
        for ref, record in (await talk.api.call("message.get_all_records")).items()
        if (before is None or record["timestamp"] < before)
        and (after is None or record["timestamp"] > after)
        and (priority is None or record["priority"] == priority)
    ]
    await talk.api.call("message.destroy_many", doomed)


async def _logout_all(talk: Talk) -> None:
    for identifier in await talk.api.call("session.get_all_subject_identifiers"):
        await talk.api.call("session.logout_subject_identifier", identifier)


async def _event_wait(talk: Talk) -> None:
    """Return when an object of the class satisfies every condition, at once where one does so already."""
    name = talk.line.need("class").lower()
    kind = talk.records.get(name)
    if kind is None:
        raise CommandError(f"There are no events for the class {name}")
    conditions: list[tuple[Filter, bool]] = []
    for key, value in talk.line.params:
        if key != "class" and key not in GLOBAL:
            against = value.startswith(NOT)
            conditions.append((filter_of(kind, key, value.removeprefix(NOT) if against else value), not against))
    classes = {kind.cls, *(needed for condition, _ in conditions for needed in condition.column.needs)}
    token = ""
    while True:
        try:
            batch = await talk.api.call("event.from", sorted(classes), token, WAIT if token else 0.0)
        except ApiError as error:
            if error.code != "EVENTS_LOST":
                raise
            token = ""
            continue
        token = batch["token"]
        if await wait_filter(kind, talk, conditions):
            return


COMMANDS = (
    message("user-password-change", "Change root's password.", "session.change_password", text("old", ""), text("new")),
    message("task-cancel", "Ask for the end of a task.", "task.cancel", obj("task")),
    Command("event-wait", "Wait until an object is as the conditions say (field=value, or field=/=value).", _event_wait,
            ("class",), ("<field>=", "<field>=/="), ("event.from",)),
    Command("subject-add", "Let somebody of the directory log in.", _subject_add, ("subject-name",), (),
            ("auth.get_subject_identifier", "subject.create")),
    message("subject-remove", "Let somebody log in no more.", "subject.destroy", obj("subject", "subject-uuid")),
    Command("subject-role-add", "Give somebody a role.", partial(_change_roles, "subject.add_to_roles"), ("uuid",),
            ("role-name", "role-uuid"), ("subject.add_to_roles",)),
    Command("subject-role-remove", "Take a role from somebody.", partial(_change_roles, "subject.remove_from_roles"),
            ("uuid",), ("role-name", "role-uuid"), ("subject.remove_from_roles",)),
    message("session-subject-identifier-list", "List who is logged in.", "session.get_all_subject_identifiers"),
    message("session-subject-identifier-logout", "Log somebody out.", "session.logout_subject_identifier",
            text("subject-identifier")),
    Command("session-subject-identifier-logout-all", "Log everybody out but root.", _logout_all, (), (),
            ("session.get_all_subject_identifiers", "session.logout_subject_identifier")),
    Command("secret-create", "Keep a secret.", _secret_create, ("value",), (), ("secret.create",)),
    message("secret-destroy", "Forget a secret.", "secret.destroy", obj("secret")),
    Command("appliance-create", "Make an appliance, to start machines together.", _appliance_create, ("name-label",),
            ("name-description",), ("VM_appliance.create",)),
    message("appliance-destroy", "Remove an appliance; its machines stay.", "VM_appliance.destroy",
            obj("VM_appliance")),
    message("appliance-start", "Start the machines of an appliance.", "VM_appliance.start", obj("VM_appliance"),
            flag("paused")),
    Command("appliance-shutdown", "Shut the machines of an appliance down.", _appliance_shutdown, ("uuid",), ("force",),
            ("VM_appliance.clean_shutdown", "VM_appliance.hard_shutdown")),
    Command("message-create", "Leave a message about an object.", _message_create, ("name", "priority", "body"),
            ("vm-uuid", "host-uuid", "sr-uuid", "pool-uuid"), ("message.create",)),
    Command("message-destroy", "Remove messages.", _message_destroy, (), ("uuid", "uuids"), ("message.destroy",)),
    Command("message-destroy-all", "Remove all messages, or those of a time or a priority.", _message_destroy_all, (),
            ("before", "after", "priority"), ("message.destroy_many",)),
)  # fmt: skip
