"""Files that are replaced together: a process that is killed at any step leaves all of them old, or all new.

Each step of the work is one call of the operating system; children are killed right before and right after every one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from domzero.engine.replacement import CERTIFICATE, DATABASE, KEPT, PASSWORDS, Replacement, ReplacementError
from domzero.engine.store import Batch, EncodedRow, Store, StoreError, hold

STEPS = ("link", "rename", "replace", "unlink", "mkdir", "fsync", "rmdir")
ForkServer = multiprocessing.get_context("forkserver")


def write_database(path: Path, name: str) -> None:
    store = Store(path)
    store.write(Batch((EncodedRow(1, "OpaqueRef:1", "lamp", 1, f'{{"name":"{name}"}}'),), ()))
    store.close()


def leave_database_open(path: Path, name: str) -> None:
    """A database whose latest change is in its write-ahead log, as a killed process leaves it."""
    store = Store(path)
    store.write(Batch((EncodedRow(1, "OpaqueRef:1", "lamp", 1, f'{{"name":"{name}"}}'),), ()))
    os.kill(os.getpid(), signal.SIGKILL)


def start(state: Path) -> None:
    in_child(leave_database_open, state / DATABASE, "old")
    (state / PASSWORDS).write_text("old")
    (state / CERTIFICATE).parent.mkdir()
    (state / CERTIFICATE).write_text("old")
    assert (state / f"{DATABASE}-wal").stat().st_size


def in_child(function: Any, *arguments: Any) -> int:
    child = ForkServer.Process(target=function, args=arguments, daemon=True)
    child.start()
    child.join(60)
    code = child.exitcode
    child.close()
    assert code is not None
    return code


def gather(state: Path) -> None:
    replacement = Replacement(state)
    replacement.begin()
    write_database(replacement.incoming / DATABASE, "new")
    (replacement.incoming / PASSWORDS).write_text("new")
    (replacement.incoming / CERTIFICATE).write_text("new")


def commit(state: Path) -> None:
    Replacement(state).commit((DATABASE, PASSWORDS, CERTIFICATE), "20260101T00:00:00Z-1")


def apply(state: Path) -> None:
    Replacement(state).apply()


def killed_at(work: Any, state: Path, number: int, before: bool) -> None:
    """Do the work with the operating system's calls counted, and end by SIGKILL at that one."""
    count = 0

    def counted(call: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **options)
            finally:
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    work(state)


def content(state: Path) -> set[str]:
    """What a start after this would find, in every file."""
    Replacement(state).apply()
    store = Store(state / DATABASE)
    name = next(store.rows()).fields["name"]
    assert store.damage() is None
    store.close()
    assert not list(state.glob("restore/*"))
    return {name, (state / PASSWORDS).read_text(), (state / CERTIFICATE).read_text()}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_any_step(tmp_path: Path, before: bool) -> None:
    found: list[set[str]] = []
    for work in (commit, apply):
        for number in range(1, 200):
            state = tmp_path / f"{work.__name__}-{number}"
            state.mkdir()
            start(state)
            gather(state)
            if work is apply:
                commit(state)
            code = in_child(killed_at, work, state, number, before)
            if work is apply:
                assert in_child(killed_at, apply, state, 3, before) in (0, -signal.SIGKILL)
            found.append(content(state))
            assert found[-1] in ({"old"}, {"new"})
            assert work is commit or found[-1] == {"new"}
            if code == 0:
                break
        else:
            raise AssertionError("the work has no end")
    assert {"old"} in found
    assert len(found) > 30


def test_what_was_replaced_is_kept_with_its_log(tmp_path: Path) -> None:
    start(tmp_path)
    gather(tmp_path)
    commit(tmp_path)
    assert content(tmp_path) == {"new"}
    aside = tmp_path / "before-restore" / "20260101T00:00:00Z-1"
    assert aside.parent.stat().st_mode & 0o077 == 0
    assert (aside / PASSWORDS).read_text() == "old"
    with sqlite3.connect(aside / DATABASE) as connection:
        assert connection.execute("SELECT fields FROM objects").fetchone() == ('{"name":"old"}',)
    connection.close()


def test_only_what_was_gathered_is_replaced(tmp_path: Path) -> None:
    start(tmp_path)
    gather(tmp_path)
    Replacement(tmp_path).commit((PASSWORDS,), "20260101T00:00:00Z-1")
    assert Replacement(tmp_path).apply() == (PASSWORDS,)
    assert (tmp_path / PASSWORDS).read_text() == "new"
    assert (tmp_path / CERTIFICATE).read_text() == "old"
    with pytest.raises(ValueError, match="cannot be replaced"):
        Replacement(tmp_path).commit(("../../etc/passwd",), "now")


def test_one_at_a_time(tmp_path: Path) -> None:
    gather(tmp_path)
    with pytest.raises(ReplacementError, match="going on"):
        Replacement(tmp_path).begin()
    commit(tmp_path)
    with pytest.raises(ReplacementError, match="waits"):
        Replacement(tmp_path).begin()


def test_an_unfinished_one_is_removed_by_the_next_start(tmp_path: Path) -> None:
    start(tmp_path)
    gather(tmp_path)
    assert content(tmp_path) == {"old"}


def test_scratch_is_removed_by_the_next_start(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "scratch-1").mkdir()
    (tmp_path / "scratch-1" / "copy").touch()
    assert Replacement(tmp_path).apply() == ()
    assert not (tmp_path / "scratch-1").exists()


def test_nothing_happens_while_the_files_are_in_use(tmp_path: Path) -> None:
    start(tmp_path)
    gather(tmp_path)
    commit(tmp_path)
    with hold(tmp_path / DATABASE), pytest.raises(StoreError, match="in use"):
        Replacement(tmp_path).apply()
    assert content(tmp_path) == {"new"}


def test_old_ones_are_kept_for_a_few_times(tmp_path: Path) -> None:
    start(tmp_path)
    for time in range(KEPT + 2):
        gather(tmp_path)
        Replacement(tmp_path).commit((PASSWORDS,), f"2026010{time}T00:00:00Z-1")
        Replacement(tmp_path).apply()
    names = sorted(path.name for path in (tmp_path / "before-restore").iterdir())
    assert names == [f"2026010{time}T00:00:00Z-1" for time in range(2, KEPT + 2)]
