"""Sockets, TLS, certificates, and stopping."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from domzero.front.certificates import (
    Certificate,
    CertificateError,
    ensure_certificate,
    fingerprint,
    local_identities,
    make_certificate,
    tls_context,
)
from domzero.front.listeners import ListenError
from domzero.front.server import Server
from tests.front.conftest import Serve
from tests.front.toy import GRAPH, Doors, Toy, ask, read_response, request, until, value_of

# Unix sockets


async def test_the_socket_is_for_its_owner_only(doors: Doors, tmp_path: Path) -> None:
    assert stat.S_IMODE(doors.unix.stat().st_mode) == 0o600
    other = tmp_path / "other"
    doors.server.listen_unix(other, 0o660)
    assert stat.S_IMODE(other.stat().st_mode) == 0o660
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = Server(Toy(), GRAPH)
    server.listen_unix(path)
    streams = await asyncio.open_unix_connection(str(path))
    assert await ask(streams, "toy.who") == "local"
    streams[1].close()
    await server.stop(0)
    assert not path.exists()


async def test_a_socket_in_use_is_left_alone(doors: Doors) -> None:
    with pytest.raises(ListenError, match="another server"):
        Server(Toy(), GRAPH).listen_unix(doors.unix)
    assert (await doors.proxy_call("unix", "toy.who"))["Value"] == "local"


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        Server(Toy(), GRAPH).listen_unix(path)
    assert path.read_text() == "precious"
    with pytest.raises(ListenError):
        Server(Toy(), GRAPH).listen_unix(tmp_path / "absent" / "socket")


async def test_another_servers_socket_survives_our_stop(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first, second = Server(Toy(), GRAPH), Server(Toy(), GRAPH)
    first.listen_unix(path)
    path.rename(tmp_path / "moved")
    second.listen_unix(path)
    await first.stop(0)
    assert path.is_socket()
    await second.stop(0)


# TCP


async def test_a_port_in_use() -> None:
    server = Server(Toy(), GRAPH)
    port = server.listen_http("127.0.0.1", 0)
    with pytest.raises(ListenError, match=str(port)):
        server.listen_http("127.0.0.1", port)
    with pytest.raises(ListenError):
        server.listen_http("203.0.113.1", 0)
    await server.stop(0)


async def test_all_addresses() -> None:
    server = Server(Toy(), GRAPH)
    port = server.listen_http("", 0)
    for address in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
        streams = await asyncio.open_connection(address, port)
        assert await ask(streams, "toy.who") == address
        streams[1].close()
    await server.stop(0)


# TLS


@pytest.mark.parametrize(
    "arguments",
    [
        ["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384", "-groups", "secp384r1"],
        ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-groups", "secp384r1"],
        ["-tls1_3"],
    ],
)
async def test_what_clients_insist_on(doors: Doors, arguments: list[str]) -> None:
    said = await handshake(doors, arguments)
    assert "Cipher is (NONE)" not in said
    assert "Verify return code" in said
    if "-cipher" in arguments:
        assert arguments[2] in said


@pytest.mark.parametrize("arguments", [["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "AES256-SHA"]])
async def test_what_is_too_weak(doors: Doors, arguments: list[str]) -> None:
    said = await handshake(doors, [*arguments, "-cipher", "ALL:@SECLEVEL=0"] if len(arguments) == 1 else arguments)
    assert "Cipher is (NONE)" in said
    assert (await doors.proxy_call("https", "toy.echo", "x"))["Value"] == "x"


async def handshake(doors: Doors, arguments: list[str]) -> str:
    """What `openssl s_client` says."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{doors.https}", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, input=b"", capture_output=True, timeout=20, check=False)
    return done.stdout.decode(errors="replace")


async def test_the_certificate_proves_names_and_addresses(doors: Doors, certificate: Certificate) -> None:
    """As Java and Go clients check it: by the address they connect to."""
    context = ssl.create_default_context(cafile=str(certificate.path))
    for name in ("127.0.0.1", "localhost"):
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.https, ssl=context, server_hostname=name)
        assert await ask((reader, writer), "toy.echo", name) == name
        writer.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", doors.https, ssl=context, server_hostname="other")


