"""Commands on blobs: files that are kept with an object of the host."""

from __future__ import annotations

from domzero.xe.command import Command
from domzero.xe.commands.transfers import transfer
from domzero.xe.errors import missing
from domzero.xe.talk import Talk

OWNERS = ("VM", "host", "SR", "network", "pool")


async def _create(talk: Talk) -> None:
    line = talk.line
    for cls in OWNERS:
        if (uuid := line.get(f"{cls.lower()}-uuid")) is not None:
            owner = await talk.by_uuid(cls, uuid)
            params = (line.need("name"), line.get("mime-type") or "", line.flag("public"))
            blob = await talk.api.call(f"{cls}.create_new_blob", owner, *params)
            await talk.value(await talk.uuid("blob", blob))
            return
    raise missing("vm-uuid")


async def _get(talk: Talk) -> None:
    await _move(talk, "GET")


async def _put(talk: Talk) -> None:
    await _move(talk, "PUT")


async def _move(talk: Talk, verb: str) -> None:
    blob = await talk.by_uuid("blob", talk.line.need("uuid"))
    await transfer(talk, verb, talk.line.need("filename"), "/blob", {"ref": blob})


COMMANDS = (
    Command("blob-create", "Keep a file with an object, empty at first.", _create, ("name",),
            ("mime-type", *(f"{cls.lower()}-uuid" for cls in OWNERS), "public"),
            tuple(f"{cls}.create_new_blob" for cls in OWNERS), hidden=True),
    Command("blob-get", "Write the content of a blob to a file.", _get, ("uuid", "filename"), pages=("GET /blob",),
            hidden=True),
    Command("blob-put", "Fill a blob from a file.", _put, ("uuid", "filename"), pages=("PUT /blob",), hidden=True),
)  # fmt: skip
