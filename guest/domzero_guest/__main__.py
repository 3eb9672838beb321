"""Starts the agent: `python3 -m domzero_guest [--config FILE]`."""

import argparse
import logging
import signal
import sys
from typing import Any, List, Optional

from . import VERSION, settings
from .agent import Agent
from .desktop import Desktop
from .system import System


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve until SIGTERM or SIGINT; the code to end with."""
    parser = argparse.ArgumentParser(prog="domzero-guest", description="The guest agent of domzero.")
    parser.add_argument("--config", default=settings.FILE, help="the settings' file (default: %(default)s)")
    parser.add_argument("--version", action="version", version=VERSION)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        chosen = settings.load(given.config)
    except settings.SettingsError as error:
        logging.error("%s", error)
        return 2
    system = System()
    agent = Agent(chosen, system, Desktop(system.run, chosen.remote_desktop, settings.KEPT))

    def stop(*_: Any) -> None:
        agent.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    agent.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
