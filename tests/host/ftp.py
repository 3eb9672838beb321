"""An FTP server for one file, on loopback: what RFC 959 and RFC 2428 ask of a server that only sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.host.serving import serving


class _Conversation:
    def __init__(self, files: Mapping[str, bytes], writer: asyncio.StreamWriter) -> None:
        self._files = files
        self._writer = writer
        self._data: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._listener: asyncio.Server | None = None
        self._place = ""

    def say(self, line: str) -> None:
        self._writer.write(f"{line}\r\n".encode())

    def close(self) -> None:
        """Let go of a connection for data that was not used."""
        if self._listener is not None:
            self._listener.close()
        while not self._data.empty():
            self._data.get_nowait().close()

    async def obey(self, verb: str, word: str) -> None:
        match verb:
            case "USER":
                self.say("331 the password")
            case "PASS" | "TYPE":
                self.say("200 well")
            case "CWD":
                self._place = self._place if word == "." else f"{self._place}{word}/"
                self.say("250 well")
            case "PASV":
                await self._listen()
            case "RETR" if f"{self._place}{word}" in self._files:
                await self._send(self._files[f"{self._place}{word}"])
            case "QUIT":
                self.say("221 bye")
            case _:
                self.say("550 there is no such thing")

    async def _listen(self) -> None:
        async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._data.put(writer)

        self._listener = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.say(f"227 passive (127,0,0,1,{port >> 8},{port & 255})")

    async def _send(self, content: bytes) -> None:
        self.say(f"150 here it comes ({len(content)} bytes)")
        writer = await self._data.get()
        writer.write(content)
        await writer.drain()
        writer.close()
        self.say("226 that was it")
        if self._listener is not None:
            self._listener.close()


@asynccontextmanager
async def ftp_server(files: Mapping[str, bytes]) -> AsyncIterator[str]:
    """Serves the files; gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = _Conversation(files, writer)
        conversation.say("220 hello")
        try:
            while line := (await reader.readline()).decode().strip():
                verb, _, word = line.partition(" ")
                await conversation.obey(verb.upper(), word)
        finally:
            conversation.close()

    async with serving(serve) as port:
        yield f"ftp://127.0.0.1:{port}"
