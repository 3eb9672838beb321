"""A Ceph cluster of one monitor and one store in memory, on ports of this machine alone. It takes about ten seconds."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "ceph", "rbd")
POOL = "disks"

needs_ceph = pytest.mark.skipif(
    any(shutil.which(name) is None for name in PROGRAMS), reason="ceph-mon, ceph-osd or ceph-common is not installed"
)

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = {where}
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {home}/keyring
run dir = {home}/run
crash dir = {home}/crash
admin socket = {home}/run/$name.asok
log file = {home}/$name.log
pid file =
mon data = {home}/mon
osd data = {home}/osd
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
osd client watch timeout = 3
osd objectstore = memstore
memstore device bytes = 268435456
osd class load list = *
osd class default list = *
"""


@dataclass(frozen=True)
class Cluster:
    """One that answers, with one pool."""

    home: Path
    port: int
    key: str

    @property
    def device_config(self) -> dict[str, str]:
        return {"monitors": f"127.0.0.1:{self.port}", "pool": POOL, "key": self.key}

    def tool(self, program: str, *arguments: str) -> str:
        return run(self.home, program, "-c", str(self.home / "ceph.conf"), *arguments)


def run(home: Path, *argv: str) -> str:
    return subprocess.run(argv, cwd=home, check=True, capture_output=True, text=True, timeout=60).stdout


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield _start(home, processes)
    finally:
        for process in processes:
            process.kill()  # nothing of it is kept
        for process in processes:
            process.wait()


def _start(home: Path, processes: list[subprocess.Popen[bytes]]) -> Cluster:
    new, old = _free_ports()
    where, fsid = f"[v2:127.0.0.1:{new},v1:127.0.0.1:{old}]", str(uuid.uuid4())
    for name in ("run", "mon", "osd", "crash"):
        (home / name).mkdir()
    (home / "ceph.conf").write_text(CONFIGURATION.format(fsid=fsid, where=where, home=home))
    run(home, "ceph-authtool", "--create-keyring", "keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    everything = [word for part in ("mon", "osd", "mgr") for word in ("--cap", part, "allow *")]
    run(home, "ceph-authtool", "keyring", "--gen-key", "-n", "client.admin", *everything)
    run(home, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", where, "monmap")
    conf = ("-c", str(home / "ceph.conf"))
    run(home, "ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", "monmap", "--keyring", "keyring")
    processes.append(_daemon(home, "ceph-mon", *conf, "-i", "a", "-f"))
    found = re.search(r"client\.admin\]\s+key = (\S+)", (home / "keyring").read_text())
    assert found
    cluster = Cluster(home, new, found[1])
    _add_store(cluster, conf, processes)
    cluster.tool("ceph", "osd", "pool", "create", POOL, "4")
    cluster.tool("ceph", "osd", "pool", "application", "enable", POOL, "rbd")
    return cluster


def _add_store(cluster: Cluster, conf: tuple[str, ...], processes: list[subprocess.Popen[bytes]]) -> None:
    home, osd = cluster.home, str(uuid.uuid4())
    secret = run(home, "ceph-authtool", "--gen-print-key").strip()
    (home / "secret.json").write_text(f'{{"cephx_secret": "{secret}"}}')
    cluster.tool("ceph", "osd", "new", osd, "-i", "secret.json")
    keyring = ("--keyring", str(home / "osd/keyring"))
    run(home, "ceph-authtool", keyring[1], "--create-keyring", "-n", "osd.0", "--add-key", secret)
    run(home, "ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd, *keyring)
    processes.append(_daemon(home, "ceph-osd", *conf, "-i", "0", "-f", *keyring))


def _daemon(home: Path, *argv: str) -> subprocess.Popen[bytes]:
    with (home / f"{argv[0]}.out").open("wb") as output:
        return subprocess.Popen(argv, cwd=home, stdout=output, stderr=output, env={**os.environ, "LC_ALL": "C.UTF-8"})


def _free_ports() -> tuple[int, int]:
    """Two that are not the same."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return int(one.getsockname()[1]), int(other.getsockname()[1])
