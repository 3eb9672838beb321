"""The agent's settings: an INI file with one section, every line of which may be left out."""

import configparser
import os
from typing import Mapping, NamedTuple, Tuple

from .desktop import SERVICES

FILE = "/etc/domzero-guest.conf"
KEPT = "/var/lib/domzero-guest/remote-desktop"
DEVICES = ("/dev/virtio-ports/org.domzero.guest.0", "/dev/xen/xenbus", "/proc/xen/xenbus")
"""Where the store may be, the first that is there counts: domzero's port, then Xen's own devices."""


class SettingsError(Exception):
    """A setting makes no sense; the text says which and why."""


class Settings(NamedTuple):
    """What can be chosen."""

    devices: Tuple[str, ...] = DEVICES
    remote_desktop: str = "auto"
    time_sync: bool = True


def load(path: str, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a file, which need not be there. `XENSTORED_PATH` goes before its device.

    Raises `SettingsError`.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        given = dict(parser["agent"]) if parser.has_section("agent") else {}
        time_sync = parser.getboolean("agent", "time-sync", fallback=True)
    except (configparser.Error, ValueError, OSError) as error:
        raise SettingsError("{}: {}".format(path, error)) from error
    unknown = sorted(set(given) - {"device", "remote-desktop", "time-sync"})
    if unknown:
        raise SettingsError("{}: there is no setting {}".format(path, unknown[0]))
    desktop = given.get("remote-desktop", "auto")
    if desktop not in SERVICES:
        raise SettingsError("{}: remote-desktop is one of {}".format(path, ", ".join(sorted(SERVICES))))
    device = environment.get("XENSTORED_PATH") or given.get("device")
    return Settings((device,) if device else DEVICES, desktop, time_sync)


def device(settings: Settings) -> str:
    """The path to open: the first that is there, else the first."""
    return next((path for path in settings.devices if os.path.exists(path)), settings.devices[0])
