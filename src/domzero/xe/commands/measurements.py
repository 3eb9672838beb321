"""Commands on what is measured: of machines, hosts and repositories alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from domzero.xe.arguments import each, for_each, text
from domzero.xe.command import Command
from domzero.xe.talk import Talk
from domzero.xe.values import shown
from domzero.xe.view import Object


def _list(cls: str) -> Callable[[Talk, str, Object], Awaitable[None]]:
    async def one(talk: Talk, ref: str, _: Object) -> None:
        for source in await talk.api.call(f"{cls}.get_data_sources", ref):
            await talk.record([(name, shown(value)) for name, value in source.items()])
        await talk.empty()

    return one


def _rows() -> Iterator[Command]:
    source = text("data-source")
    for selector, cls, several in (("vm", "VM", "machines"), ("host", "host", "hosts"), ("sr", "SR", "repositories")):
        head = f"{selector}-data-source"
        yield for_each(f"{head}-list", f"Show what can be measured of {several}.", selector, _list(cls),
                       needs=(f"{cls}.get_data_sources",))  # fmt: skip
        yield each(f"{head}-query", f"Tell the present value of something measured of {several}.", selector,
                   f"{cls}.query_data_source", source)  # fmt: skip
        yield each(f"{head}-record", f"Keep from now on what is measured of {several}.", selector,
                   f"{cls}.record_data_source", source)  # fmt: skip
        yield each(f"{head}-forget", f"Throw away what was measured of {several}.", selector,
                   f"{cls}.forget_data_source_archives", source)  # fmt: skip


COMMANDS = tuple(_rows())
