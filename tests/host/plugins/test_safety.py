"""Which files are plugins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero.host.plugins.safety import UnsafeError, find


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "plugins"
    place.mkdir(mode=0o755)
    return place


def put(directory: Path, name: str, mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", ["a", "updater.py", "raid-0+1", "_x", "Z" * 128])
def test_names_of_plugins(directory: Path, name: str) -> None:
    assert put(directory, name) == find(directory, name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-x", "../plugins/a", "/bin/true", "a/b", "a\0", "a\n", "a b", "ä", "a;id", "Z" * 129],
)
def test_what_is_no_name(directory: Path, name: str) -> None:
    put(directory, "a")
    put(directory, ".hidden")
    put(directory, "-x")
    assert find(directory, name) is None


def test_what_is_no_plugin(directory: Path) -> None:
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe", 0o755)
    (directory / "link").symlink_to(put(directory, "real"))
    put(directory, "text", 0o644)
    for name in ("folder", "pipe", "link", "text", "nothing"):
        assert find(directory, name) is None, name
    assert find(directory / "nowhere", "a") is None
    (directory / "loop").symlink_to(directory / "loop")
    assert find(directory / "loop", "a") is None


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("which", [".", "..", "a"])
def test_what_others_can_write_is_not_run(directory: Path, which: str, mode: int) -> None:
    put(directory, "a")
    (directory / which).chmod(mode)
    with pytest.raises(UnsafeError, match="can be written by others"):
        find(directory, "a")


def test_a_sticky_directory_will_do_above_but_not_itself(directory: Path) -> None:
    plugin = put(directory, "a")
    directory.parent.chmod(0o1777)
    assert find(directory, "a") == plugin
    directory.chmod(0o1777)
    with pytest.raises(UnsafeError, match="can be written by others"):
        find(directory, "a")


@pytest.mark.root
@pytest.mark.parametrize("which", [".", "..", "a"])
def test_what_belongs_to_others_is_not_run(directory: Path, which: str) -> None:
    put(directory, "a")
    os.chown(directory / which, 65534, 65534)
    with pytest.raises(UnsafeError, match="belongs to another user"):
        find(directory, "a")


def test_a_link_to_the_directory_is_followed_and_what_it_leads_to_is_judged(directory: Path, tmp_path: Path) -> None:
    plugin = put(directory, "a")
    (tmp_path / "elsewhere").symlink_to(directory)
    assert find(tmp_path / "elsewhere", "a") == plugin
    directory.chmod(0o777)
    with pytest.raises(UnsafeError):
        find(tmp_path / "elsewhere", "a")
