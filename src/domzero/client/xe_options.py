"""What `xe` is told: by its command line, `XE_EXTRA_ARGS`, `~/.xe`. Imports nothing, for speed.

The command line comes before `XE_EXTRA_ARGS` (arguments separated by commas, `\\,` for a comma), that before `~/.xe`
(lines of `key=value`). Everything that is no option of the client goes to the host as it is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RESERVED = ("server", "port", "username", "password", "passwordfile", "nossl", "debug", "debugonfail")
VALUED = {"-s": "server", "-h": "server", "-p": "port", "-u": "username", "-pw": "password", "-pwf": "passwordfile"}
FLAGS = {"--nossl": "nossl", "--debug": "debug", "--debug-on-fail": "debugonfail"}
QUESTIONS = {"-help": "help", "--help": "help", "-version": "version", "--version": "version"}
IGNORED = ("--trace", "--traceparent")


class OptionError(Exception):
    """A command line that the client cannot make sense of; the text is for a person."""


class Options:
    """`server` is empty for the host's own socket; a `server` that begins with `/` is the path of such a socket."""

    def __init__(self) -> None:
        self.server = ""
        self.port: int | None = None
        self.username = "root"
        self.password = "null"  # noqa: S105 - what the original sends when nothing was said
        self.tls = True
        self.debug = False
        self.debug_on_fail = False
        self.version = False
        self.help = False
        self.arguments: list[str] = []

    @property
    def tcp_port(self) -> int:
        """The port that was given, or the usual one."""
        return self.port if self.port is not None else 443 if self.tls else 80


def options(arguments: Sequence[str], extra: str, lines: Sequence[str]) -> Options:
    """Options out of the command line, `XE_EXTRA_ARGS` and the lines of `~/.xe`. Raises `OptionError`, `OSError`."""
    result = Options()
    chosen: dict[str, str] = {}
    for source in (_of_lines(lines), split_extra(extra)):
        found, rest = _parse(source)
        chosen |= found
        result.arguments += rest
    first, result.arguments = result.arguments, []
    found, rest = _parse(arguments)
    chosen |= found
    _apply(result, chosen, "password" in found)
    command = next((argument for argument in rest if not argument.startswith("-") and "=" not in argument), None)
    if result.help and command is not None:
        # Whoever asks what a command does must not be shown it.
        result.help, result.arguments = False, ["help", command]
    else:
        # The command comes first; what the environment adds is put behind it.
        result.arguments = [*rest, *first]
    return result


def split_extra(text: str) -> list[str]:
    """The arguments of `XE_EXTRA_ARGS`."""
    found, current, escaped = [], "", False
    for character in text:
        if character == "," and not escaped:
            found.append(current)
            current = ""
        elif character == "\\" and not escaped:
            escaped = True
            continue
        else:
            current += character if not escaped or character in ",\\" else "\\" + character
        escaped = False
    return [argument for argument in [*found, current] if argument]


def _of_lines(lines: Sequence[str]) -> list[str]:
    pairs = [line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#")]
    return [f"{key.strip()}={value.strip()}" for key, _, value in pairs]


def _parse(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The client's own options, and everything else in its order."""
    found: dict[str, str] = {}
    rest: list[str] = []
    following = iter(arguments)
    for argument in following:
        key, equals, value = argument.partition("=")
        if argument in VALUED:
            given = next(following, None)
            if given is None:
                raise OptionError(f"{argument} needs a value")
            found[VALUED[argument]] = given
        elif argument in FLAGS:
            found[FLAGS[argument]] = "true"
        elif argument in QUESTIONS:
            found[QUESTIONS[argument]] = "true"
        elif key in IGNORED:
            continue
        elif equals and key in RESERVED:
            found[key] = value
        elif "\n" in argument or "\r" in argument:
            raise OptionError("An argument has more than one line, which the protocol cannot carry")
        else:
            rest.append(argument)
    return found, rest


def _apply(result: Options, chosen: dict[str, str], typed: bool) -> None:
    result.server = chosen.get("server", "")
    if "port" in chosen:
        port = chosen["port"]
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise OptionError(f"{port} is no port")
        result.port = int(port)
    result.tls = chosen.get("nossl", "false") != "true"
    result.help, result.version = "help" in chosen, "version" in chosen
    result.debug = chosen.get("debug", "false") == "true"
    result.debug_on_fail = chosen.get("debugonfail", "false") == "true"
    if "passwordfile" in chosen and not typed:
        result.username, result.password = _password_file(chosen["passwordfile"])
    result.username = chosen.get("username", result.username)
    if typed or "passwordfile" not in chosen:
        result.password = chosen.get("password", result.password)
    if "\n" in result.username + result.password:
        raise OptionError("The user name or the password has more than one line")


def _password_file(path: str) -> tuple[str, str]:
    """A user name on the first line and a password on the second."""
    if "\0" in path:
        raise OptionError("The name of the password file is none")
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().split("\n")
    if len(lines) < 2:
        raise OptionError(f"{path} needs two lines: a user name and a password")
    return lines[0].rstrip("\r"), lines[1].rstrip("\r")
