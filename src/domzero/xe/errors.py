"""How a command ends before its time. What the API itself reports stays an `ApiError`."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot be carried out; the text is shown behind `Error: `."""


class UsageError(Exception):
    """A command line that makes no sense; the text is shown with a hint to the help."""


class Finished(Exception):  # noqa: N818 - no mistake: the command says how the client is to exit
    """The command is over, with this exit code, and has said what there is to say."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def unknown_field(name: str) -> CommandError:
    """A record has no such field."""
    return CommandError(f"Unknown field '{name}'")


def missing(name: str) -> UsageError:
    """A parameter that the command needs was not given."""
    return UsageError(f"Required parameter not found: {name}")
