"""A short visit to an iSCSI target, without the kernel: who is there, and what units it has (RFC 7143).

`iscsi-ls -s` logs in to every target of a portal and gives up at the first that refuses, so it cannot be asked for the
units of one. Data never goes through here: QEMU reads and writes the units by itself.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from domzero.host.storage import numbers
from domzero.host.storage.iscsi import pdu, scsi
from domzero.host.storage.iscsi.pdu import BadReplyError, Packet
from domzero.host.storage.iscsi.settings import Chap, IscsiSettings, Portal, portal
from domzero.host.storage.menus import IscsiTarget
from domzero.host.storage.protocol import StorageError

PATIENCE = 12.0
"""Seconds that a whole visit may take."""
TARGETS_LIMIT = 1024
_PACKETS_LIMIT = 4096
_REDIRECTIONS = 3
_ROUNDS = 10
"""Of a login; a proper one has four."""
_ATTEMPTS = 4
"""Of a command, for a unit that first has something to tell."""


class _CommandError(Exception):
    """A unit refused a command."""

    def __init__(self, sense_key: int) -> None:
        super().__init__(f"sense key {sense_key}")
        self.sense_key = sense_key


class _RedirectedError(Exception):
    """The target is elsewhere."""

    def __init__(self, portal: Portal) -> None:
        super().__init__(str(portal))
        self.portal = portal


async def discover(settings: IscsiSettings, patience: float = PATIENCE) -> list[IscsiTarget]:
    """The targets that a portal offers. Raises `StorageError` 140, 141, 68 or 83."""
    async with _visit(settings, "", patience) as session:
        return await session.targets()


async def survey(settings: IscsiSettings, patience: float = PATIENCE) -> list[scsi.Unit]:
    """The disks of a target. Raises `StorageError` 140 (its address), 141 (no answer) or 68 (login)."""
    async with _visit(settings, settings.iqn, patience) as session:
        units = [await session.unit(lun) for lun in await session.luns()]
    return [unit for unit in units if unit is not None]


@asynccontextmanager
async def _visit(settings: IscsiSettings, target: str, patience: float) -> AsyncIterator[_Session]:
    there = settings.portal
    try:
        async with asyncio.timeout(patience):
            for _ in range(_REDIRECTIONS):
                reader, writer = await _connect(there)
                try:
                    session = _Session(reader, writer, str(there))
                    try:
                        await session.log_in(settings.initiator, target, settings.chap)
                    except _RedirectedError as elsewhere:
                        there = elsewhere.portal
                        continue
                    yield session
                    await session.log_out()
                    return
                finally:
                    writer.transport.abort()
            raise StorageError(numbers.ISCSI_TARGET, f"{settings.portal} sends us from one address to the next")
    except TimeoutError:
        raise StorageError(numbers.ISCSI_TARGET, f"{there} did not answer within {patience:g} seconds") from None
    except (BadReplyError, asyncio.IncompleteReadError, OSError) as error:
        number = numbers.ISCSI_TARGET if target else numbers.ISCSI_DISCOVERY
        raise StorageError(number, f"{there} does not answer as an iSCSI target does: {error}") from error


async def _connect(there: Portal) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(there.host, there.port)
    except (socket.gaierror, UnicodeError) as error:
        raise StorageError(numbers.NAME_UNKNOWN, f"the address of {there.host!r} is not known: {error}") from error
    except OSError as error:
        raise StorageError(numbers.ISCSI_TARGET, f"{there} cannot be reached: {error}") from error


class _Session:
    """One connection. Methods raise `StorageError`, `BadReplyError`, or what reading and writing raise."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._reader = reader
        self._writer = writer
        self._where = where
        # A session of the same name and number would end ours (RFC 7143 section 6.3.5).
        self._name = b"\x80" + secrets.token_bytes(5)
        self._tag = 0
        self._command = 1
        self._expected = 0
        self._packets = 0

    async def log_in(self, initiator: str, target: str, chap: Chap | None) -> None:
        """To a target, or where none is named for discovery."""
        kind = {"SessionType": "Normal", "TargetName": target} if target else {"SessionType": "Discovery"}
        keys = {"InitiatorName": initiator, **kind, "AuthMethod": "CHAP,None" if chap else "None"}
        offer = {"HeaderDigest": "None", "DataDigest": "None", "MaxRecvDataSegmentLength": str(pdu.DATA_LIMIT)}
        stage, goes_on = pdu.SECURITY, chap is None
        for _ in range(_ROUNDS):
            reply = await self._login_step(stage, goes_on, keys)
            said = dict(pdu.decoded_keys(reply.data))
            keys = {}
            if goes_on and reply.flags & pdu.FINAL:
                if stage == pdu.OPERATIONAL:
                    return
                stage, keys = pdu.OPERATIONAL, offer
            elif stage == pdu.SECURITY:
                goes_on, keys = _proof(said, chap)
        raise BadReplyError("the login comes to no end")

    async def targets(self) -> list[IscsiTarget]:
        """What the portal answers when it is asked for all its targets."""
        tag = self._next_tag()
        data = pdu.encoded_keys({"SendTargets": "All"})
        fields = {16: tag, 20: pdu.word(pdu.NO_TAG), **self._numbers()}
        self._command += 1
        said = b""
        while True:
            await self._send(pdu.packet(pdu.TEXT, pdu.FINAL, fields, data))
            reply = await self._receive(pdu.TEXT_RESPONSE)
            said += reply.data
            if len(said) > pdu.DATA_LIMIT:
                raise BadReplyError("the list of targets is too long")
            if reply.flags & pdu.FINAL or reply.number(20) == pdu.NO_TAG:
                return _targets(pdu.decoded_keys(said))
            fields, data = {16: tag, 20: reply.header[20:24], **self._numbers()}, b""
            self._command += 1

    async def luns(self) -> list[int]:
        """The numbers of the target's units."""
        try:
            return scsi.units_in(await self._scsi(0, scsi.report_units(), scsi.REPLY_LIMIT))
        except _CommandError as error:
            raise StorageError(numbers.ISCSI_DEVICE, f"{self._where} does not list its units: {error}") from error

    async def unit(self, lun: int) -> scsi.Unit | None:
        """What a unit is, None when it is no disk with a size that can be."""
        standard = await self._page(lun, None)
        if not scsi.is_disk(standard):
            return None
        size, block_size = scsi.capacity_in(await self._tried(lun, scsi.READ_CAPACITY, 32))
        if not size:
            return None
        protected = scsi.write_protected(await self._tried(lun, scsi.MODE_SENSE, 192))
        serial, identity = await self._page(lun, scsi.SERIAL_PAGE), await self._page(lun, scsi.IDENTITY_PAGE)
        return scsi.Unit(lun, size, block_size, protected, standard, serial, identity)

    async def log_out(self) -> None:
        """Say farewell, as far as the target listens."""
        with suppress(BadReplyError, OSError, EOFError):
            await self._send(
                pdu.packet(pdu.LOGOUT | pdu.IMMEDIATE, pdu.FINAL, {16: self._next_tag(), **self._numbers()})
            )

    async def _login_step(self, stage: int, goes_on: bool, keys: Mapping[str, str]) -> Packet:
        following = pdu.OPERATIONAL if stage == pdu.SECURITY else pdu.FULL_FEATURE
        flags = stage << 2 | (pdu.FINAL | following if goes_on else 0)
        fields = {8: self._name, 16: pdu.word(0), **self._numbers()}
        await self._send(pdu.packet(pdu.LOGIN | pdu.IMMEDIATE, flags, fields, pdu.encoded_keys(keys)))
        reply = await self._receive(pdu.LOGIN_RESPONSE)
        kind, detail = pdu.login_status(reply)
        if kind == 1:
            raise _RedirectedError(_redirection(dict(pdu.decoded_keys(reply.data))))
        if kind:
            reason = pdu.LOGIN_FAILURES.get((kind, detail), f"login failed with status {kind}/{detail}")
            raise StorageError(numbers.ISCSI_LOGIN, f"{self._where}: {reason}")
        if reply.flags & pdu.CONTINUES:
            raise BadReplyError("the target says more than fits into one packet")
        return reply

    async def _page(self, lun: int, page: int | None) -> bytes:
        return await self._tried(lun, scsi.inquiry(page), 0xFC)

    async def _tried(self, lun: int, command: bytes, length: int) -> bytes:
        """The reply, empty where the unit refuses."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._scsi(lun, command, length)
            except _CommandError as error:
                if error.sense_key != scsi.UNIT_ATTENTION:
                    break
        return b""

    async def _scsi(self, lun: int, command: bytes, length: int) -> bytes:
        tag = self._next_tag()
        fields = {8: scsi.lun_address(lun), 16: tag, 20: pdu.word(length), **self._numbers(), 32: command}
        self._command += 1
        await self._send(pdu.packet(pdu.SCSI_COMMAND, pdu.FINAL | pdu.READS | pdu.SIMPLE, fields))
        said = bytearray()
        while True:
            reply = await self._receive(pdu.DATA_IN, pdu.SCSI_RESPONSE)
            if reply.header[16:20] != tag:
                raise BadReplyError("a reply to something that was not asked")
            if reply.opcode == pdu.DATA_IN:
                if reply.number(40) != len(said) or len(said) + len(reply.data) > length:
                    raise BadReplyError("data that was not asked for")
                said += reply.data
                if not reply.flags & pdu.HAS_STATUS:
                    continue
            if reply.opcode == pdu.SCSI_RESPONSE and reply.header[2]:
                raise BadReplyError(f"the target could not carry out a command ({reply.header[2]})")
            if reply.header[3]:
                raise _CommandError(scsi.sense_key(reply.data) if reply.opcode == pdu.SCSI_RESPONSE else 0)
            return bytes(said)

    def _next_tag(self) -> bytes:
        self._tag += 1
        return pdu.word(self._tag)

    def _numbers(self) -> dict[int, bytes]:
        return {24: pdu.word(self._command), 28: pdu.word(self._expected)}

    async def _send(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def _receive(self, *kinds: int) -> Packet:
        while True:
            self._packets += 1
            if self._packets > _PACKETS_LIMIT + 8 * scsi.UNITS_LIMIT:
                raise BadReplyError("too many packets")
            reply = await self._read()
            if reply.opcode in kinds:
                if reply.opcode != pdu.DATA_IN or reply.flags & pdu.HAS_STATUS:
                    self._expected = reply.number(24) + 1
                return reply
            if reply.opcode != pdu.NOP_IN:
                raise BadReplyError(f"a packet of kind {reply.opcode:#x}")
            if reply.number(20) != pdu.NO_TAG:
                fields = {8: reply.header[8:16], 16: pdu.word(pdu.NO_TAG), 20: reply.header[20:24], **self._numbers()}
                await self._send(pdu.packet(pdu.NOP_OUT | pdu.IMMEDIATE, pdu.FINAL, fields))

    async def _read(self) -> Packet:
        header = await self._reader.readexactly(pdu.HEADER)
        additional, length = pdu.lengths(header)
        rest = await self._reader.readexactly(additional + length + pdu.padding(length))
        return Packet(header, rest[additional : additional + length])


def _proof(said: Mapping[str, str], chap: Chap | None) -> tuple[bool, dict[str, str]]:
    """Whether our part of the security stage ends with the keys that are to be sent next."""
    if "CHAP_C" in said and chap:
        return True, {"CHAP_N": chap.user, "CHAP_R": pdu.chap_answer(said, chap.password)}
    method = said.get("AuthMethod", "")
    if method == "CHAP" and chap:
        return False, {"CHAP_A": "5"}
    if method == "None":
        return True, {}
    raise StorageError(numbers.ISCSI_LOGIN, "the target wants a way to log in that was not offered")


def _targets(keys: list[tuple[str, str]]) -> list[IscsiTarget]:
    found: list[IscsiTarget] = []
    name = ""
    for key, value in keys:
        if key == "TargetName":
            name = value
        elif key == "TargetAddress" and name and len(found) < TARGETS_LIMIT:
            there, group = _address(value)
            found.append(IscsiTarget(there.host, there.port, name, group))
    return found


def _redirection(keys: Mapping[str, str]) -> Portal:
    return _address(keys.get("TargetAddress", ""))[0]


def _address(text: str) -> tuple[Portal, int]:
    """`host:port,group`; what is left out has its usual value. Raises `BadReplyError`."""
    where, _, group = text.partition(",")
    host, colon, port = where.rpartition(":")
    if not colon or where.endswith("]"):
        host, port = where, ""
    try:
        found = portal(host, port)
    except StorageError as error:
        raise BadReplyError(f"{text[:300]!r} is no address of a target") from error
    return found, int(group) if group.isascii() and group.isdigit() and len(group) <= 5 else 1
