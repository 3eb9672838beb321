"""Backups of a host: made while it runs, looked at with `tar`, restored, and refused where they are not ours."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import sqlite3
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tests.api.harness import PASSWORD, InProcessHost, in_process, login
from tests.api.pages import get, put
from tests.api.test_database_dump import left, records, sending, until
from tests.sampling import each
from tests.xe.terminal import process, socket_of

FILES = ("manifest.json", "state.db", "passwords.json", "tls/server.pem")
Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def saved(host: InProcessHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a host with something in it."""
    api = login(host.url).xenapi
    api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "kept")
    path = tmp_path_factory.mktemp("backup") / "backup.tar"
    assert get(host, "/host_backup", target=path)[0]
    return path


def contents(path: Path) -> Contents:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]  # all are files


def packed(path: Path, files: Contents, *, change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> Path:
    """An archive made by another program than ours."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            archive.addfile(member, io.BytesIO(content))
    return path


def listed(files: Contents, **changes: Any) -> Contents:
    """The files with a manifest that fits them."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
        if name != "manifest.json"
    ]
    return {**files, "manifest.json": json.dumps({**manifest, **changes}).encode()}


def test_another_program_reads_it(host: InProcessHost, saved: Path, tmp_path: Path) -> None:
    files = contents(saved)
    assert tuple(files) == FILES
    for line in json.loads(files["manifest.json"])["files"]:
        assert hashlib.sha256(files[line["name"]]).hexdigest() == line["sha256"]
    (tmp_path / "state.db").write_bytes(files["state.db"])
    connection = sqlite3.connect(tmp_path / "state.db")
    assert connection.execute("SELECT count(*) FROM objects WHERE fields LIKE '%\"kept\"%'").fetchone()[0] == 1
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert b"PRIVATE KEY" in files["tls/server.pem"]
    api = login(host.url).xenapi
    deadline = time.monotonic() + 30
    while any(record["status"] == "pending" for record in api.task.get_all_records().values()):
        assert time.monotonic() < deadline
    assert not list(Path(host.settings.state_dir or "").glob("scratch-*"))


@pytest.mark.slow
def test_a_host_is_as_it_was_after_a_restore(tmp_path: Path) -> None:
    with in_process(tmp_path, root_password_file=None) as host:
        host.run(host.daemon.engine.users.add("somebody", "first", "pool-admin"))
        api = login(host.url, "somebody", "first").xenapi
        machine = api.VM.clone(api.VM.get_by_name_label("Tiny Linux")[0], "kept")
        done = process("host-backup", f"file-name={tmp_path}/backup", "-s", str(socket_of(host)))
        assert (done.returncode, done.stderr) == (0, "")
        assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
        before = records(api)
        api.VM.destroy(machine)
        host.run(host.daemon.engine.users.add("somebody", "second", "pool-admin"))
        done = process("host-restore", f"file-name={tmp_path}/backup", "-s", str(socket_of(host)))
        assert (done.returncode, done.stderr) == (0, "")
        host.wait_for_end()
    with in_process(tmp_path, root_password_file=None) as host:
        api = login(host.url, "somebody", "first").xenapi
        assert records(api) == before
    (aside,) = (tmp_path / "state" / "before-restore").iterdir()
    assert {path.name for path in aside.iterdir()} >= {"state.db", "passwords.json", "tls"}


def without_pool(files: Contents, directory: Path) -> Contents:
    return with_database(files, directory, "DELETE FROM objects WHERE class = 'pool'")


def with_database(files: Contents, directory: Path, *statements: str) -> Contents:
    path = directory / "changed.db"
    path.write_bytes(files["state.db"])
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return listed({**files, "state.db": path.read_bytes()})


CASES: dict[str, tuple[str, Callable[[Contents, Path], Contents]]] = {
    "version": ("RESTORE_INCOMPATIBLE_VERSION", lambda files, _: listed(files, format="2")),
    "brand": ("RESTORE_INCOMPATIBLE_VERSION", lambda files, _: listed(files, product_brand="XenServer")),
    "newer database": (
        "RESTORE_INCOMPATIBLE_VERSION",
        lambda files, path: with_database(files, path, "PRAGMA user_version=999"),
    ),
    "checksum": ("RESTORE_SCRIPT_FAILED", lambda files, _: {**files, "passwords.json": files["passwords.json"][::-1]}),
    "passwords": ("RESTORE_SCRIPT_FAILED", lambda files, _: listed({**files, "passwords.json": b"[]"})),
    "certificate": ("RESTORE_SCRIPT_FAILED", lambda files, _: listed({**files, "tls/server.pem": b"no key"})),
    "order": (
        "RESTORE_SCRIPT_FAILED",
        lambda files, _: {
            name: files[name] for name in ("manifest.json", "passwords.json", "state.db", "tls/server.pem")
        },
    ),
    "missing": ("RESTORE_SCRIPT_FAILED", lambda files, _: {name: files[name] for name in FILES[:-1]}),
    "too many": ("RESTORE_SCRIPT_FAILED", lambda files, _: {**files, "more": b"x"}),
    "no database": (
        "RESTORE_SCRIPT_FAILED",
        lambda files, _: listed({name: files[name] for name in FILES if name != "state.db"}),
    ),
    "path": ("RESTORE_SCRIPT_FAILED", lambda files, _: listed({**files, "../../etc/cron.d/x": b"x"})),
    "size": (
        "RESTORE_SCRIPT_FAILED",
        lambda files, _: {
            **files,
            "manifest.json": listed(files)["manifest.json"].replace(b'"size": ', b'"size": 99999999999999'),
        },
    ),
    "no manifest": ("RESTORE_SCRIPT_FAILED", lambda files, _: {name: files[name] for name in FILES[1:]}),
    "rubbish": ("COULD_NOT_IMPORT_DATABASE", lambda files, _: listed({**files, "state.db": b"rubbish" * 999})),
    "empty": ("COULD_NOT_IMPORT_DATABASE", lambda files, _: listed({**files, "state.db": b""})),
    "pool": ("COULD_NOT_IMPORT_DATABASE", without_pool),
    "trigger": (
        "COULD_NOT_IMPORT_DATABASE",
        lambda files, path: with_database(
            files, path, "CREATE TRIGGER t AFTER INSERT ON objects BEGIN DELETE FROM objects; END"
        ),
    ),
    "view": (
        "COULD_NOT_IMPORT_DATABASE",
        lambda files, path: with_database(
            files, path, "ALTER TABLE objects RENAME TO real", "CREATE VIEW objects AS SELECT * FROM real"
        ),
    ),
    "no JSON": (
        "COULD_NOT_IMPORT_DATABASE",
        lambda files, path: with_database(files, path, "UPDATE objects SET fields = '[' WHERE class = 'pool'"),
    ),
    "blob": (
        "COULD_NOT_IMPORT_DATABASE",
        lambda files, path: with_database(files, path, "UPDATE objects SET fields = x'00' WHERE class = 'pool'"),
    ),
}


