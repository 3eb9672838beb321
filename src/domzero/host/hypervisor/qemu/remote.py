"""Images that QEMU reaches over the network by itself: iSCSI, NFS and Ceph, by its own drivers.

QEMU opens an image in the loop that also serves its guest, and gives a server that accepts and then says nothing all
the time in the world. So `qemu-img`, which has the same drivers, opens every remote image first, for a bounded time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.spec import RemoteImage
from domzero.host.process import ProcessError, run

log = logging.getLogger(__name__)

DRIVERS = {"iscsi": "an iSCSI target", "nfs": "an NFS server", "rbd": "a Ceph cluster"}
PACKAGE = "qemu-block-extra"
"""Debian's package of these drivers."""
ANSWER_SECONDS = 10.0
"""How long a server may take until an image is open, and to say what its name's address is."""
ADDRESSES = 4
"""Of one name, that are tried."""
CONNECT_SECONDS = 3.0
"""How long a server may take to accept a connection."""
COMMAND_SECONDS = 15
"""After how long QEMU's iSCSI driver connects anew and repeats a command. Its own default is never."""
SECRET_LIMIT = 4096
ISCSI_PORT = 3260
NFS_PORT = 2049
PORTAL = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
HOST_OPTION = re.compile(r"(?:server\.)(?:\d{1,2}\.)?host")


def options(image: RemoteImage, secret: str | None) -> dict[str, object]:
    """The options of `blockdev-add`, nested as QEMU wants them. `secret` is the object with the password.

    Raises `HypervisorError` for a driver or a combination of names that cannot be.
    """
    if image.driver not in DRIVERS:
        raise HypervisorError(f"disks cannot be reached by {image.driver}; only by {', '.join(DRIVERS)}")
    named = dict(image.options)
    if image.driver == "iscsi":
        named.setdefault("timeout", COMMAND_SECONDS)
    if secret is not None:
        if not image.secret_option:
            raise HypervisorError(f"{image}: it is not said what its password is for")
        named[image.secret_option] = secret
    return {"driver": image.driver, **nested(named)}


