"""Disks over HTTP, beside QEMU's own tools that move the same bytes over the same loopback."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Api
from bench.hosts import Host, host
from bench.report import Row, Section, Target, spread

NOTES = """A disk of a `file` repository (qcow2) that is full of random data, in the page cache. Ours: `curl` fetches or
sends the raw content by `/export_raw_vdi` and `/import_raw_vdi`. Beside it: `qemu-img convert` between the same image
and `qemu-nbd`, which throws away what it gets (export) or writes a new qcow2 image (import); both over TCP on the
loopback address, with TLS 1.3 or without. An import is over when the task says so, and the peer's when its server has
closed the image; both put it on the medium. Memory is how much the daemon's resident set grew at its highest, over all
these transfers."""

RATE, MEMORY = Target(least=0.8), Target(most=1.0)
MEMORY_LIMIT = 64 << 20
MIB = 1 << 20
TLS_OBJECT = "tls-creds-x509,id=tls,dir={},endpoint={},verify-peer={}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What both sides move: a file of random bytes, a disk that holds them, and that disk's image."""

    host: Host
    http: int
    """The port without TLS."""
    api: Api
    directory: Path
    size: int
    file: Path
    disk: str
    image: Path


def measure(quick: bool) -> Section:
    """Raw content both ways, with TLS and without; the daemon's memory."""
    section = Section("Transfers", NOTES)
    size, rounds = (128 * MIB, 2) if quick else (1024 * MIB, 7)
    with tempfile.TemporaryDirectory() as name, plain_host(Path(name)) as (ours, http):
        before = settled(ours.pid)
        scene = prepared(ours, Path(name), size, http)
        for tls in (True, False):
            how = "over TLS" if tls else "without TLS"
            peer = Peer(scene, tls)
            compare(section, f"raw export {how}", scene, rounds, lambda: ours_out(scene, tls), peer.export)  # noqa: B023
            compare(section, f"raw import {how}", scene, rounds, lambda: ours_in(scene, tls), peer.receive)  # noqa: B023
        grown = resident(ours.pid) - before
        told = f"{grown / MIB:.0f} MiB"
        section.add(Row("the daemon's memory, in 64 MiB", grown / MEMORY_LIMIT, told, "64 MiB", MEMORY))
    return section


def compare(
    section: Section, what: str, scene: Scene, rounds: int, ours: Callable[[], None], theirs: Callable[[], None]
) -> None:
    """A row of rates, ours and the other's in turn, after one of each that does not count."""
    mine: list[float] = []
    beside: list[float] = []
    for number in range(rounds + 1):
        for work, seconds in ((ours, mine), (theirs, beside)):
            begin = time.monotonic()
            work()
            if number:
                seconds.append(time.monotonic() - begin)
    rates = [spread([scene.size / MIB / each for each in seconds]) for seconds in (mine, beside)]
    ratio = statistics.median(beside) / statistics.median(mine)
    section.add(Row(what, ratio, rates[0].text("MiB/s"), rates[1].text("MiB/s"), RATE))


def settled(pid: int) -> int:
    """What a process has resident now, in bytes; from now on `resident` counts anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return resident(pid)


def resident(pid: int) -> int:
    """The most memory that a process has had resident, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


@contextlib.contextmanager
def plain_host(directory: Path) -> Iterator[tuple[Host, int]]:
    """A real host, and the port on which it speaks HTTP without TLS."""
    port = free_port()
    with host(directory, "qemu", core=None, options=("--http", f"127.0.0.1:{port}")) as ours:
        yield ours, port


