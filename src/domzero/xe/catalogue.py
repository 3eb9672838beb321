"""All commands of this host: those whose messages and pages are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from domzero.idl.graph import Graph
from domzero.xe.command import Command
from domzero.xe.commands import (
    attachments,
    drives,
    extras,
    hosts,
    machines,
    measurements,
    networks,
    objects,
    people,
    power,
    storage,
    transfers,
)
from domzero.xe.generated import generated
from domzero.xe.help import help_command
from domzero.xe.records import RecordClass

HAND_WRITTEN: tuple[Command, ...] = (
    *power.COMMANDS, *machines.COMMANDS, *drives.COMMANDS, *storage.COMMANDS, *networks.COMMANDS, *hosts.COMMANDS,
    *people.COMMANDS, *transfers.COMMANDS, *measurements.COMMANDS, *extras.COMMANDS, *objects.COMMANDS,
    *attachments.COMMANDS,
)  # fmt: skip


def catalogue(
    graph: Graph, records: Mapping[str, RecordClass], methods: Collection[str], has_page: Callable[[str, str], bool]
) -> Mapping[str, Command]:
    """The commands by name. Raises `ValueError` when two have the same."""
    found: dict[str, Command] = {}
    for command in (*generated(graph, records), *HAND_WRITTEN):
        if any(name not in methods for name in command.needs):
            continue
        if not all(has_page(*page.split(" ", 1)) for page in command.pages):
            continue
        if command.name in found:
            raise ValueError(f"two commands are called {command.name}")
        found[command.name] = command
    found["help"] = help_command(found)
    return found
