"""One request of `xe`, from its first byte to the exit code: greeting, command line, login, command, errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from domzero.engine.calls import Origin
from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.wire import cli
from domzero.wire.cli import ProtocolError
from domzero.xe.api import Api, Dispatching, SessionApi, ToldApi, login
from domzero.xe.catalogue import catalogue
from domzero.xe.command import Command
from domzero.xe.conversation import READING_STALL, Conversation
from domzero.xe.errors import CommandError, Finished, UsageError
from domzero.xe.failures import HINT, explained
from domzero.xe.line import Line, parse
from domzero.xe.records import RecordClass, record_classes
from domzero.xe.talk import Client, Talk

LONGEST_LINE = 200 << 10
"""Bytes of a command line."""
GREETING_TIME = 60.0
"""Seconds that a client has for its greeting and its command line."""

log = logging.getLogger(__name__)


@dataclass
class CommandDoor:
    """Serves `POST /cli`. `has_page` tells whether the host answers a method at a path (`"PUT"`, `"/import"`)."""

    graph: Graph
    dispatcher: Dispatching
    methods: Callable[[], tuple[str, ...]]
    has_page: Callable[[str, str], bool]
    records: Mapping[str, RecordClass] = field(init=False)
    commands: Mapping[str, Command] = field(init=False)
    _known: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self.records = record_classes(self.graph)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None, origin: Origin
    ) -> None:
        """Serve a connection after the head of its request, whose body has `length` bytes.

        Nothing but the protocol is sent. Raises `ConnectionError` or `IncompleteReadError` for a client that leaves.
        """
        writer.write(cli.hello())
        try:
            async with asyncio.timeout(GREETING_TIME):
                arguments = await self._arguments(reader, length)
                cli.check_hello(await reader.readexactly(cli.HELLO_SIZE))
        except TimeoutError:
            raise ConnectionAbortedError("no command line came") from None
        except ProtocolError as error:
            raise ConnectionAbortedError(str(error)) from None
        conversation = Conversation(reader, writer)
        work = asyncio.ensure_future(self._serve(conversation, arguments, origin))
        watch = asyncio.ensure_future(conversation.receive())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, watch):
                task.cancel()
            results = await asyncio.gather(work, watch, return_exceptions=True)
        for result in results:
            if isinstance(result, ProtocolError):
                raise ConnectionAbortedError(str(result))
            if isinstance(result, Exception):
                raise result
        await writer.drain()

    async def _arguments(self, reader: asyncio.StreamReader, length: int | None) -> list[str]:
        if length is None or not 0 <= length <= LONGEST_LINE:
            raise ProtocolError("a command line of no size, or too long")
        body = await reader.readexactly(length)
        return body.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")

    async def _serve(self, conversation: Conversation, arguments: list[str], origin: Origin) -> None:
        code = 1
        line: Line | None = None
        try:
            line = parse(arguments)
            command = self._command(line)
            code = await self._run(conversation, line, command, origin)
        except UsageError as error:
            await conversation.complain(f"{error}\n{HINT}\n")
        except CommandError as error:
            await conversation.complain(f"Error: {error}\n")
        except ApiError as error:
            await self._explain(conversation, error, None, line)
        except (ConnectionError, ProtocolError):
            raise
        except Exception:
            log.exception("the command %s failed in a way that it should not", "" if line is None else line.command)
            await conversation.complain("Error: The host failed in a way that it should not; its log says more.\n")
        await conversation.exit(code)

    def _command(self, line: Line) -> Command:
        commands = self._catalogue()
        command = commands.get(line.command)
        if command is None:
            raise UsageError(f"Unknown command: {line.command}")
        if line.words and command.session:
            raise UsageError(f"Syntax error: {line.words[0]}")
        for name in command.required:
            if not (name.endswith(":") and line.mapping(name[:-1])):
                line.need(name)
        return command

    def _catalogue(self) -> Mapping[str, Command]:
        """The commands, made at the first use: by then all doors of the host are there."""
        if self._known != len(methods := self.methods()):
            self.commands = catalogue(self.graph, self.records, frozenset(methods), self.has_page)
            self._known = len(methods)
        return self.commands

    async def _run(self, conversation: Conversation, line: Line, command: Command, origin: Origin) -> int:
        """Log in and carry out the command. Gives the exit code. Raises `ApiError` for a login that failed."""
        given = line.credential("session_id")
        api = SessionApi(self.dispatcher, origin, given or "")
        opened = given is None and command.session
        if opened:
            api = await self._login(line, origin)
            conversation.stall = READING_STALL
        try:
            seen = ToldApi(api, conversation.tell) if line.get("debug") == "true" else api
            return await self._carry_out(Talk(seen, line, conversation, self.graph, self.records), command)
        finally:
            if opened:
                await _logout(api)

    async def _login(self, line: Line, origin: Origin) -> SessionApi:
        """A session for the command. Raises `ApiError`. Who leaves meanwhile leaves no session behind."""
        name, password = line.credential("username") or "", line.credential("password") or ""
        opening = asyncio.ensure_future(login(self.dispatcher, name, password, origin))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(ApiError):
                await _logout(await opening)
            raise

    async def _carry_out(self, talk: Talk, command: Command) -> int:
        try:
            await command.run(talk)
            await talk.finish()
        except ApiError as error:
            await self._explain(talk.client, error, talk.api, talk.line)
        except CommandError as error:
            await talk.client.complain(f"Error: {error}\n")
        except UsageError as error:
            await talk.client.complain(f"{error}\n{HINT}\n")
        except Finished as finished:
            await talk.finish()
            return finished.code
        else:
            return 0
        return 1

    async def _explain(self, client: Client, error: ApiError, api: Api | None, line: Line | None) -> None:
        user = None if line is None else line.credential("username")
        text = await explained(error, self.graph, api, user)
        if text is None:
            await client.fail(error.code, error.params)
        else:
            await client.complain(text)


async def _logout(api: SessionApi) -> None:
    try:
        await api.call("session.logout")
    except ApiError as error:
        log.info("the session of a command was over already: %s", error.code)