def nested(named: Mapping[str, object]) -> dict[str, Any]:
    """Structures from dotted names; a level whose names are the numbers from 0 on is a list.

    Raises `HypervisorError` where a name stands for a value and a structure at once.
    """
    tree: dict[str, Any] = {}
    for name, value in named.items():
        *path, last = name.split(".")
        level = tree
        for step in path:
            level = level.setdefault(step, {})
            if not isinstance(level, dict):
                raise HypervisorError(f"the option {name} contradicts another")
        if last in level:
            raise HypervisorError(f"the option {name} contradicts another")
        level[last] = value
    return {name: _listed(value) for name, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {str(number) for number in range(len(value))}:
        return [_listed(value[str(number)]) for number in range(len(value))]
    return {name: _listed(inner) for name, inner in value.items()}


def secret_pipe(image: RemoteImage) -> int:
    """The readable end of a pipe with an image's password, encoded; the caller's to close. It can be read once.

    Raises `HypervisorError` for a password too long to be one.
    """
    content = image.encoded_secret
    if len(content) > SECRET_LIMIT:
        raise HypervisorError(f"a password of more than {SECRET_LIMIT * 3 // 4} bytes is too long")
    reader, writer = os.pipe()
    try:
        os.write(writer, content)
    finally:
        os.close(writer)
    return reader


def secret_object(name: str, **content: str) -> dict[str, object]:
    """The object (options of `object-add`) of an encoded password, in `data` or in a `file`."""
    return {"qom-type": "secret", "id": name, "format": "base64", **content}


def secret_from(descriptor: int, name: str) -> str:
    """The argument of `-object` for a password that QEMU finds in a descriptor it is started with."""
    return json.dumps(secret_object(name, file=f"/proc/self/fd/{descriptor}"))


async def reached(image: RemoteImage, image_tool: str) -> RemoteImage:
    """The image with addresses instead of names, after it could be opened: at the first address that gives it.

    A domain sees no resolver, and must connect again at any time. Raises `HypervisorError` with a sentence for an
    operator, of the last address: no answer, refused, no such image, no driver.
    """
    *others, last = await resolved(image)
    for settled in others:
        try:
            return await _opened(settled, image, image_tool)
        except HypervisorError as error:
            log.info("%s; its next address is tried", error)
    return await _opened(last, image, image_tool)


async def _opened(settled: RemoteImage, image: RemoteImage, image_tool: str) -> RemoteImage:
    with ExitStack() as opened:
        argv, secrets = [image_tool, "info", "--output=json"], []
        if image.secret:
            secrets.append(secret_pipe(image))
            opened.callback(os.close, secrets[0])
            argv += ["--object", secret_from(secrets[0], "password")]
        storage = options(settled, "password" if image.secret else None)
        argv.append("json:" + json.dumps({"driver": "raw", "file": storage}))
        try:
            said = await run(argv, timeout=ANSWER_SECONDS, check=False, pass_fds=secrets)
        except ProcessError as error:
            raise HypervisorError(f"{image.driver}: {_where(image)} did not answer: {error}") from error
    if said.returncode != 0:
        raise HypervisorError(explained(image, said.stderr.decode(errors="replace")))
    return settled


def explained(image: RemoteImage, said: str) -> str:
    """What an operator is told of an image that could not be opened, from what QEMU said."""
    if "Unknown driver" in said or "Unknown protocol" in said:
        return (
            f"QEMU has no driver for {DRIVERS.get(image.driver, image.driver)}: install the package {PACKAGE} "
            f"(or what has QEMU's block-{image.driver} module in this distribution)"
        )
    lines = [line for line in said.strip().splitlines() if line] or ["it did not say why"]
    reason = re.sub(r"^qemu-img: |Could not open '(?:[^'\\]|\\.)*': ", "", lines[-1])
    return f"{DRIVERS.get(image.driver, image.driver)} ({_where(image)}): {reason}"


def _where(image: RemoteImage) -> str:
    """The server's address, as configured."""
    for name, value in image.options:
        if name == "portal" or HOST_OPTION.fullmatch(name):
            return str(value)
    return "as configured on this host"


def servers_of(driver: str, filename: str) -> list[tuple[str, int]]:
    """Addresses and ports of the servers a block node is on, from what QEMU calls its file; none where it is local."""
    if driver not in DRIVERS:
        return []
    if not filename.startswith("json:"):
        host = urlsplit(filename).hostname
        return [(host, NFS_PORT)] if driver == "nfs" and host else []
    named = json.loads(filename.removeprefix("json:"))
    found = PORTAL.fullmatch(str(named.get("portal", "")))
    if found is not None:
        return [(found["v6"] or found["host"], int(found["port"] or ISCSI_PORT))]
    listed = named.get("server", [])
    servers = listed if isinstance(listed, list) else [listed]
    return [(str(server["host"]), int(server.get("port", NFS_PORT))) for server in servers]


async def answers(host: str, port: int) -> bool:
    """Whether a server accepts a connection within some seconds."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def resolved(image: RemoteImage) -> list[RemoteImage]:
    """The image with each server's name replaced by its address, as often as a name has addresses, in their order.

    Raises `HypervisorError` for a name that nobody knows.
    """
    settled: list[tuple[str, Sequence[str | int | bool]]] = []
    for name, value in image.options:
        if name == "portal" and image.driver == "iscsi":
            settled.append((name, await _portals(str(value))))
        elif HOST_OPTION.fullmatch(name):
            settled.append((name, await _addresses(str(value))))
        else:
            settled.append((name, (value,)))
    most = max((len(values) for _, values in settled), default=1)
    return [
        replace(image, options=tuple((name, values[min(number, len(values) - 1)]) for name, values in settled))
        for number in range(most)
    ]


async def _portals(portal: str) -> list[str]:
    found = PORTAL.fullmatch(portal)
    if found is None:
        raise HypervisorError(f"{portal!r} is no iSCSI portal: an address, a colon and a port are expected")
    port = found["port"] or ISCSI_PORT
    addresses = await _addresses(found["v6"] or found["host"])
    return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses]


async def _addresses(host: str) -> list[str]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise HypervisorError(f"nobody said within {ANSWER_SECONDS:g} seconds what the address of {host} is") from None
    except (OSError, UnicodeError) as error:
        raise HypervisorError(f"the address of {host!r} is not known: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:ADDRESSES]