def test_the_certificate_is_made_once_and_kept(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path / "tls", ["host"], ["192.0.2.1"])
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert ensure_certificate(tmp_path / "tls", ["other"], []) == first
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]
    loaded = x509.load_pem_x509_certificate(first.path.read_bytes())
    key = loaded.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["host"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
    assert len(first.fingerprint.split(":")) == 32


def test_the_certificate_as_others_see_it(tmp_path: Path) -> None:
    path = ensure_certificate(tmp_path, ["a" * 100 + ".example"], []).path
    command = ["openssl", "x509", "-in", str(path), "-noout", "-fingerprint", "-sha256", "-dates"]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert fingerprint(path.read_bytes()) in said


def test_a_certificate_is_valid_from_before_now() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    loaded = x509.load_pem_x509_certificate(make_certificate([], ["::1"], now))
    assert loaded.not_valid_before_utc < now < loaded.not_valid_after_utc


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_broken_certificate_is_an_error_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.pem"
    path.write_bytes(content)
    with pytest.raises(CertificateError):
        ensure_certificate(tmp_path, ["host"], [])
    assert path.read_bytes() == content


def test_a_key_that_does_not_fit(tmp_path: Path) -> None:
    one, two = (make_certificate(["host"], [], datetime.now(UTC)) for _ in range(2))
    path = tmp_path / "server.pem"
    path.write_bytes(one.partition(b"-----BEGIN CERT")[0] + b"-----BEGIN CERT" + two.partition(b"-----BEGIN CERT")[2])
    with pytest.raises(CertificateError):
        tls_context(Certificate(path, "x"))


def test_the_identities_of_this_machine() -> None:
    names, addresses = local_identities()
    assert "localhost" in names
    assert "127.0.0.1" in addresses


# Stopping


@pytest.mark.parametrize("door", ["plain", "tls", "local"])
async def test_a_stop_lets_requests_finish_and_closes_the_idle(serve: Serve, door: str) -> None:
    doors = await serve()
    idle = await getattr(doors, door)()
    await ask(idle, "toy.echo", "x")
    reader, writer = await getattr(doors, door)()
    writer.write(request("toy.wait"))
    await doors.toy.waiting.wait()
    stopping = asyncio.create_task(doors.server.stop(20))
    assert await asyncio.wait_for(idle[0].read(), 20) == b""
    assert not stopping.done()
    doors.toy.release.set()
    status, headers, body = await read_response(reader)
    assert (status, headers["connection"], value_of(body)) == (200, "close", "waited")
    assert await reader.read() == b""
    await asyncio.wait_for(stopping, 20)
    for opened in (idle[1], writer):
        opened.close()
    with pytest.raises(OSError):  # noqa: PT011 - refused or gone, by door
        await getattr(doors, door)()


async def test_a_stop_cuts_off_what_takes_too_long(doors: Doors) -> None:
    reader, writer = await doors.plain()
    writer.write(request("toy.wait"))
    await doors.toy.waiting.wait()
    await asyncio.wait_for(doors.server.stop(0.1), 20)
    assert doors.toy.cancelled.is_set()
    assert await reader.read() == b""
    writer.close()
    await doors.server.stop(0)


@pytest.mark.slow
async def test_many_clients_at_once(doors: Doors) -> None:
    """Thirty-two threads of the standard client, over every door."""
    failures: list[object] = []

    def work(number: int) -> None:
        door = ("https", "http", "unix")[number % 3]
        try:
            for call in range(10):
                answer = doors._proxy_call(door, "toy.echo", (f"{number}-{call}",))
                if answer["Value"] != f"{number}-{call}":
                    failures.append(answer)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert failures == []
    await until(lambda: doors.server.connections == 0)


async def test_descriptors_are_not_leaked(serve: Serve) -> None:
    doors = await serve()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        for opened in (await doors.plain(), await doors.tls(), await doors.local()):
            await ask(opened, "toy.echo", "x")
            opened[1].transport.abort()
    await until(lambda: doors.server.connections == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)
