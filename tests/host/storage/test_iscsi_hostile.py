"""Settings that cannot be, servers that do not answer, and targets that lie."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from domzero.host.storage.iscsi import pdu, scsi
from domzero.host.storage.iscsi.driver import IscsiStorage
from domzero.host.storage.iscsi.name import PREFIX, our_name
from domzero.host.storage.iscsi.pdu import BadReplyError, chap_answer, decoded_keys, lengths
from domzero.host.storage.iscsi.scsi import Unit
from domzero.host.storage.iscsi.session import discover, survey
from domzero.host.storage.iscsi.settings import IscsiSettings, Portal, read_settings
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import REPOSITORY, refused

INITIATOR = "iqn.2026-01.org.example:here"
IQN = "iqn.2026-01.org.example:disks"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize(
    ("number", "config"),
    [
        (95, {}),
        (95, {"target": " "}),
        (140, {"target": "a\nb"}),
        (140, {"target": "a b"}),
        (140, {"target": "10.0.0.1,10.0.0.2"}),
        (140, {"target": "-oProxy"}),
        (140, {"target": "[::1%eth0]"}),
        (142, {"target": "a", "port": "0"}),
        (142, {"target": "a", "port": "65536"}),
        (142, {"target": "a", "port": "\u0661"}),
        (106, {"target": "a", "targetIQN": "disks"}),
        (106, {"target": "a", "targetIQN": f"{IQN}\nx"}),
        (106, {"target": "a", "targetIQN": f"{IQN}/1"}),
        (106, {"target": "a", "targetIQN": "iqn.2026-01." + "a" * 300}),
        (106, {"target": "a", "targetIQN": IQN, "localIQN": "me"}),
        (68, {"target": "a", "targetIQN": IQN, "chapuser": "ann"}),
        (68, {"target": "a", "targetIQN": IQN, "chapuser": "ann", "chappassword": "x" * 300}),
        (68, {"target": "a", "targetIQN": IQN, "chapuser": "an\0n", "chappassword": "x"}),
        (68, {"target": "a", "targetIQN": IQN, "incoming_chapuser": "it", "incoming_chappassword": "x"}),
    ],
)
def test_settings_that_cannot_be(number: int, config: dict[str, str]) -> None:
    with pytest.raises(StorageError) as caught:
        read_settings(config, INITIATOR)
    assert caught.value.number == number, caught.value.text


def test_settings() -> None:
    assert read_settings({"target": "[FD00::1]", "targetIQN": "naa.0123456789abcdef"}, INITIATOR) == IscsiSettings(
        Portal("fd00::1", 3260), "naa.0123456789abcdef", INITIATOR
    )
    read = read_settings({"target": "a", "localIQN": IQN, "chapuser": "ann", "chappassword": "hunter2"}, INITIATOR)
    assert read.initiator == IQN
    assert "hunter2" not in repr(read)


def test_our_name_is_the_operators_or_the_machines(tmp_path: Path) -> None:
    configured, machine = tmp_path / "name", tmp_path / "machine-id"
    assert our_name(configured, machine) == PREFIX
    machine.write_text("0123\n")
    ours = our_name(configured, machine)
    assert ours == our_name(configured, machine) != PREFIX
    assert read_settings({"target": "a"}, ours).initiator == ours
    configured.write_text(f"# a comment\nInitiatorName={IQN}\n")
    assert our_name(configured, machine) == IQN


def settings(port: int) -> IscsiSettings:
    return IscsiSettings(Portal("127.0.0.1", port), IQN, INITIATOR)


async def test_servers_that_do_not_answer() -> None:
    begun = time.monotonic()
    with ExitStack() as opened:
        silent = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        await refused(141, survey(settings(silent.getsockname()[1]), 0.2))
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        await refused(141, survey(settings(port), 0.2))
    await refused(141, survey(settings(port), 0.2))
    driver = IscsiStorage(INITIATOR, 5)
    config = {"target": "no-such-host.invalid", "targetIQN": IQN}
    await refused(140, driver.attach(Repository(REPOSITORY, config)))
    assert time.monotonic() - begun < 30


@asynccontextmanager
async def liar(talk: Talk) -> AsyncIterator[IscsiSettings]:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the visitor has had enough
        finally:
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield settings(server.sockets[0].getsockname()[1])


async def heard(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(pdu.HEADER)
    length = int.from_bytes(header[5:8], "big")
    await reader.readexactly(length + pdu.padding(length))
    return header


async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let anyone in."""
    for stage, keys in ((0x81, {"AuthMethod": "None"}), (0x87, {})):
        await heard(reader)
        writer.write(pdu.packet(pdu.LOGIN_RESPONSE, stage, {}, pdu.encoded_keys(keys)))