def free_port() -> int:
    """A port of the loopback address that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepared(ours: Host, directory: Path, size: int, http: int = 0) -> Scene:
    """A file of random bytes, and a disk that holds them."""
    api = ours.api()
    file = directory / "content"
    with file.open("wb") as out:
        for _ in range(size // MIB):
            out.write(os.urandom(MIB))
    disk = new_disk(api, size)
    image = ours.state / "sr" / f"{api('VDI.get_location', disk)}.qcow2"
    scene = Scene(ours, http, api, directory, size, file, disk, image)
    ours_in(scene, tls=False)
    return scene


def new_disk(api: Api, size: int) -> str:
    """A new disk in the default repository."""
    sr = str(api("pool.get_default_SR", api("pool.get_all")[0]))
    fields: dict[str, Any] = {"name_label": "measured", "name_description": "", "SR": sr, "type": "user"}
    fields |= {"virtual_size": str(size), "sharable": False, "read_only": False, "other_config": {}}
    return str(api("VDI.create", fields))


def curl(scene: Scene, path: str, tls: bool, *arguments: str | Path) -> None:
    """Ask for a page."""
    door = f"https://127.0.0.1:{scene.host.port}" if tls else f"http://127.0.0.1:{scene.http}"
    argv = ["curl", "--silent", "--show-error", "--fail", "--insecure", *arguments, f"{door}{path}"]
    subprocess.run(argv, check=True)


def ours_out(scene: Scene, tls: bool) -> None:
    """Fetch the disk."""
    path = f"/export_raw_vdi?session_id={scene.api.session}&vdi={scene.disk}"
    curl(scene, path, tls, "--output", "/dev/null")


def ours_in(scene: Scene, tls: bool) -> None:
    """Fill a new disk, which does not stay unless it is the first."""
    target = scene.disk if not scene.image.stat().st_blocks > scene.size // 1024 else new_disk(scene.api, scene.size)
    task = str(scene.api("task.create", "measured", ""))
    path = f"/import_raw_vdi?session_id={scene.api.session}&vdi={target}&task_id={task}"
    curl(scene, path, tls, "--upload-file", scene.file, "--header", "Expect:")
    status = scene.api("task.get_status", task)
    if status != "success":
        raise RuntimeError(f"the import ended as {status}: {scene.api('task.get_error_info', task)}")
    if target != scene.disk:
        scene.api("VDI.destroy", target)


class Peer:
    """QEMU's own tools."""

    def __init__(self, scene: Scene, tls: bool) -> None:
        self._scene = scene
        self._credentials = _certificates(scene.directory) if tls else None

    def export(self) -> None:
        """The image's content to a server that throws it away."""
        with self._served(f"driver=null-co,size={self._scene.size}") as target:
            self._convert(["-f", "qcow2", self._scene.image], target)

    def receive(self) -> None:
        """The file's content into a new image."""
        image = self._scene.directory / "peer.qcow2"
        with contextlib.suppress(FileNotFoundError):
            image.unlink()
        create: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", image, str(self._scene.size)]
        subprocess.run(create, check=True)
        with self._served(f"driver=qcow2,file.filename={image}") as target:
            self._convert(["-f", "raw", self._scene.file], target)

    @contextlib.contextmanager
    def _served(self, image: str) -> Iterator[list[str]]:
        """A server of that image, and how a client is told where it is. The image is closed after the block."""
        port = free_port()
        door = ["--bind", "127.0.0.1", "--port", str(port)]
        where = f"driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={port}"
        objects: list[str] = []
        if self._credentials is not None:
            door += ["--tls-creds", "tls", "--object", TLS_OBJECT.format(self._credentials, "server", "no")]
            where += ",tls-creds=tls"
            objects = ["--object", TLS_OBJECT.format(self._credentials, "client", "yes")]
        argv = ["qemu-nbd", "--fork", "--pid-file", str(self._scene.directory / "pid"), *door, "--image-opts", image]
        subprocess.run(argv, check=True)
        pid = int((self._scene.directory / "pid").read_text())
        yield [*objects, "--target-image-opts", where]
        # It ends by itself when its only client is gone.
        with contextlib.suppress(ProcessLookupError), os.fdopen(os.pidfd_open(pid), "rb") as process:
            select.select([process], [], [], 60)

    def _convert(self, source: list[str | Path], target: list[str]) -> None:
        *options, where = target
        subprocess.run(["qemu-img", "convert", "-n", "-W", *source, *options, where], check=True)


def _certificates(directory: Path) -> Path:
    """An authority and a server's certificate under the names that QEMU looks for, made once."""
    place = directory / "tls"
    if not place.exists():
        place.mkdir()
        authority, key = place / "ca-cert.pem", place / "ca-key.pem"
        _certificate("authority", authority, key, "basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign")
        signed = ("-CA", authority, "-CAkey", key)
        named = ("basicConstraints=critical,CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=serverAuth")
        names = ("subjectAltName=IP:127.0.0.1", *named)
        _certificate("127.0.0.1", place / "server-cert.pem", place / "server-key.pem", *names, arguments=signed)
    return place


def _certificate(name: str, file: Path, key: Path, *extensions: str, arguments: tuple[str | Path, ...] = ()) -> None:
    argv: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", file, *arguments]
    for extension in extensions:
        argv += ["-addext", extension]
    subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
