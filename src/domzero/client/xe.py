"""The `xe` command: sends its command line to a host and does what the host tells it to. Standard library only.

All commands live in the host; this is a terminal for them. A file is read or written only when its name stands on the
command line; the one command that may be given without a name for its file makes a new one in the current directory.
"""

from __future__ import annotations

import os
import socket
import sys

from domzero.client.xe_connection import UnreachableError, connect
from domzero.client.xe_options import OptionError, Options, options
from domzero.wire import cli
from domzero.wire.cli import Decoder, Message, ProtocolError

AGENT = "xe-cli/domzero/0.2"
BLOCK = 64 << 10

USAGE = """\
Usage: xe COMMAND [-s SERVER] [-p PORT] [-u USER] [-pw PASSWORD | -pwf FILE] [--nossl] [--debug]
          [PARAMETER=VALUE …] [--FLAG …]

Without a server the host of this machine is asked. `xe help` lists the commands.
"""


class Terminal:
    """A conversation with a host. `names` are the files that it may touch; with `host_names_file` it may name a new one
    for what is fetched."""

    def __init__(self, options: Options, connection: socket.socket) -> None:
        self.options = options
        self.connection = connection
        self.names = _names(options.arguments)
        self.host_names_file = "host-logs-download" in options.arguments
        self.minor = cli.MINOR
        self._decoder = Decoder()
        self._debug: list[str] = []

    def run(self) -> int:
        """Send the command line and obey until the host says that it is over; the exit code.

        Raises `ProtocolError`, `OSError`.
        """
        self._greet()
        while True:
            for item in self._decoder.take():
                if not isinstance(item, Message) or item.kind != cli.COMMAND:
                    raise ProtocolError("the host answered with something that is no command")
                if item.tag == cli.EXIT:
                    return self._exit(item.number())
                self._obey(item)
            data = self.connection.recv(BLOCK)
            if not data:
                raise ProtocolError("the host closed the connection before the command was over")
            self._decoder.feed(data)

    def _greet(self) -> None:
        chosen = self.options
        debug = ["debug=true"] if chosen.debug or chosen.debug_on_fail else []
        lines = [*chosen.arguments, *debug, f"username={chosen.username}", f"password={chosen.password}"]
        body = "\n".join(lines).encode("utf-8", "surrogateescape")
        head = f"POST /cli HTTP/1.0\r\ncontent-length: {len(body)}\r\nuser-agent: {AGENT}\r\noriginator: cli\r\n\r\n"
        self.connection.sendall(head.encode() + body)
        greeting = b""
        while len(greeting) < cli.HELLO_SIZE:
            data = self.connection.recv(cli.HELLO_SIZE - len(greeting))
            if not data:
                break
            greeting += data
        self.minor = cli.check_hello(greeting)
        self.connection.sendall(cli.hello())

    def wait(self) -> None:
        """Tell the host that a transfer still goes on, if it is not too old to know the word."""
        if self.minor >= cli.WAIT_SINCE:
            self.connection.sendall(cli.response(cli.WAIT))

    def _exit(self, code: int) -> int:
        sys.stdout.flush()
        if code and self.options.debug_on_fail:
            _complain("".join(f"{line}\n" for line in self._debug))
        return code

    def _obey(self, command: Message) -> None:
        if command.tag == cli.PRINT:
            _write(command.text() + "\n")
        elif command.tag == cli.PRINT_STDERR:
            _complain(command.text())
        elif command.tag == cli.DEBUG:
            self._debug.append(command.text())
            if self.options.debug:
                _complain(command.text() + "\n")
        elif command.tag == cli.ERROR:
            params = command.values[1]
            assert isinstance(params, tuple)
            _complain(f"Error code: {command.text()}\nError parameters: {', '.join(params)}\n")
        elif command.tag == cli.PROMPT:
            self._answer()
        else:
            self._transfer(command)

    def _answer(self) -> None:
        """Send a line that the person types; an empty one when there is none."""
        sys.stdout.flush()
        # Python has no standard input where the shell closed it.
        line = sys.stdin.buffer.readline().rstrip(b"\r\n") if sys.stdin else b""
        self.connection.sendall(cli.chunk(len(line)) + line + cli.end())

    def _transfer(self, command: Message) -> None:
        # Few commands move files, and none should wait for what that takes.
        from domzero.client.xe_transfer import transfer

        sys.stdout.flush()
        transfer(self, command)


def _names(arguments: list[str]) -> frozenset[str]:
    """What on the command line may be the name of a file."""
    values = {value for argument in arguments for _, equals, value in [argument.partition("=")] if equals}
    return frozenset(values | {argument for argument in arguments if "=" not in argument})


def _write(text: str) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(_encoded(text, sys.stdout.isatty()))


def _complain(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stderr.buffer.write(_encoded(text, sys.stderr.isatty()))
    sys.stderr.flush()


def _encoded(text: str, terminal: bool) -> bytes:
    """The text as bytes. What a guest says of itself is shown too: nothing in it steers a terminal."""
    if terminal and not text.isprintable():
        text = "".join(repr(one)[1:-1] if _steers(one) else one for one in text)
    return text.encode("utf-8", "surrogateescape")


def _steers(one: str) -> bool:
    """Whether it is a control character other than a line's end or a tab."""
    return (one < " " and one not in "\n\t") or "\x7f" <= one < "\xa0"


def _settings() -> list[str]:
    try:
        with open(os.path.expanduser("~/.xe"), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split("\n")
    except OSError:
        return []


def _version() -> int:
    from importlib.metadata import version

    _write(f"domzero xe {version('domzero')}\n")
    return 0


def _run(arguments: list[str]) -> int:
    try:
        chosen = options(arguments, os.environ.get("XE_EXTRA_ARGS", ""), _settings())
    except (OptionError, OSError) as error:
        _complain(f"xe: {error}\n")
        return 1
    if chosen.version:
        return _version()
    if chosen.help or not chosen.arguments:
        (_write if chosen.help else _complain)(USAGE)
        return 0 if chosen.help else 1
    try:
        connection = connect(chosen)
    except UnreachableError as error:
        _complain(f"{error}\n")
        return 1
    try:
        return Terminal(chosen, connection).run()
    except ProtocolError as error:
        _complain(f"The host did not answer as expected: {error}\n")
    except (ConnectionError, TimeoutError) as error:
        if isinstance(error, BrokenPipeError) and not _reads(sys.stdout.fileno()):
            raise
        _complain(f"The connection to the host was lost: {error}\n")
    finally:
        connection.close()
    return 1


def _reads(descriptor: int) -> bool:
    """Whether somebody still reads what is written there."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLERR)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def main() -> int:
    """Run the command line of this process; the exit code. Ends quietly when interrupted, or nobody reads on."""
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python would try once more to write what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
