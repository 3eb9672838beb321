"""Whatever is sent as a backup: the files of a backup come of it, or an error that says so, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as some

from domzero.engine.errors import ApiError
from domzero.engine.exchange import PeerGoneError
from domzero.toolstack.host.restore import BackupError, receive

FILES = {"state.db": b"rows" * 300, "passwords.json": b"{}", "tls/server.pem": b"-----BEGIN"}
PUT_DOWN = {"state.db": "uploaded.db", "passwords.json": "passwords.json", "tls/server.pem": "tls/server.pem"}


def archive() -> bytes:
    listed = [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    ]
    manifest = json.dumps({"product_brand": "domzero", "format": "1", "files": listed}).encode()
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in {"manifest.json": manifest, **FILES}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return packed.getvalue()


GOOD = archive()


class Sender:
    """A peer that sends so many bytes and then stops."""

    def __init__(self, content: bytes) -> None:
        self._content = BytesIO(content)

    async def read(self, limit: int = 1 << 20) -> bytes:
        return self._content.read(min(limit, 1000))

    async def read_exactly(self, size: int) -> bytes:
        data = self._content.read(size)
        if len(data) != size:
            raise PeerGoneError("the body ended")
        return data


def outcome(content: bytes) -> dict[str, bytes] | None:
    """The files that came of it; None where it was refused."""
    nobody: Any = SimpleNamespace(task=SimpleNamespace(set_progress=lambda _: None))
    sender: Any = Sender(content)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "incoming")
        (place / "tls").mkdir(parents=True)
        refused = False
        try:
            asyncio.run(receive(nobody, sender, place))
        except BackupError:
            refused = True
        except ApiError as error:
            refused = error.code == "RESTORE_INCOMPATIBLE_VERSION"
        found = {str(path.relative_to(place)): path for path in Path(name).rglob("*") if path.is_file()}
        assert found.keys() <= set(PUT_DOWN.values())
        return None if refused else {name: path.read_bytes() for name, path in found.items()}


WHOLE = {PUT_DOWN[name]: content for name, content in FILES.items()}


def test_a_good_one_is_taken() -> None:
    assert outcome(GOOD) == WHOLE


@settings(max_examples=40, deadline=None)
@given(
    some.lists(some.tuples(some.integers(0, len(GOOD) - 1), some.integers(0, 255)), max_size=3),
    some.integers(0, len(GOOD)),
)
@example([(512 + 10, 0xFF)], len(GOOD))
@example([(124, 0x80)], len(GOOD))
def test_damaged_ones(changes: list[tuple[int, int]], size: int) -> None:
    content = bytearray(GOOD)
    for at, value in changes:
        content[at] = value
    assert outcome(bytes(content[:size])) in (None, WHOLE)


@settings(max_examples=20, deadline=None)
@given(some.binary(max_size=1500))
def test_rubbish(content: bytes) -> None:
    assert outcome(content) is None


@settings(max_examples=20, deadline=None)
@given(some.lists(some.none() | some.integers() | some.lists(some.text(max_size=5), max_size=2), max_size=5))
def test_odd_manifests(listed: object) -> None:
    manifest = json.dumps({"product_brand": "domzero", "format": "1", "files": listed}).encode()
    member = tarfile.TarInfo("manifest.json")
    member.size = len(manifest)
    head = member.tobuf(tarfile.USTAR_FORMAT)
    assert outcome(head + manifest + bytes(-len(manifest) % 512) + GOOD[1024:]) is None
