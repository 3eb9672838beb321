"""Remote desktop, switched by the host: the service, and the firewall with it."""

import logging
import os
from typing import Optional

from . import firewall
from .commands import Run, succeeded

log = logging.getLogger(__name__)

XRDP, GNOME = "xrdp.service", "gnome-remote-desktop.service"
SERVICES = {"xrdp": (XRDP,), "gnome-remote-desktop": (GNOME,), "auto": (XRDP, GNOME), "off": ()}
"""The setting's values: which units may be used, the first that is installed counts."""
BRINGS_BACK = {XRDP: "xrdp-sesman.service"}
"""Units that a boot starts by themselves and the service with them, which they are bound to."""


class Desktop:
    """The remote desktop of this guest. `kept` is a file that says that the port was opened by us."""

    def __init__(self, run: Run, choice: str, kept: str) -> None:
        self._run = run
        self._units = SERVICES[choice]
        self._kept = kept

    @property
    def is_offered(self) -> bool:
        """Whether the host may switch it at all."""
        return bool(self._units)

    def is_on(self) -> bool:
        """Whether the service runs."""
        unit = self._unit()
        return unit is not None and self._run(("systemctl", "is-active", "--quiet", unit)).code == 0

    def restore(self) -> None:
        """After a boot: let the port in again, if it was let in by us and the service is on."""
        if os.path.exists(self._kept) and self.is_on():
            firewall.open_port(self._run)

    def turn(self, on: bool) -> None:
        """Start the service, also at further boots, or stop it; what fails is logged, and seen in `is_on`."""
        unit = self._unit()
        if unit is None:
            log.error("there is no remote desktop to switch: neither xrdp nor gnome-remote-desktop is installed")
            return
        if unit == GNOME:
            succeeded(self._run, "grdctl", "--system", "rdp", "enable" if on else "disable")
        if on:
            if succeeded(self._run, "systemctl", "enable", "--now", unit):
                firewall.open_port(self._run)
                self._keep()
        else:
            succeeded(self._run, "systemctl", "disable", "--now", unit)
            other = BRINGS_BACK.get(unit)
            if other is not None and self._run(("systemctl", "is-enabled", "--quiet", other)).code == 0:
                succeeded(self._run, "systemctl", "disable", other)
            firewall.close_port(self._run)
            self._forget()

    def _unit(self) -> Optional[str]:
        return next((unit for unit in self._units if self._run(("systemctl", "cat", unit)).code == 0), None)

    def _keep(self) -> None:
        try:
            os.makedirs(os.path.dirname(self._kept), mode=0o755, exist_ok=True)
            with open(self._kept, "w"):
                log.info("remote desktop is on")
        except OSError as error:
            log.error("%s cannot be written: %s", self._kept, error.strerror)

    def _forget(self) -> None:
        try:
            os.unlink(self._kept)
        except FileNotFoundError:
            log.debug("the port was not opened by us")
        log.info("remote desktop is off")
