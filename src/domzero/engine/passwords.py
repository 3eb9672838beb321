"""Passwords of local accounts: argon2id hashes in one file that only its owner can read, outside the database.

Nothing here is reachable through the API. Hashing takes tens of milliseconds of processor and many megabytes, so it
runs in a few threads of its own and never on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from domzero.durable import replace

Result = TypeVar("Result")

THREADS = 2
"""Hashes computed at the same time; further ones wait their turn."""

LONGEST = 1024
"""Characters of a password; longer ones are refused unread."""

UNFIT = f"a password has between 1 and {LONGEST} characters"


class Authenticator(Protocol):
    """Something that knows whether a password is the right one."""

    async def verify(self, name: str, password: str) -> bool:
        """Whether it is; an unknown name is like a wrong password, in what is answered and in how long it takes."""
        ...


class PasswordFileError(Exception):
    """A file of hashes or with a password cannot be read, or says what it should not; the text names the file."""


class Passwords:
    """The hashes of one host, by account name. One process at a time may have the file.

    Raises `PasswordFileError` when there is a file but not a good one.
    """

    def __init__(self, path: Path, hasher: PasswordHasher | None = None) -> None:
        self._path = path
        self._hasher = PasswordHasher() if hasher is None else hasher
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._writing = asyncio.Lock()
        self._hashes = hashes_in(path)
        # Verified against when the account is unknown, so that its absence cannot be told by the time it takes.
        self._decoy: asyncio.Future[str] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    async def verify(self, name: str, password: str) -> bool:
        """Whether this is the account's password; false for an account without one."""
        known = self._hashes.get(name)
        if len(password) > LONGEST:
            return False
        if self._decoy is None:
            # From the first login on, whoever that is, it is being made.
            self._decoy = asyncio.ensure_future(self._threaded(self._hasher.hash, secrets.token_urlsafe()))
        hashed = await asyncio.shield(self._decoy) if known is None else known
        right = await self._threaded(self._matches, hashed, password)
        return right and known is not None

    async def set(self, name: str, password: str) -> None:
        """Store a password, on disk when this returns. Raises `ValueError` for one that is empty or too long."""
        if not _is_fit(password):
            raise ValueError(UNFIT)
        hashed = await self._threaded(self._hasher.hash, password)
        async with self._writing:
            await self._replace({**self._hashes, name: hashed})

    async def remove(self, name: str) -> None:
        """Forget an account's password; none is no error."""
        async with self._writing:
            await self._replace({other: hashed for other, hashed in self._hashes.items() if other != name})

    async def ensure(self, name: str, wanted: str | None = None) -> str | None:
        """Give the account the wanted password unless that is the one it has; without one, a random one if it has none.

        Returns a random one for being shown once, else None. Raises `ValueError` like `set`. Who calls this knows the
        password: unlike `verify` it takes no care that an unknown account cannot be told, and so is quicker.
        """
        known = self._hashes.get(name)
        if known is not None and (wanted is None or await self._threaded(self._matches, known, wanted)):
            return None
        password = secrets.token_urlsafe(15) if wanted is None else wanted
        await self.set(name, password)
        return password if wanted is None else None

    def close(self) -> None:
        """End the threads after what they are doing."""
        self._threads.shutdown(wait=True)

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _replace(self, hashes: dict[str, str]) -> None:
        await self._threaded(_save, self._path, hashes)
        self._hashes = hashes

    async def _threaded(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def password_in(path: Path) -> str:
    """The password in the first line of a file that an administrator wrote. Blocks. Raises `PasswordFileError`."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise PasswordFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PasswordFileError(f"{path} is no text: {error.reason}") from error
    if not lines or not lines[0]:
        raise PasswordFileError(f"{path} has no password in its first line")
    if not _is_fit(lines[0]):
        raise PasswordFileError(f"{path}: {UNFIT}")
    return lines[0]


def _is_fit(password: str) -> bool:
    return 0 < len(password) <= LONGEST


def hashes_in(path: Path) -> dict[str, str]:
    """The hashes in a file by account name; none where there is no file. Blocks. Raises `PasswordFileError`."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise PasswordFileError(f"{path}: {problem}") from problem
    if not isinstance(content, dict) or not all(isinstance(hashed, str) for hashed in content.values()):
        raise PasswordFileError(f"{path}: not a table of names and hashes")
    return content


def _save(path: Path, hashes: dict[str, str]) -> None:
    replace(path, json.dumps(hashes, indent=1, sort_keys=True).encode())
