"""Passwords checked by the machine's own rules (PAM), as an alternative to the built-in ones."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pam  # type: ignore[import-untyped]  # the package has no annotations

from domzero.engine.passwords import LONGEST

SERVICE = "login"
"""The file in /etc/pam.d whose rules apply unless another is named."""

THREADS = 4
"""Checks under way at the same time; PAM modules may wait for directories or delay on purpose."""


class PamAuthenticator:
    """Asks PAM. Needs the rights that the modules of the service need, in general root's."""

    def __init__(self, service: str = SERVICE) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pam")

    async def verify(self, name: str, password: str) -> bool:
        """Whether PAM accepts the password and the account."""
        if not name or "\0" in name or "\0" in password or len(password) > LONGEST:
            return False
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, name, password)

    def close(self) -> None:
        """End the threads after what they are doing."""
        self._threads.shutdown(wait=True)

    def _verify(self, name: str, password: str) -> bool:
        # One conversation per check: the object keeps the result of the last one.
        return bool(pam.PamAuthenticator().authenticate(name, password, service=self._service, resetcreds=False))
