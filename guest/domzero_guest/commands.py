"""Other programs of the guest: the only place where they are started. Nothing of it ever passes a shell."""

import logging
import os
import subprocess
from typing import Callable, NamedTuple, Sequence

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a program may take."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Done(NamedTuple):
    """What a program left: its code, 127 where there is no such program, 124 where it took too long."""

    code: int
    output: bytes


Run = Callable[[Sequence[str]], Done]
"""Runs a program with arguments and waits for its end."""


def run(arguments: Sequence[str]) -> Done:
    """Run a program of the system in the C locale. A code that is not 0 is the caller's to judge."""
    environment = dict(os.environ, PATH=_PATH, LC_ALL="C")
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        return Done(127, b"")
    except subprocess.TimeoutExpired:
        log.error("%s took longer than %d seconds", arguments[0], PATIENCE)
        return Done(124, b"")
    except OSError as error:
        log.error("%s cannot be run: %s", arguments[0], error.strerror)
        return Done(126, b"")
    return Done(done.returncode, done.stdout)


def succeeded(run: Run, *arguments: str) -> bool:
    """Run a program; whether it ended with code 0. That it did not is logged."""
    done = run(arguments)
    if done.code:
        log.error("%s failed with code %d", " ".join(arguments), done.code)
    return done.code == 0
