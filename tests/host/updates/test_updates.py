"""Installing updates beside what is installed, and coming back from those that do not start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from domzero.host.updates import overlay
from domzero.host.updates.local import LocalUpdates
from domzero.host.updates.overlay import Current
from domzero.host.updates.protocol import BundleError, InstallError
from tests.host.updates.bundles import command, keys, made, trust, wheel

A, B = "7e2bd1d6-3a53-4b92-bbd5-3f1e9fa2d3c1", "c62c2e87-8f33-4d6f-9f6f-1b9ffbe0b9f0"


@pytest.fixture
def updates(tmp_path: Path) -> LocalUpdates:
    return LocalUpdates(tmp_path / "updates", running="0.9")


async def test_who_is_trusted(updates: LocalUpdates, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = keys(tmp_path)
    assert private.stat().st_mode & 0o777 == 0o600
    bundle = made(tmp_path, private, "1.0", wheel(tmp_path, "1.0"), requires="0.9")
    with pytest.raises(BundleError, match="no key is trusted"):
        await updates.inspect(bundle)
    trust(tmp_path, keys(tmp_path, "stranger")[1])
    (tmp_path / "updates" / "keys" / "broken.pem").write_text("no key")
    with pytest.raises(BundleError, match="no key that is trusted"):
        await updates.inspect(bundle)
    trust(tmp_path, public)
    found = await updates.inspect(bundle)
    assert (found.version, found.name_label, found.fits, found.guidance) == ("1.0", "a patch", True, ("restartXAPI",))
    assert command("check", "--key", public, bundle) == 0
    assert "domzero-1.0-py3-none-any.whl" in capsys.readouterr().out
    assert command("check", "--key", tmp_path / "stranger.pem", bundle) == 1
    assert command("check", "--key", private, bundle) == 1
    assert command("check", "--key", public, tmp_path / "none") == 1
    assert command("key", private, public) == 1  # neither is overwritten
    with bundle.open("r+b") as file:
        file.seek(3000)
        file.write(b"?")
    with pytest.raises(BundleError):
        await updates.inspect(bundle)


def test_a_version_gets_one_try(tmp_path: Path) -> None:
    for uuid in (A, B):
        overlay.site(tmp_path, uuid).mkdir(parents=True)
    assert overlay.choose(tmp_path) == ""
    overlay.write_current(tmp_path, Current(A))
    assert overlay.choose(tmp_path) == A
    # It did not say that it had started.
    assert overlay.choose(tmp_path) == ""
    assert overlay.read_taken_back(tmp_path) == [A]
    assert overlay.choose(tmp_path) == ""
    overlay.write_current(tmp_path, Current(B, A))
    assert [overlay.choose(tmp_path) for _ in range(3)] == [B, A, A]
    overlay.write_current(tmp_path, Current(B, A, proven=True))
    assert [overlay.choose(tmp_path) for _ in range(3)] == [B, B, B]
    shutil.rmtree(overlay.site(tmp_path, B))
    assert [overlay.choose(tmp_path) for _ in range(2)] == [A, A]


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"uuid": "../..", "before": "", "proven": true, "tries": 0}',
     '{"uuid": 7, "before": 7, "proven": true, "tries": "x"}'],
)  # fmt: skip
def test_what_makes_no_sense_is_no_update(tmp_path: Path, text: str) -> None:
    (tmp_path / overlay.CURRENT).write_text(text)
    (tmp_path / overlay.TAKEN_BACK).write_text(text)
    assert overlay.choose(tmp_path) == ""
    assert overlay.read_taken_back(tmp_path) == []


@pytest.mark.slow
async def test_installing(updates: LocalUpdates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys(tmp_path)
    trust(tmp_path, public)
    directory = tmp_path / "updates"
    more = wheel(tmp_path, "3", name="something")
    said = await updates.install(made(tmp_path, private, "1.0", wheel(tmp_path, "1.0"), more))
    assert "Successfully installed" in said
    current = overlay.read_current(directory)
    assert (current.before, current.proven, current.tries) == ("", False, 0)
    site = overlay.site(directory, current.uuid)
    assert {path.name for path in site.iterdir()} >= {"domzero", "something", "domzero-1.0.dist-info"}
    # What does not say that it is what it should be is not taken.
    for main in ("raise SystemExit(3)", "print('domzero 7')", "import no_such_module"):
        with pytest.raises(InstallError):
            await updates.install(made(tmp_path, private, "1.1", wheel(tmp_path, "1.1", main)))
    broken = tmp_path / "domzero-1.2-py3-none-any.whl"
    broken.write_bytes(b"no zip")
    with pytest.raises(InstallError):
        await updates.install(made(tmp_path, private, "1.2", broken))
    assert overlay.read_current(directory) == current
    assert [path.name for path in (directory / overlay.INSTALLED).iterdir()] == [current.uuid]
    # It starts well, and then another one comes.
    monkeypatch.setitem(os.environ, overlay.VARIABLE, overlay.choose(directory))
    started = await updates.started()
    assert (started.uuid, started.taken_back) == (current.uuid, ())
    assert overlay.read_current(directory).proven
    await updates.install(made(tmp_path, private, "1.3", wheel(tmp_path, "1.3")))
    assert overlay.read_current(directory).before == current.uuid
    assert site.is_dir()