def says(*packets: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for content in packets:
            await heard(reader)
            writer.write(content)

    return talk


def redirected(where: str) -> bytes:
    return pdu.packet(pdu.LOGIN_RESPONSE, 0, {36: b"\1\1"}, pdu.encoded_keys({"TargetAddress": where}))


@pytest.mark.parametrize(
    ("number", "packets"),
    [
        (141, (b"HTTP/1.1 400 Bad Request\r\nServer: something else altogether\r\n\r\n",)),
        (141, (b"\x23" + bytes(4) + b"\xff\xff\xff" + bytes(40),)),
        (141, (pdu.packet(pdu.LOGIN_RESPONSE, 0x81, {}, b"no equals sign\0"),)),
        (141, (pdu.packet(pdu.REJECT, 0, {}),)),
        (141, (pdu.packet(pdu.LOGIN_RESPONSE, 0xC0, {}),)),
        (141, (redirected("somewhere odd"),)),
        (68, (pdu.packet(pdu.LOGIN_RESPONSE, 0, {}, b"AuthMethod=KRB5\0"),)),
        (68, (pdu.packet(pdu.LOGIN_RESPONSE, 0, {36: b"\3\1"}),)),
    ],
    ids=["http", "huge", "no keys", "reject", "continued", "nowhere", "kerberos", "unavailable"],
)
async def test_strange_answers_to_a_login(number: int, packets: tuple[bytes, ...]) -> None:
    async with liar(says(*packets)) as there:
        await refused(number, survey(there, 20))


async def test_a_target_that_moves_is_followed_but_not_for_ever() -> None:
    async with (
        liar(says(pdu.packet(pdu.LOGIN_RESPONSE, 0, {36: b"\2\3"}))) as second,
        liar(says(redirected(f"{second.portal},1"))) as first,
    ):
        await refused(68, survey(first, 20))
    visits = 0

    async def in_circles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        await says(redirected(str(circle.portal)))(reader, writer)

    async with liar(in_circles) as circle:
        await refused(141, survey(circle, 20))
    assert visits == 3


async def test_a_target_that_never_comes_to_the_point() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        while True:
            writer.write(pdu.packet(pdu.NOP_IN, pdu.FINAL, {20: b"\xff" * 4}) * 100)
            await writer.drain()

    async with liar(talk) as there:
        await refused(141, survey(there, 5))
        await refused(83, discover(there, 5))


async def test_more_data_than_was_asked_for_is_not_taken() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        tag = (await heard(reader))[16:20]
        writer.write(pdu.packet(pdu.DATA_IN, 0, {16: tag}, bytes(pdu.DATA_LIMIT)))

    async with liar(talk) as there:
        await refused(141, survey(there, 20))


async def test_targets_that_a_portal_lists() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        await heard(reader)
        said = b"TargetName=a\0TargetAddress=[fd00::1]:860,7\0TargetAddress=host\0TargetName=b\0"
        writer.write(pdu.packet(pdu.TEXT_RESPONSE, 0, {20: b"\0\0\0\1"}, said))
        await heard(reader)
        writer.write(pdu.packet(pdu.TEXT_RESPONSE, pdu.FINAL, {20: b"\xff" * 4}, b"TargetAddress=10.0.0.1:1\0"))

    async with liar(talk) as there:
        found = await discover(there, 20)
    assert [(each.address, each.port, each.iqn, each.portal_group) for each in found] == [
        ("fd00::1", 860, "a", 7),
        ("host", 3260, "a", 1),
        ("10.0.0.1", 1, "b", 1),
    ]


def test_packets() -> None:
    with pytest.raises(BadReplyError, match="longer"):
        lengths(b"\x23" + bytes(4) + (pdu.DATA_LIMIT + 1).to_bytes(3, "big") + bytes(40))
    with pytest.raises(BadReplyError):
        decoded_keys(b"a=1\0b\0")
    for challenge in ({}, {"CHAP_A": "7"}, {"CHAP_A": "5", "CHAP_I": "300", "CHAP_C": "0x00"}):
        with pytest.raises(BadReplyError):
            chap_answer(challenge, "x")
    for content in ("0xzz", "plain", "0x", "0b!!"):
        with pytest.raises(BadReplyError):
            chap_answer({"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": content}, "x")
    in_hex = chap_answer({"CHAP_A": "5", "CHAP_I": "0x1", "CHAP_C": "0x616263"}, "x")
    assert in_hex == chap_answer({"CHAP_A": "5", "CHAP_I": "1", "CHAP_C": "0bYWJj"}, "x")


def test_lists_of_units() -> None:
    entries = [b"\0\x05", b"\x41\x2c", b"\0\x05", b"\x80\1", b"\x01\1"]
    listed = b"".join(entry + bytes(6) for entry in entries) + b"\0\7" + b"\1" + bytes(5)
    assert scsi.units_in(len(listed).to_bytes(4, "big") + bytes(4) + listed) == [5, 300]
    assert scsi.units_in(b"\xff" * 4 + bytes(4) + b"\0\1" + bytes(6) + b"\0\2") == [1]
    assert scsi.units_in(b"") == []
    many = b"".join(struct.pack(">H6x", 0x4000 | number) for number in range(8000))
    assert len(scsi.units_in(len(many).to_bytes(4, "big") + bytes(4) + many)) == scsi.UNITS_LIMIT
    assert scsi.lun_address(300) == b"\x41\x2c" + bytes(6)


def unit(serial_page: bytes = b"", identity_page: bytes = b"", lun: int = 1) -> Unit:
    standard = bytes(8) + b"Make\x00\xff  " + b"The model       " + bytes(4)
    return Unit(lun, 512, 512, False, standard, serial_page, identity_page)


def identities(*each: tuple[int, int, bytes]) -> bytes:
    body = b"".join(bytes([code, kind, 0, len(name)]) + name for code, kind, name in each)
    return b"\0\x83" + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("known", "name"),
    [
        (unit(), ""),
        (unit(b"\0\x80\0\x04 7 \n"), "SMake_The_model_7"),
        (unit(b"\0\x80\xff\xff7"), "SMake_The_model_7"),
        (unit(b"\0\x81\0\x017"), ""),
        (unit(b"", identities((1, 3, b"\x50" + bytes(6) + b"\1"))), "35000000000000001"),
        (unit(b"", identities((1, 3, b"\x50" * 8), (1, 3, b"\x60" * 16))), "3" + "60" * 16),
        (unit(b"", identities((1, 0x13, b"\x50" * 8), (1, 2, b"\2" * 8))), "2" + "02" * 8),
        (unit(b"", identities((2, 1, b"Make  a/b\n"))), "1Make_a_b"),
        (unit(b"", identities((1, 3, bytes(8)))), ""),
        (unit(b"", b"\0\x83\xff\xff\1\3\0\xff\x60"), ""),
    ],
    ids=["none", "serial", "long", "other page", "naa", "longest", "not a port's", "vendor's", "zeros", "cut"],
)
def test_names_of_units(known: Unit, name: str) -> None:
    assert known.scsi_id == name


def test_sizes_that_cannot_be() -> None:
    assert scsi.capacity_in(struct.pack(">QI", 7, 512) + bytes(20)) == (4096, 512)
    assert scsi.capacity_in(struct.pack(">QI", 7, 4096)) == (32768, 4096)
    for reply in (b"", struct.pack(">QI", (1 << 64) - 1, 512), struct.pack(">QI", 7, 3), struct.pack(">QI", 7, 0)):
        assert scsi.capacity_in(reply) == (0, 0)
    assert scsi.sense_key(b"\0\x12\x70\0\6" + bytes(15)) == scsi.sense_key(b"\0\x08\x72\6" + bytes(6)) == 6
    assert scsi.sense_key(b"\0") == 0
