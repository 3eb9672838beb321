"""What repositories say of their files."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from domzero.toolstack.vm.install.checksums import has_digest, published
from domzero.toolstack.vm.install.padding import without_padding

A, B = "a" * 64, "b" * 32


@pytest.mark.parametrize(
    ("text", "path", "below", "found"),
    [
        (f"{A}  ./netboot/linux\n", "images/netboot/linux", "images/", ("sha256", A)),
        (f"{A} *netboot/linux\n", "images/netboot/linux", "images/", ("sha256", A)),
        (f"{B}  x\n{A}  x\n", "x", "", ("sha256", A)),
        (f"HASH SHA256 {A}  boot/x86_64/loader/linux\n", "boot/x86_64/loader/linux", "", ("sha256", A)),
        (f"[checksums]\nimages/x = sha256:{A}\n", "images/x", "", ("sha256", A)),
        (f"[checksums]\nimages/x = md5:{B}\n[checksums]\n", "images/x", "", ("md5", B)),
        (f"[checksums]\nimages/x = sha256:{B}\n", "images/x", "", None),
        (f"[checksums]\nimages/x = rot13:{B}\n", "images/x", "", None),
        ("[checksums]\nno ini file at all", "images/x", "", None),
        ("[checksums]\n[", "images/x", "", None),
        (f"{A}  y\n", "x", "", None),
        ("a" * 50 + "  x\n", "x", "", None),
        ("", "x", "", None),
    ],
)
def test_listings(text: str, path: str, below: str, found: tuple[str, str] | None) -> None:
    assert published(text, path, below) == found


SIZE = 1 << 20


@pytest.mark.parametrize(
    "hostile",
    [
        "[checksums]\nx" + " " * SIZE + "y\n", "[checksums]\n" + "=" * SIZE, "[checksums]\n" + "a=b\n" * (SIZE >> 4),
        "[" * SIZE + "[checksums]", "a" * SIZE, "a" * 128 + " " * SIZE + "\0", "HASH " * (SIZE >> 3), "\n" * SIZE,
    ],
)  # fmt: skip
def test_a_hostile_listing_costs_no_more_than_its_length(hostile: str) -> None:
    """Four times as much is taken of a listing. Work that grows with the square would be hours."""
    begun = time.process_time()
    assert published(hostile, "images/x") is None
    assert time.process_time() - begun < 5


def test_digests_are_compared_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(algorithm, b"content").hexdigest()
        assert has_digest(file, (algorithm, digest))
        assert not has_digest(file, (algorithm, digest[::-1]))


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 511 + b"\0", b"y" * 512, b"z" * 1500 + b"\0\0", b"\0" * 600])
def test_zeros_that_fill_the_last_block_are_cut_off(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    padded = content + bytes(-len(content) % 512)
    file.write_bytes(padded)
    without_padding(file, ("sha256", hashlib.sha256(b"something else").hexdigest()))
    assert file.read_bytes() == padded
    without_padding(file, ("sha256", hashlib.sha256(content).hexdigest()))
    assert file.read_bytes() == content
