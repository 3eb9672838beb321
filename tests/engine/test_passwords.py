"""The file of hashes: who may read it, what survives, and what is never in it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.engine.passwords import LONGEST, PasswordFileError, Passwords, password_in
from tests.engine.toy_calls import CHEAP


@pytest.fixture
async def passwords(tmp_path: Path) -> AsyncIterator[Passwords]:
    made = Passwords(tmp_path / "passwords.json", CHEAP)
    yield made
    made.close()


async def test_password_is_kept_as_a_hash_that_only_the_owner_reads(passwords: Passwords, tmp_path: Path) -> None:
    await passwords.set("root", "swordfish")
    path = tmp_path / "passwords.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "swordfish" not in path.read_text()
    assert json.loads(path.read_text())["root"].startswith("$argon2id$")
    assert os.listdir(tmp_path) == ["passwords.json"]


async def test_verifying(passwords: Passwords) -> None:
    await passwords.set("root", "swordfish")
    assert await passwords.verify("root", "swordfish")
    for name, password in (("root", "sword"), ("root", ""), ("ann", "swordfish"), ("root", "x" * (LONGEST + 1))):
        assert not await passwords.verify(name, password)


async def test_another_start_knows_the_same_passwords(passwords: Passwords, tmp_path: Path) -> None:
    await passwords.set("root", "one")
    await passwords.set("ann", "two")
    await passwords.set("root", "three")
    await passwords.remove("ann")
    await passwords.remove("nobody")
    again = Passwords(tmp_path / "passwords.json", CHEAP)
    assert ("root" in again, "ann" in again) == (True, False)
    assert await again.verify("root", "three")
    assert not await again.verify("root", "one")
    again.close()


async def test_first_password_is_made_up_once(passwords: Passwords) -> None:
    made_up = await passwords.ensure("root")
    assert made_up is not None
    assert len(made_up) >= 20
    assert await passwords.verify("root", made_up)
    assert await passwords.ensure("root") is None


async def test_a_wanted_password_replaces_another_and_is_hashed_once(passwords: Passwords, tmp_path: Path) -> None:
    assert await passwords.ensure("root", "one") is None
    first = (tmp_path / "passwords.json").read_text()
    assert await passwords.ensure("root", "one") is None
    assert await passwords.ensure("root") is None
    assert (tmp_path / "passwords.json").read_text() == first
    assert await passwords.ensure("root", "two") is None
    assert await passwords.verify("root", "two")
    assert not await passwords.verify("root", "one")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\n", "has no password in its first line"),
        (b"\xff\n", "is no text"),
        (b"x" * (LONGEST + 1), f"a password has between 1 and {LONGEST} characters"),
    ],
)
def test_files_without_a_fit_password(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PasswordFileError, match=said) as raised:
        password_in(path)
    assert str(raised.value).startswith(f"{path}")


def test_the_first_line_of_a_file_is_the_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" sword fish \nanything\n")
    assert password_in(tmp_path / "password") == " sword fish "


@pytest.mark.parametrize("password", ["", "x" * (LONGEST + 1)])
async def test_passwords_have_some_length(passwords: Passwords, password: str) -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        await passwords.set("root", password)
    assert "root" not in passwords


@pytest.mark.parametrize("content", ["", "[]", '{"root": 7}', "\xff"])
def test_damaged_file_is_said_to_be(tmp_path: Path, content: str) -> None:
    path = tmp_path / "passwords.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(PasswordFileError, match=r"passwords\.json"):
        Passwords(path, CHEAP)


async def test_hash_that_is_none_fits_no_password(tmp_path: Path) -> None:
    path = tmp_path / "passwords.json"
    path.write_text('{"root": "nonsense"}')
    passwords = Passwords(path, CHEAP)
    assert not await passwords.verify("root", "nonsense")
    passwords.close()
