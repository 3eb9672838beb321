"""Every setting of `domzero serve`, as rows: from them come the command line, the file, the environment and the docs.

What counts, first to last: the command line, the environment, the file, the default. The file is TOML with one key per
setting (`https = "127.0.0.1:8443"`); an unknown key in it is an error, since it is likely a misspelt one.
"""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_PORT = re.compile("[0-9]{1,5}")
_COUNT = re.compile("[1-9][0-9]{0,8}")
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")


class SettingsError(Exception):
    """A setting cannot be understood; the text names it and says what it takes."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen. Port 0 lets the system choose; an empty host means all addresses."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `parse` turns a text into a value and raises `ValueError`; None as default means “decided at start”."""

    name: str
    metavar: str
    help: str
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """As in the file."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment."""
        return "DOMZERO_" + self.name.upper()


def parse_endpoint(text: str) -> Endpoint:
    """`HOST:PORT`, `[IPv6]:PORT`, or a bare port for all addresses, old and new (an empty host)."""
    host, _, port = text.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError("an address and a port, such as 127.0.0.1:8443")
    return Endpoint(host.strip("[]"), int(port))


def parse_path(text: str) -> Path:
    """A path, made absolute: what is kept of it must mean the same wherever it is read."""
    if not text or "\0" in text:
        raise ValueError("a path")
    return Path(text).absolute()


def parse_address(text: str) -> str:
    """An IP address, in its usual form."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("an IP address") from None


def parse_switch(text: str) -> bool:
    """`true` or `false`."""
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("true or false")


def parse_count(text: str) -> int:
    """A whole number from 1."""
    if not _COUNT.fullmatch(text):
        raise ValueError("a whole number from 1")
    return int(text)


def parse_interfaces(text: str) -> frozenset[str]:
    """Names of network interfaces with commas between; `all` stands for all of them."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if not all(_INTERFACE.fullmatch(name) for name in names):
        raise ValueError("names of network interfaces with commas between, such as eth0,eth1")
    return names


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "hypervisor", "NAME", "what runs the machines: qemu, or sim for a simulation", "qemu", choices=("qemu", "sim")
    ),
    Setting(
        "https",
        "HOST:PORT",
        "where to serve HTTPS; by default port 443 where that is allowed and free, else 8443",
        parse=parse_endpoint,
    ),
    Setting(
        "http",
        "HOST:PORT",
        "serve plain HTTP too; off by default, since passwords would travel in the clear",
        parse=parse_endpoint,
    ),
    Setting("socket", "PATH", "the Unix socket for local clients, who are trusted as root", parse=parse_path),
    Setting("xenstore_socket", "PATH", "the Unix socket of xenstore, for programs trusted as root", parse=parse_path),
    Setting("state_dir", "DIR", "where everything that lasts is kept", parse=parse_path),
    Setting("runtime_dir", "DIR", "where sockets and process files of this boot are kept", parse=parse_path),
    Setting(
        "plugin_dir",
        "DIR",
        "where the programs for host.call_plugin are; by default plugins, below the state directory",
        parse=parse_path,
    ),
    Setting("root_password_file", "FILE", "take root's password from the first line of this file", parse=parse_path),
    Setting("pam_service", "NAME", "let the people of this machine log in by PAM, under this service name", ""),
    Setting(
        "accel",
        "NAME",
        "how QEMU runs guests; auto uses KVM where a probe shows that it works",
        "auto",
        choices=("auto", "kvm", "tcg"),
    ),
    Setting(
        "address",
        "ADDRESS",
        "the IP address by which others reach this host; by default the one of the default route",
        parse=parse_address,
    ),
    Setting(
        "network",
        "NAME",
        "how machines reach networks; auto takes Linux bridges where root runs the daemon, else QEMU's user mode",
        "auto",
        choices=("auto", "bridge", "openvswitch", "user"),
    ),
    Setting(
        "manage_interfaces",
        "NAMES",
        "the host's own interfaces that domzero may configure, with commas between, or all; by default it leaves them "
        "alone",
        parse=parse_interfaces,
    ),
    Setting(
        "management_probation",
        "SECONDS",
        "how long a change of the management interface may take to prove that the host can be reached, before it is "
        "taken back",
        60,
        parse_count,
    ),
    Setting("guest_image_dir", "DIR", "where the Tiny Linux kernel packages were unpacked", parse=parse_path),
    Setting(
        "allow_power_off", "SWITCH", "let host.shutdown and host.reboot really end this machine", False, parse_switch
    ),
    Setting(
        "host_console",
        "SWITCH",
        "show pool-admins a login prompt of this host as the control domain's console, which takes root's rights; by "
        "default only a simulated host has one",
        parse=parse_switch,
    ),
    Setting(
        "max_sessions",
        "COUNT",
        "how many sessions may be open before the least recently active one ends",
        200,
        parse_count,
    ),
    Setting("log_level", "LEVEL", "how much to log", "info", choices=("debug", "info", "warning", "error")),
)


class Settings(Mapping[str, Any]):
    """The values that count, by setting name; also as attributes of the same names."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {setting.name: values.get(setting.name, setting.default) for setting in SETTINGS}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Put every setting, and `--config`, on a command line."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="a TOML file with settings")
    for setting in SETTINGS:
        parser.add_argument(setting.flag, dest=setting.name, metavar=setting.metavar, help=_help(setting))


def resolve(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings after looking everywhere. Raises `SettingsError`."""
    values: dict[str, Any] = {}
    if arguments.config is not None:
        values |= read_file(arguments.config)
    for setting in SETTINGS:
        if setting.variable in environment:
            values[setting.name] = convert(setting, environment[setting.variable], setting.variable)
        given = getattr(arguments, setting.name)
        if given is not None:
            values[setting.name] = convert(setting, given, setting.flag)
    return Settings(values)


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. Raises `SettingsError` when it cannot be read or holds something unknown."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    known = {setting.key: setting for setting in SETTINGS}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise SettingsError(f"{path}: no such setting: {', '.join(unknown)}")
    for key, value in content.items():
        if not isinstance(value, str | int):
            raise SettingsError(f"{path}: {key}: {value!r} is no text, number or switch")
    return {known[key].name: convert(known[key], _text(value), f"{path}: {key}") for key, value in content.items()}


def convert(setting: Setting, text: str, where: str) -> Any:
    """The value that a text stands for. Raises `SettingsError` naming `where` it was given."""
    if setting.choices and text not in setting.choices:
        raise SettingsError(f"{where}: {text!r} is not one of {', '.join(setting.choices)}")
    try:
        return setting.parse(text)
    except ValueError as error:
        raise SettingsError(f"{where}: {text!r} is not {error}") from error


def documentation(settings: Sequence[Setting] = SETTINGS) -> str:
    """The table of all settings, for the documents."""
    lines = ["| command line | file | environment | default | meaning |", "|---|---|---|---|---|"]
    for setting in settings:
        default = "" if setting.default in (None, "") else f"`{_text(setting.default)}`"
        row = (
            f"`{setting.flag} {setting.metavar}`",
            f"`{setting.key}`",
            f"`{setting.variable}`",
            default,
            setting.help,
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _help(setting: Setting) -> str:
    default = "" if setting.default in (None, "") else f" (default: {_text(setting.default)})"
    return setting.help + default


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
