"""Update bundles: whatever is changed in one is noticed, and nothing is believed before the signature is."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as some

from domzero.wire import bundle
from domzero.wire.bundle import BundleError, Manifest, Wheel

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
CONTENT = b"wheel" * 1000
NAME = "domzero-1.2.3-py3-none-any.whl"
MANIFEST = Manifest(
    "7e2bd1d6-3a53-4b92-bbd5-3f1e9fa2d3c1", "it", "what it does", "1.2.3", "1.2.*", ("restartXAPI",),
    (Wheel(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),),
)  # fmt: skip


def tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, form: int = tarfile.USTAR_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def signed(manifest: bytes, *members: tuple[str, bytes], key: Ed25519PrivateKey = KEY, context: bytes = b"") -> bytes:
    signature = key.sign((context or bundle.CONTEXT) + manifest)
    return tar((bundle.MANIFEST, manifest), (bundle.SIGNATURE, signature), *members)


def read(data: bytes, *keys: Ed25519PrivateKey) -> Manifest:
    source = io.BytesIO(data)
    manifest = bundle.read_manifest(source, [key.public_key() for key in keys or (KEY,)])
    for wheel, content in bundle.read_wheels(source, manifest):
        assert len(b"".join(content)) == wheel.size
    return manifest


GOOD = signed(bundle.encode(MANIFEST), (NAME, CONTENT))


def test_what_is_written_is_read() -> None:
    assert read(GOOD) == MANIFEST
    assert read(GOOD, OTHER, KEY) == MANIFEST
    target = io.BytesIO()
    manifest = bundle.encode(MANIFEST)
    bundle.write(
        target, manifest, KEY.sign(bundle.CONTEXT + manifest), [(NAME, io.BytesIO(CONTENT), len(CONTENT))]
    )  # fmt: skip
    assert read(target.getvalue()) == MANIFEST


def test_openssl_agrees(tmp_path: Path) -> None:
    """A bundle made without any of our code."""

    def run(*words: str) -> None:
        subprocess.run(words, check=True, cwd=tmp_path, capture_output=True)

    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    run("openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    (tmp_path / bundle.MANIFEST).write_bytes(bundle.encode(MANIFEST))
    (tmp_path / "signed").write_bytes(bundle.CONTEXT + bundle.encode(MANIFEST))
    run("openssl", "pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "signed", "-out", bundle.SIGNATURE)
    (tmp_path / NAME).write_bytes(CONTENT)
    run("tar", "--format=ustar", "-cf", "it.bundle", bundle.MANIFEST, bundle.SIGNATURE, NAME)
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key: Any = load_pem_public_key((tmp_path / "public.pem").read_bytes())
    with (tmp_path / "it.bundle").open("rb") as source:
        assert bundle.read_manifest(source, [key]) == MANIFEST
        assert [b"".join(content) for _, content in bundle.read_wheels(source, MANIFEST)] == [CONTENT]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 4096, b"PK\3\4" * 200, GOOD[:100], GOOD[:1500], GOOD[:2500],
        signed(bundle.encode(MANIFEST), (NAME, CONTENT), key=OTHER),
        signed(bundle.encode(MANIFEST), (NAME, CONTENT), context=b"something else\n"),
        tar((bundle.MANIFEST, bundle.encode(MANIFEST)), (NAME, CONTENT)),
        tar((bundle.MANIFEST, bundle.encode(MANIFEST)), (bundle.SIGNATURE, b""), (NAME, CONTENT)),
        tar((bundle.MANIFEST, b"x" * (bundle.LARGEST_MANIFEST + 1)), (bundle.SIGNATURE, b"s" * 64)),
        signed(bundle.encode(MANIFEST), (NAME, CONTENT[:-1] + b"x")),
        signed(bundle.encode(MANIFEST), (NAME, CONTENT + b"x")),
        signed(bundle.encode(MANIFEST), ("../" + NAME, CONTENT)),
        signed(bundle.encode(MANIFEST), (NAME, CONTENT), ("more", b"x")),
        signed(bundle.encode(MANIFEST)),
        signed(b"{}"), signed(b"[" * 50_000), signed(b"\xff"), signed(b"null"),
    ],
)  # fmt: skip
def test_no_bundles(data: bytes) -> None:
    with pytest.raises(BundleError):
        read(data)


def test_no_key_no_trust() -> None:
    with pytest.raises(BundleError, match="no key is trusted"):
        bundle.read_manifest(io.BytesIO(GOOD), [])


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"S", b"x", b"L"]
)
def test_only_plain_files(kind: bytes) -> None:
    with pytest.raises(BundleError):
        read(tar((bundle.MANIFEST, bundle.encode(MANIFEST)), (bundle.SIGNATURE, b"s" * 64), kind=kind))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda m: m.update(format=2),
    "no uuid": lambda m: m.update(uuid="../../etc/passwd"),
    "no version": lambda m: m.update(version="1/2"),
    "no name": lambda m: m.update(name_label=7),
    "a long name": lambda m: m.update(name_label="x" * 1001),
    "odd requirement": lambda m: m.update(required_version="1.*.*"),
    "odd guidance": lambda m: m.update(after_apply_guidance=["explode"]),
    "no wheels": lambda m: m.update(wheels=[]),
    "many wheels": lambda m: m.update(wheels=m["wheels"] * 33),
    "twice": lambda m: m.update(wheels=m["wheels"] * 2),
    "a path": lambda m: m["wheels"][0].update(name="../domzero-1.2.3-py3-none-any.whl"),
    "an option": lambda m: m["wheels"][0].update(name="--index-url=http-1.2.3-py3-none-any.whl"),
    "no wheel": lambda m: m["wheels"][0].update(name="domzero-1.2.3.tar.gz"),
    "another package": lambda m: m["wheels"][0].update(name="other-1.2.3-py3-none-any.whl"),
    "another version": lambda m: m["wheels"][0].update(name="domzero-1.2.4-py3-none-any.whl"),
    "no size": lambda m: m["wheels"][0].update(size=True),
    "a huge size": lambda m: m["wheels"][0].update(size=1 << 60),
    "a negative size": lambda m: m["wheels"][0].update(size=-1),
    "no digest": lambda m: m["wheels"][0].update(sha256="x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_manifests_that_are_signed_and_nonsense(change: str) -> None:
    manifest = json.loads(bundle.encode(MANIFEST))
    CHANGES[change](manifest)
    with pytest.raises(BundleError):
        read(signed(json.dumps(manifest).encode(), (NAME, CONTENT)))


@given(some.integers(0, len(GOOD) - 1), some.integers(1, 255))
def test_no_byte_that_counts_can_be_changed(position: int, change: int) -> None:
    """What is found is the manifest or nothing. (Fields of tar's headers that nobody looks at may differ.)"""
    data = bytearray(GOOD)
    data[position] ^= change
    try:
        found = read(bytes(data))
    except BundleError:
        return
    assert found == MANIFEST


@pytest.mark.parametrize(
    ("required", "version", "fits"),
    [
        ("", "1.2.3", True), ("1.2.3", "1.2.3", True), ("1.2.3", "1.2.4", False), ("1.2.*", "1.2.9", True),
        ("1.2.*", "1.2", True), ("1.2.*", "1.20", False), ("1.2.*", "1.3.0", False),
    ],
)  # fmt: skip
def test_what_it_is_for(required: str, version: str, fits: bool) -> None:
    manifest = Manifest(MANIFEST.uuid, "", "", "1.2.3", required, (), MANIFEST.wheels)
    assert manifest.fits(version) is fits


VALUES = some.one_of(
    some.none(), some.integers(), some.text(max_size=5), some.just([]), some.just([[]]), some.just([{}]),
    some.just(["restartXAPI"]), some.just([{"name": "domzero-1.0.0-py3-none-any.whl", "size": 1, "sha256": "0" * 64}]),
    some.sampled_from(["1.0.0", "1.0.*", "b1f2c6c4-4f0e-4b7f-9f67-4f4f0a2b3c4d"]),
)  # fmt: skip
FIELDS = ("uuid", "name_label", "name_description", "version", "required_version", "after_apply_guidance", "wheels")
MANIFESTS = some.fixed_dictionaries(dict.fromkeys(FIELDS, VALUES)).map(
    lambda fields: json.dumps({"format": bundle.FORMAT, **fields}).encode()
)


@given(some.one_of(some.binary(max_size=60), MANIFESTS))
def test_no_manifest_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert bundle.decode(data).wheels
