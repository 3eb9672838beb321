"""Disks that QEMU reaches over the network by itself, on a real iSCSI target."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.protocol import GuestNotRespondingError, HypervisorError
from domzero.host.hypervisor.qemu import modules, remote
from domzero.host.hypervisor.qemu.driver import Limits
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec, KernelBoot, RemoteImage
from domzero.host.process import run
from tests.host.hurry import hurried
from tests.host.qemu.conftest import MIB, Guest, Machine, guest_spec
from tests.host.storage.iscsi_target import IQN, running_target

PASSWORD = "open-sesame-open"


def image(portal: str, *, secret: str = PASSWORD, **options: str | int) -> RemoteImage:
    named = {
        "transport": "tcp",
        "portal": portal,
        "target": IQN,
        "lun": 1,
        "user": "guest",
        "initiator-name": "iqn.2026-01.test:host",
        **options,
    }
    return RemoteImage("iscsi", tuple(named.items()), "password-secret", secret)


def test_dotted_names_are_structures() -> None:
    named = {"path": "/x", "server.type": "inet", "server.host": "::1"}
    assert remote.nested(named) == {"path": "/x", "server": {"type": "inet", "host": "::1"}}
    monitors = {"server.0.host": "a", "server.0.port": "1", "server.1.host": "b", "server.1.port": "2"}
    assert remote.nested(monitors) == {"server": [{"host": "a", "port": "1"}, {"host": "b", "port": "2"}]}
    for wrong in ({"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}, {"a.b.c": 1, "a.b": 2}):
        with pytest.raises(HypervisorError, match="contradicts"):
            remote.nested(wrong)


def test_options() -> None:
    node = remote.options(image("10.0.0.1:3260"), "secret-1-2")
    assert (node["driver"], node["password-secret"], node["timeout"]) == ("iscsi", "secret-1-2", remote.COMMAND_SECONDS)
    assert PASSWORD not in json.dumps(node)
    assert PASSWORD not in repr(image("10.0.0.1:3260")) + str(image("10.0.0.1:3260"))
    with pytest.raises(HypervisorError, match="only by iscsi, nfs, rbd"):
        remote.options(RemoteImage("file", (("filename", "/etc/shadow"),)), None)
    with pytest.raises(HypervisorError, match="what its password is for"):
        remote.options(replace(image("x"), secret_option=""), "secret-1-2")


def test_passwords_travel_by_pipe() -> None:
    for asked, content in (
        (image("x"), b64encode(PASSWORD.encode())),
        (RemoteImage("rbd", (), "key-secret", "QUJDRA=="), b"QUJDRA=="),
    ):
        reader = remote.secret_pipe(asked)
        argument = json.loads(remote.secret_from(reader, "secret-1-2"))
        assert argument == {
            "qom-type": "secret",
            "id": "secret-1-2",
            "format": "base64",
            "file": f"/proc/self/fd/{reader}",
        }
        assert Path(argument["file"]).read_bytes() == content
        assert os.read(reader, 100) == b""
        os.close(reader)
    with pytest.raises(HypervisorError, match="too long"):
        remote.secret_pipe(image("x", secret="x" * 4000))


async def test_names_become_addresses() -> None:
    for portal, settled in (
        ("127.0.0.1", "127.0.0.1:3260"),
        ("127.0.0.1:860", "127.0.0.1:860"),
        ("[::1]:860", "[::1]:860"),
        ("[::1]", "[::1]:3260"),
    ):
        assert [dict(each.options)["portal"] for each in await remote.resolved(image(portal))] == [settled]
    (found,) = await remote.resolved(RemoteImage("nfs", (("server.type", "inet"), ("server.host", "127.0.0.1"))))
    assert found.options == (("server.type", "inet"), ("server.host", "127.0.0.1"))
    for wrong in ("", "::1", "[::1", "a:b:c", "host:port"):
        with pytest.raises(HypervisorError, match="portal"):
            await remote.resolved(image(wrong))
    with pytest.raises(HypervisorError, match="address of"):
        await remote.resolved(image("no-such-host.invalid:3260"))


def test_what_an_operator_is_told() -> None:
    asked = image("10.0.0.1:3260")
    missing = remote.explained(asked, "qemu-img: Could not open 'json:{}': Unknown driver 'iscsi'\n")
    assert "install the package qemu-block-extra" in missing
    said = 'qemu-img: Could not open \'json:{"driver": "raw"}\': iSCSI: Failed to connect to LUN : refused\n'
    assert remote.explained(asked, said) == (
        "an iSCSI target (10.0.0.1:3260): iSCSI: Failed to connect to LUN : refused"
    )
    assert "why" in remote.explained(asked, "")


def test_servers_of_a_node() -> None:
    def described(**options: object) -> str:
        return "json:" + json.dumps(options)

    assert remote.servers_of("iscsi", described(portal="[::1]:860", lun=1)) == [("::1", 860)]
    assert remote.servers_of("iscsi", described(portal="10.0.0.1")) == [("10.0.0.1", 3260)]
    assert remote.servers_of("nfs", "nfs://10.0.0.1/export/disk?uid=0") == [("10.0.0.1", 2049)]
    assert remote.servers_of("nfs", described(server={"type": "inet", "host": "10.0.0.1"})) == [("10.0.0.1", 2049)]
    monitors = [{"host": "a", "port": "6789"}, {"host": "b", "port": "3300"}]
    assert remote.servers_of("rbd", described(server=monitors)) == [("a", 6789), ("b", 3300)]
    assert remote.servers_of("rbd", described(pool="x")) == []
    assert remote.servers_of("file", "/dev/fdset/1") == []


async def test_a_module_and_its_libraries_are_given(tmp_path: Path) -> None:
    """Copies at the same places, which nobody but the daemon can write."""
    (tmp_path / "lib").mkdir()
    module = tmp_path / "lib" / "block-test.so"
    module.write_bytes(b"module")
    assert modules.module_of("test", [tmp_path / "none", tmp_path / "lib"]) == module
    assert modules.module_of("other", [tmp_path / "lib"]) is None
    root = tmp_path / "root"
    root.mkdir()
    modules.copy_into(root, [module])
    copy = root / module.relative_to("/")
    assert copy.read_bytes() == b"module"
    assert copy.stat().st_mode & 0o777 == 0o755
    assert copy.parent.stat().st_mode & 0o777 == 0o755
    ceph = RemoteImage("rbd", (("pool", "x"), ("conf", "/dev/null")))
    modules.copy_into(root, modules.configuration(ceph))
    assert (root / "dev/null").read_bytes() == b""
    assert (root / "dev/null").is_file()
    assert modules.configuration(image("x", conf="/etc/shadow")) == []
    said = (await run(["ldd", "/bin/ls"])).stdout.decode()
    found = [Path(name).name for name in modules.LIBRARY.findall(said)]
    assert "libc.so.6" in found


@pytest.mark.slow
async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest of a domain is not asked to wait for it: it is tried outside first, for a bounded time."""
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(HypervisorError, match="did not answer"):
            await remote.reached(image(f"127.0.0.1:{silent.getsockname()[1]}"), "qemu-img")
        assert time.monotonic() - began < 20


