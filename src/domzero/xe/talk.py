"""What a command works with: the API, its command line, and the client that waits for what it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domzero.idl.graph import Graph
from domzero.xe.api import Api
from domzero.xe.errors import CommandError
from domzero.xe.line import Line
from domzero.xe.printing import minimal_text, record_text
from domzero.xe.records import RecordClass
from domzero.xe.view import View


class Client(Protocol):
    """The other end: what a command may ask of it."""

    async def show(self, text: str) -> None:
        """Print a text and end the line."""
        ...

    async def complain(self, text: str) -> None:
        """Print a text on standard error, as it is."""
        ...

    async def fail(self, code: str, params: Sequence[str]) -> None:
        """Show an error by its code."""
        ...

    async def ask(self) -> str:
        """A line that the person types."""
        ...

    async def load(self, name: str) -> bytes:
        """What a file of the client's machine holds. Raises `CommandError`."""
        ...

    async def put(self, name: str, path: str) -> bool:
        """Have the client send a file to a page of this host; whether that worked."""
        ...

    async def fetch(self, name: str, path: str) -> bool:
        """Have the client write a page of this host to a file; whether that worked."""
        ...

    async def connect(self, path: str) -> bool:
        """Have the client join its terminal to a stream of this host; whether that worked."""
        ...


@dataclass(slots=True)
class Talk:
    """One command being carried out."""

    api: Api
    line: Line
    client: Client
    graph: Graph
    records: Mapping[str, RecordClass]
    view: View = field(init=False)
    minimal: bool = field(init=False)
    kept: list[str] = field(default_factory=list)
    """What minimal output holds back until the end."""
    printed: bool = False

    def __post_init__(self) -> None:
        self.view = View(self.api)
        self.minimal = self.line.minimal

    async def message(self, text: str) -> None:
        """Say something to a person; with minimal output there is none."""
        if not self.minimal:
            await self.client.show(text)

    async def values(self, values: Sequence[str]) -> None:
        """Values, one a line; on one line altogether with minimal output."""
        self.printed = True
        if self.minimal:
            self.kept += values
            return
        for value in values:
            await self.client.show(value)

    async def value(self, value: str) -> None:
        """One value."""
        await self.values((value,))

    async def record(self, fields: Sequence[tuple[str, str]]) -> None:
        """A record; its first value alone with minimal output."""
        self.printed = True
        if self.minimal:
            self.kept += [value for _, value in fields[:1]]
        else:
            await self.client.show(record_text(fields))

    async def empty(self) -> None:
        """There might have been values, but there were none."""
        self.printed = True

    async def finish(self) -> None:
        """Print what was held back."""
        if self.minimal and self.printed:
            await self.client.show(minimal_text(self.kept))

    async def confirm(self, question: str) -> None:
        """Ask a person to type `yes`. Raises `CommandError` for anything else."""
        await self.client.show(question)
        await self.client.show("Type 'yes' to continue")
        if (await self.client.ask()).strip().lower() != "yes":
            raise CommandError("Nothing was done.")

    async def by_uuid(self, cls: str, uuid: str) -> str:
        """The reference of an object. Raises `ApiError`."""
        return str(await self.api.call(f"{cls}.get_by_uuid", uuid))

    async def uuid(self, cls: str, ref: str) -> str:
        """The uuid of an object. Raises `ApiError`."""
        return str(await self.api.call(f"{cls}.get_uuid", ref))
