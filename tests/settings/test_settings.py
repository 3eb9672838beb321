"""Settings come from four places, the nearest to the person first."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from domzero import paths
from domzero.settings import (
    SETTINGS,
    Endpoint,
    Settings,
    SettingsError,
    add_arguments,
    documentation,
    parse_endpoint,
    read_file,
    resolve,
)


def settings(*arguments: str, environment: dict[str, str] | None = None) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return resolve(parser.parse_args(arguments), environment or {})


def test_defaults_need_no_argument() -> None:
    chosen = settings()
    assert (chosen.hypervisor, chosen.accel, chosen.https, chosen.allow_power_off) == ("qemu", "auto", None, False)


def test_command_line_before_environment_before_file(tmp_path: Path) -> None:
    file = tmp_path / "domzero.toml"
    file.write_text('hypervisor = "sim"\naccel = "tcg"\nallow-power-off = true\nmax-sessions = 5\n')
    chosen = settings(
        "--config", str(file), "--accel", "kvm", environment={"DOMZERO_ACCEL": "auto", "DOMZERO_MAX_SESSIONS": "7"}
    )
    assert (chosen.hypervisor, chosen.accel, chosen.max_sessions, chosen.allow_power_off) == ("sim", "kvm", 7, True)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:443", Endpoint("127.0.0.1", 443)),
        ("[::1]:0", Endpoint("::1", 0)),
        ("8443", Endpoint("", 8443)),
        ("host.example:1", Endpoint("host.example", 1)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "arguments",
    [
        ("--https", "nowhere"),
        ("--https", "host:65536"),
        ("--hypervisor", "xen"),
        ("--allow-power-off", "perhaps"),
        ("--max-sessions", "0"),
        ("--max-sessions", "²"),
        ("--max-sessions", "1" * 5000),
        ("--https", "host:٣"),
        ("--https", "host:" + "1" * 5000),
        ("--https", "host:"),
        ("--https", ""),
        ("--state-dir", ""),
        ("--address", "host.example"),
        ("--address", "256.1.1.1"),
        ("--address", ""),
        ("--socket", "a\0b"),
    ],
)
def test_what_cannot_be_understood_names_the_setting(arguments: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match=arguments[0]):
        settings(*arguments)


@pytest.mark.parametrize(
    "content",
    [
        "hypervisr = 'sim'", "not toml", "https = 'nowhere'", "address = ['a']", "[https]", "max-sessions = 2.5",
        "state-dir = ''", 'state-dir = "a\\u0000"',
    ],
)  # fmt: skip
def test_bad_files_name_the_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "domzero.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"domzero\.toml"):
        read_file(file)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "domzero.toml"
    file.write_bytes(b"address = '\xff'")
    with pytest.raises(SettingsError, match=r"domzero\.toml"):
        read_file(file)


def test_paths_mean_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = settings("--state-dir", "state", environment={"DOMZERO_SOCKET": "a/../socket"})
    assert (chosen.state_dir, chosen.socket) == (tmp_path / "state", tmp_path / "a/../socket")


@pytest.mark.parametrize(
    ("environment", "state", "runtime"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/share/domzero", "/home/a/.local/share/domzero/run"),
        ({"HOME": "/home/a", "XDG_DATA_HOME": "/data"}, "/data/domzero", "/data/domzero/run"),
        ({"HOME": "/h", "XDG_DATA_HOME": "", "XDG_RUNTIME_DIR": "/run/1"}, "/h/.local/share/domzero", "/run/1/domzero"),
        ({"HOME": "/h", "XDG_RUNTIME_DIR": "run"}, "/h/.local/share/domzero", "/h/.local/share/domzero/run"),
        ({"HOME": "/h", "XDG_DATA_HOME": "data"}, "/h/.local/share/domzero", "/h/.local/share/domzero/run"),
    ],
)
def test_places_of_a_person(environment: dict[str, str], state: str, runtime: str) -> None:
    found = paths.state_dir(environment, root=False)
    assert found == Path(state)
    assert paths.runtime_dir(found, environment, root=False) == Path(runtime)


def test_places_of_a_service() -> None:
    assert paths.state_dir({"HOME": "/root", "XDG_DATA_HOME": "/data"}, root=True) == Path("/var/lib/domzero")
    assert paths.runtime_dir(Path("/anywhere"), {"XDG_RUNTIME_DIR": "/run/user/0"}, root=True) == Path("/run/domzero")


def test_every_setting_is_documented() -> None:
    table = documentation()
    for setting in SETTINGS:
        assert f"`{setting.flag} " in table
