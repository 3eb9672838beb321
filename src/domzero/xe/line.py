"""The command line as it arrives: a command, `key=value` parameters, flags. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domzero.xe.errors import CommandError, UsageError, missing

CREDENTIALS = ("username", "password", "session_id")
"""Parameters that say who asks; no command sees them."""

GLOBAL = frozenset({"minimal", "multiple", "all", "params", "database", "compat", "trace", "traceparent", "debug"})
"""Parameters that any command may be given; they are no filters."""


@dataclass(frozen=True, slots=True)
class Line:
    """A parsed command line. `words` are what is neither a parameter nor a flag; `given` is every argument unparsed."""

    command: str
    params: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    credentials: tuple[tuple[str, str], ...] = ()
    given: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """The first parameter of that name."""
        return next((value for key, value in self.params if key == name), None)

    def need(self, name: str) -> str:
        """The same. Raises `UsageError` where there is none."""
        value = self.get(name)
        if value is None:
            raise missing(name)
        return value

    def credential(self, name: str) -> str | None:
        """What the client gave of that name; of several the last counts: clients put their own behind the rest."""
        return next((value for key, value in reversed(self.credentials) if key == name), None)

    def flag(self, name: str) -> bool:
        """Whether a flag is set. Raises `CommandError` for one that is neither true nor false."""
        value = self.get(name)
        return value is not None and truth(name, value)

    def mapping(self, name: str) -> dict[str, str]:
        """The entries given as `name:key=value`, or in the old form `name-key=value`."""
        heads = (f"{name}:", f"{name}-")
        return {
            key[len(head) :]: value
            for key, value in reversed(self.params)
            for head in heads
            if key.startswith(head) and len(key) > len(head)
        }

    @property
    def minimal(self) -> bool:
        """Whether only values are wanted, on one line."""
        return self.flag("minimal")


def truth(name: str, value: str) -> bool:
    """A yes or no. Raises `CommandError`."""
    lowered = value.lower()
    if lowered in ("true", "t", "yes", "y", "1"):
        return True
    if lowered in ("false", "f", "no", "n", "0", ""):
        return False
    raise CommandError(f"Parameter {name} must be a boolean (true or false)")


def parse(arguments: Sequence[str]) -> Line:
    """Parse the arguments of a request. Raises `UsageError` when there is no command or an option lacks its value."""
    params: list[tuple[str, str]] = []
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--") and len(argument) > 2:
            key, equals, value = argument[2:].partition("=")
            params.append((key, value if equals else "true"))
        elif argument.startswith("-") and len(argument) > 1 and "=" not in argument:
            following = next(rest, None)
            if following is None:
                raise UsageError(f"Syntax error: {argument} needs a value")
            params.append((argument[1:], following))
        elif "=" in argument.lstrip("="):
            key, _, value = argument.partition("=")
            params.append((key, value))
        elif argument:
            words.append(argument)
    if not words:
        raise UsageError("Syntax error: no command was given")
    return Line(
        words[0],
        tuple(pair for pair in params if pair[0] not in CREDENTIALS),
        tuple(words[1:]),
        tuple(pair for pair in params if pair[0] in CREDENTIALS),
        tuple(arguments),
    )
