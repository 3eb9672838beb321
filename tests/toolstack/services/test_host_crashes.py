"""Crash dumps of the host's kernel, as kdump-tools leave them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from domzero.toolstack.host.crash_dumps import find_crashes
from tests.api.harness import in_process, login
from tests.host.upload.receiver import receiver
from tests.toolstack.vm.world import World
from tests.xe.terminal import printed, raw


def leave_crash(directory: Path, name: str, size: int = 1000) -> Path:
    path = directory / name
    path.mkdir(parents=True)
    (path / f"dump.{name}").write_bytes(bytes(size))
    (path / f"dmesg.{name}").write_bytes(b"oops")
    os.utime(path / f"dump.{name}", (1_600_000_000, 1_600_000_000))
    os.utime(path / f"dmesg.{name}", (1_500_000_000, 1_500_000_000))
    return path


async def test_rows_follow_what_is_there(host: World, tmp_path: Path) -> None:
    crashes = tmp_path / "crash"
    host.stack.settings = dataclasses.replace(host.stack.settings, crash_dir=crashes)
    await find_crashes(host.stack)
    assert host.stack.database.refs("host_crashdump") == ()
    leave_crash(crashes, "202011011200")
    (crashes / "kexec_cmd").write_text("not a crash")
    (crashes / "empty").mkdir()
    (crashes / "other").mkdir()
    (crashes / "other" / "notes").write_text("not a crash either")
    outside = leave_crash(tmp_path / "outside", "202011011300")
    (crashes / "elsewhere").symlink_to(outside)
    await find_crashes(host.stack)
    (dump,) = host.stack.database.refs("host_crashdump")
    row = host.row("host_crashdump", dump)
    assert (row["host"], row["size"], row["timestamp"]) == (host.stack.host, 1004, "20200913T12:26:40Z")
    assert host.get("host", host.stack.host, "crashdumps") == (dump,)
    (crashes / "202011011200" / "more").write_bytes(b"12345")
    leave_crash(crashes, "202011011400")
    await find_crashes(host.stack)
    assert host.get("host_crashdump", dump, "size") == 1009
    assert len(host.stack.database.refs("host_crashdump")) == 2
    shutil.rmtree(crashes)
    await find_crashes(host.stack)
    assert host.stack.database.refs("host_crashdump") == ()


async def test_destroying_follows_no_links(host: World, tmp_path: Path) -> None:
    crashes = tmp_path / "crash"
    host.stack.settings = dataclasses.replace(host.stack.settings, crash_dir=crashes)
    path = leave_crash(crashes, "202011011200")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (path / "link").symlink_to(precious)
    await find_crashes(host.stack)
    (dump,) = host.stack.database.refs("host_crashdump")
    await host.call("host_crashdump.destroy", dump)
    assert (path.exists(), (precious / "file").read_text()) == (False, "kept")
    assert await host.fails("host_crashdump.destroy", dump) == ("HANDLE_INVALID", "host_crashdump", dump)
    # A directory that a link has taken the place of is none of ours.
    leave_crash(crashes, "202011011500")
    await find_crashes(host.stack)
    (dump,) = host.stack.database.refs("host_crashdump")
    (crashes / "202011011500").rename(tmp_path / "moved")
    (crashes / "202011011500").symlink_to(tmp_path / "moved")
    await host.call("host_crashdump.destroy", dump)
    assert (tmp_path / "moved" / "dump.202011011500").exists()
    assert host.stack.database.refs("host_crashdump") == ()


async def test_where_it_can_be_sent(host: World, tmp_path: Path) -> None:
    host.stack.settings = dataclasses.replace(host.stack.settings, crash_dir=tmp_path / "crash")
    path = leave_crash(tmp_path / "crash", "202011011200")
    await find_crashes(host.stack)
    (dump,) = host.stack.database.refs("host_crashdump")
    for url in ("", "ftp://example.com/", "file:///etc/passwd", "http://x y/"):
        assert (await host.fails("host_crashdump.upload", dump, url, {}))[:2] == ("INVALID_VALUE", "url")
    wrong = {"http_proxy": "socks://example.com"}
    assert (await host.fails("host_crashdump.upload", dump, "http://127.0.0.1:1/", wrong))[1] == "http_proxy"
    failure = await host.fails("host_crashdump.upload", dump, "http://me:secret@127.0.0.1:1/", {})
    assert failure[0] == "INTERNAL_ERROR"
    assert "secret" not in failure[1]
    shutil.rmtree(path)
    assert (await host.fails("host_crashdump.upload", dump, "http://127.0.0.1:1/", {}))[0] == "HANDLE_INVALID"


def test_xe_and_the_binding(tmp_path: Path) -> None:
    leave_crash(tmp_path / "state" / "crash", "202011011200", 300_000)
    with receiver() as server, in_process(tmp_path) as host:
        uuid = printed(host, "host-crashdump-list", "--minimal").strip()
        printed(host, "host-crashdump-upload", f"uuid={uuid}", f"url={server.url}/dump.tar")
        assert server.asked == ["/dump.tar"]
        assert server.bodies[0][257:262] == b"ustar"
        api = login(host.url).xenapi
        (dump,) = api.host_crashdump.get_all()
        task = api.Async.host_crashdump.upload(dump, f"{server.url}/again", {})
        token = ""
        while api.task.get_status(task) == "pending":
            token = getattr(api.event, "from")([f"task/{task}"], token, 5.0)["token"]
        assert (api.task.get_status(task), server.asked[1:]) == ("success", ["/again"])
        assert server.bodies[1] == server.bodies[0]
        server.status = 500
        assert raw(host, "host-crashdump-upload", f"uuid={uuid}", f"url={server.url}/dump.tar").code == 1
        printed(host, "host-crashdump-destroy", f"uuid={uuid}")
        assert not (tmp_path / "state" / "crash" / "202011011200").exists()
        assert printed(host, "host-crashdump-list", "--minimal").strip() == ""