@dataclass
class Server:
    """An iSCSI target with one disk of 16 MiB behind a password."""

    portal: str
    disk: Path
    process: subprocess.Popen[bytes]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("tgtd") is None or os.geteuid() != 0:
        pytest.skip("needs the package tgt, and root")
    disk = tmp_path / "lun"
    disk.write_bytes(b"content of the target".ljust(16 * MIB, b"\0"))
    Path("/run/tgtd").mkdir(exist_ok=True)
    with running_target(tmp_path / "tgtd.log") as target:
        target.add(1, disk)
        target.want("guest", PASSWORD)
        yield Server(f"127.0.0.1:{target.port}", disk, target.process)


def disk_of(portal: str, slot: int = 1, secret: str = PASSWORD, **options: str | int) -> DiskSpec:
    return DiskSpec(slot, DiskKind.DISK, DiskSource(image(portal, secret=secret, **options), DiskFormat.RAW))


@pytest.mark.root
async def test_a_name_has_several_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the server answers at one of them, as `localhost` has two where IPv6 comes first."""
    addresses = ["::1", "::1", "127.0.0.1"]

    async def known(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert host == "two.test"
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 0, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", known)
    named = image(server.portal.replace("127.0.0.1", "two.test"))
    assert dict((await remote.reached(named, "qemu-img")).options)["portal"] == server.portal
    addresses.pop()
    with pytest.raises(HypervisorError, match=r"iSCSI target \(two\.test"):
        await remote.reached(named, "qemu-img")


@pytest.mark.qemu
@pytest.mark.root
async def test_hot_plug_by_iscsi(
    machine: Machine, guest: Guest, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """With CHAP, into a domain that has a user and a root of its own, and that was started without any such disk."""
    caplog.set_level(logging.DEBUG)
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    for wrong, message in (
        (disk_of(server.portal, secret="something else!"), "iSCSI target"),
        (disk_of(server.portal, target="iqn.2026-01.test:other"), "iSCSI target"),
        (disk_of(server.portal, lun=7), "iSCSI target"),
        (disk_of("127.0.0.1:1"), "onnect"),
    ):
        with pytest.raises(HypervisorError, match=message):
            await hypervisor.plug_disk(domid, wrong)
    await hypervisor.plug_disk(domid, disk_of(server.portal))
    await console.eventually("test -b /dev/vdb")
    assert await console.run("head -c 21 /dev/vdb") == "content of the target"
    await console.run("echo by the guest | dd of=/dev/vdb bs=1M seek=8 conv=fsync,notrunc 2>/dev/null")
    assert server.disk.read_bytes()[8 * MIB :].startswith(b"by the guest\n")
    monitor = hypervisor._domains[domid].monitor
    objects = await monitor.execute("qom-list", path="/objects")
    assert not [entry["name"] for entry in objects if entry["name"].startswith("secret")]
    assert PASSWORD not in caplog.text
    assert b64encode(PASSWORD.encode()).decode() not in caplog.text
    assert (await hypervisor.statistics(domid)).disks[1].written_bytes > 0
    await hypervisor.resize_disk(domid, 1, 16 * MIB)
    with pytest.raises(HypervisorError, match="larger"):
        await hypervisor.resize_disk(domid, 1, 32 * MIB)
    overlay = machine.image("overlay", "16M")  # a snapshot goes to a file of this host
    await hypervisor.switch_disk(domid, 1, overlay)
    await console.run("echo on top | dd of=/dev/vdb conv=fsync,notrunc 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches")
    assert (await console.run("head -c 21 /dev/vdb")).startswith("on top")
    assert server.disk.read_bytes().startswith(b"content of the target")
    await hypervisor.unplug_disk(domid, 1)
    await hypervisor.plug_disk(domid, disk_of(server.portal.replace("127.0.0.1", "localhost"), slot=2))


@pytest.mark.qemu
@pytest.mark.root
async def test_start_with_iscsi(machine: Machine, boot: KernelBoot, server: Server) -> None:
    spec = guest_spec(boot, machine.image("disk", "16M"))
    with pytest.raises(HypervisorError, match="iSCSI target"):
        await machine.hypervisor.start(replace(spec, disks=(*spec.disks, disk_of(server.portal, secret="wrong"))))
    await machine.hypervisor.start(replace(spec, disks=(*spec.disks, disk_of(server.portal))), paused=True)
    domain = machine.hypervisor._domains[spec.domid]
    arguments = (Path("/proc") / str(domain.pid) / "cmdline").read_bytes()
    assert server.portal.encode() in arguments
    objects = await domain.monitor.execute("qom-list", path="/objects")
    assert not [entry["name"] for entry in objects if entry["name"].startswith("secret")]
    directory = machine.directory / "run" / str(spec.domid)
    kept = [path for path in directory.rglob("*") if path.is_file()]
    assert kept
    for secret in (PASSWORD.encode(), b64encode(PASSWORD.encode())):
        assert secret not in arguments
        assert not [path for path in kept if secret in path.read_bytes()]
    assert 1 in (await machine.hypervisor.statistics(spec.domid)).disks


@pytest.mark.qemu
async def test_the_guest_goes_on_while_a_server_says_nothing(
    machine: Machine, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        portal = f"127.0.0.1:{silent.getsockname()[1]}"
        plug = asyncio.ensure_future(machine.hypervisor.plug_disk(guest.domid, disk_of(portal)))
        first = await guest.console.count()
        while await guest.console.count() < first + 4:
            assert not plug.done()
        await hurried(monkeypatch, plug, 60.0)
        with pytest.raises(HypervisorError, match="did not answer"):
            await plug
    await machine.hypervisor.plug_disk(guest.domid, DiskSpec(1, DiskKind.DISK, machine.image("other", "8M")))


@pytest.mark.qemu
@pytest.mark.root
async def test_the_guest_goes_on_when_a_server_dies(machine: Machine, guest: Guest, server: Server) -> None:
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    await hypervisor.plug_disk(domid, disk_of(server.portal))
    await console.eventually("test -b /dev/vdb")
    await hypervisor.close()
    machine.hypervisor = hypervisor = machine.driver(Limits(guest=2))
    await hypervisor.open(machine.events)
    server.process.kill()
    server.process.wait()
    await console.run("(head -c 100 /dev/vdb > /dev/null) & true")
    await console.eventually("read reads writes < /sys/block/vdb/inflight && test $reads -gt 0")
    with pytest.raises(GuestNotRespondingError):
        await hypervisor.unplug_disk(domid, 1)
    with pytest.raises(HypervisorError, match=r"server \(127.* does not answer"):
        await hypervisor.unplug_disk(domid, 1, force=True)
    await console.count()
    assert 1 in (await hypervisor.statistics(domid)).disks
    await hypervisor.destroy(domid)