@pytest.mark.parametrize("case", each(6, CASES))
def test_what_is_no_backup_is_refused_and_leaves_nothing(
    host: InProcessHost, saved: Path, tmp_path: Path, case: str
) -> None:
    code, make = CASES[case]
    path = packed(tmp_path / "backup", make(contents(saved), tmp_path))
    taken, said = put(host, "/host_restore", path)
    assert (taken, code in said.decode()) == (False, True), said
    assert left(host) == []
    assert login(host.url).xenapi.VM.get_by_name_label("kept")


@pytest.mark.parametrize(
    "kind",
    each(
        7, [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.XHDTYPE, b"L"]
    ),
)
def test_members_that_are_no_plain_files(host: InProcessHost, saved: Path, tmp_path: Path, kind: bytes) -> None:
    def change(member: tarfile.TarInfo) -> None:
        if member.name == "passwords.json":
            member.type, member.linkname = kind, "/etc/passwd"

    taken, said = put(host, "/host_restore", packed(tmp_path / "backup", contents(saved), change=change))
    assert not taken
    assert b"RESTORE_SCRIPT_FAILED" in said
    assert left(host) == []


def test_an_archive_that_tar_packed_again_is_taken(host: InProcessHost, saved: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "backup", contents(saved))
    assert path.stat().st_size % tarfile.RECORDSIZE == 0
    assert put(host, "/host_restore?dry_run=true", path)[0]
    assert left(host) == []


@pytest.mark.slow
def test_truncated_ones(host: InProcessHost, saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 100, 700, 5_000, len(whole) // 2, len(whole) - 1024):
        (tmp_path / "backup").write_bytes(whole[:size])
        taken, said = put(host, "/host_restore", tmp_path / "backup")
        assert not taken
        assert b"RESTORE_SCRIPT_FAILED" in said
    assert left(host) == []


def test_a_disk_that_refuses(
    host: InProcessHost, session: Any, api: Any, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = api.task.create("restore", "")
    whole, sent = saved.read_bytes(), 2048
    page = f"/host_restore?dry_run=true&session_id={session.handle}&task_id={task}"
    with sending(host, page, session.handle, whole[:sent], len(whole)) as connection:
        shutil.rmtree(Path(host.settings.state_dir or "") / "restore" / "incoming")
        connection.sendall(whole[sent:])
        until(lambda: api.task.get_status(task) != "pending")
    assert api.task.get_error_info(task)[0] == "RESTORE_SCRIPT_FAILED"
    stack = host.daemon.stack
    monkeypatch.setattr(stack, "settings", dataclasses.replace(stack.settings, state_dir=tmp_path / "not there"))
    assert b"BACKUP_SCRIPT_FAILED" in get(host, "/host_backup")[1]


def test_whoever_may_not_gets_nothing(host: InProcessHost, saved: Path) -> None:
    host.run(host.daemon.engine.users.add("operator", PASSWORD, "pool-operator"))
    assert b"403" in get(host, "/host_backup", user="operator")[1]
    assert b"403" in put(host, "/host_restore", saved, user="operator")[1]


@pytest.mark.slow
def test_the_task_tells(host: InProcessHost, api: Any, session: Any, tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(b"\0" * 4096)
    task = api.task.create("restore", "")
    put(host, f"/host_restore?session_id={session.handle}&task_id={task}", tmp_path / "backup")
    assert api.task.get_error_info(task)[0] == "RESTORE_SCRIPT_FAILED"


@pytest.mark.slow
def test_old_sessions_are_not_let_in_again(tmp_path: Path) -> None:
    with in_process(tmp_path) as host:
        session = login(host.url)
        path = tmp_path / "backup"
        assert get(host, "/host_backup", target=path)[0]
        assert put(host, "/host_restore", path)[0]
        host.wait_for_end()
    with in_process(tmp_path) as host:
        fresh = login(host.url)
        with pytest.raises(XenAPI.Failure) as failure:
            fresh.xenapi.session.get_record(session.handle)
        assert failure.value.details[0] == "HANDLE_INVALID"
