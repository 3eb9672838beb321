"""`xe help`: the short list, the long one, and what a single command takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from domzero.xe.command import Command
from domzero.xe.errors import UsageError
from domzero.xe.printing import minimal_text
from domzero.xe.talk import Talk

WIDTH = 78

_USAGE = """\
Usage: xe COMMAND [-s SERVER] [-p PORT] [-u USER] [-pw PASSWORD | -pwf FILE] [PARAMETER=VALUE …] [--FLAG …]

What a command takes:    xe help COMMAND
All commands:            xe help --all
"""


def help_command(commands: Mapping[str, Command]) -> Command:
    """The command that tells of all commands, itself among them."""
    return Command(
        "help",
        "Tell which commands there are, or what the commands named take.",
        partial(_help, commands),
        optional=("all",),
        session=False,
        common=True,
    )


async def _help(commands: Mapping[str, Command], talk: Talk) -> None:
    everything = talk.line.flag("all")
    if talk.line.words:
        for name in talk.line.words:
            if name not in commands:
                raise UsageError(f"Unknown command: {name}")
            await talk.client.show(commands[name].help())
        return
    names = sorted(
        command.name for command in commands.values() if not command.hidden and (everything or command.common)
    )
    if talk.minimal:
        await talk.client.show(minimal_text(names))
        return
    title = "All commands" if everything else "Common commands"
    await talk.client.show(f"{_USAGE}\n{title}:\n\n{_wrapped(names)}\n")


def _wrapped(names: Sequence[str]) -> str:
    """Names separated by commas on lines of a terminal's width."""
    lines, line = list[str](), "   "
    for position, name in enumerate(names):
        word = f" {name}" + ("," if position + 1 < len(names) else "")
        if len(line) + len(word) > WIDTH:
            lines.append(line)
            line = "   "
        line += word
    return "\n".join([*lines, line])
