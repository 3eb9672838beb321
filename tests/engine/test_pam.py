"""PAM as the machine has it: what is not an account is refused, whatever the rules say. And with rules of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domzero.engine.pam import PamAuthenticator
from domzero.engine.passwords import LONGEST


@pytest.fixture
async def pam() -> AsyncIterator[PamAuthenticator]:
    authenticator = PamAuthenticator()
    yield authenticator
    authenticator.close()


@pytest.mark.parametrize(("name", "password"), [("", "x"), ("root\0x", "x"), ("root", "x\0y")])
async def test_what_c_strings_cannot_carry_is_refused(pam: PamAuthenticator, name: str, password: str) -> None:
    assert not await pam.verify(name, password)


async def test_a_password_of_megabytes_is_not_hashed(pam: PamAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(pam, "_verify", lambda name, password: asked.append(name))
    assert not await pam.verify("root", "x" * (LONGEST + 1))
    assert asked == []
    await pam.verify("root", "x" * LONGEST)
    assert asked == ["root"]


@pytest.mark.slow  # PAM itself delays a failed attempt by some seconds
async def test_unknown_account_is_refused(pam: PamAuthenticator) -> None:
    assert not await pam.verify("no-such-account-here", "x")


@pytest.mark.slow
async def test_unknown_service_accepts_nobody() -> None:
    pam = PamAuthenticator("domzero-no-such-service")
    assert not await pam.verify("root", "x")
    pam.close()


WITH_RULES = 'mount --bind "$1" /etc/pam.d && shift && exec "$@"'
"""In a mount namespace of its own."""

CHECK = """#!/bin/sh
[ "$PAM_USER $(tr -d '\\0')" = "somebody right" ]
"""

ASKING = """
import asyncio, sys
from domzero.engine.pam import PamAuthenticator

async def ask(service, *attempt):
    print(service, await PamAuthenticator(service).verify(*attempt))

async def main():
    await ask("open", "somebody", "right")
    await ask("open", "somebody", "wrong")
    await ask("open", "another", "right")
    await ask("closed", "somebody", "right")

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="shows PAM other rules")
def test_the_rules_decide_by_name_and_password_and_whether_the_account_is_open(tmp_path: Path) -> None:
    check, rules = tmp_path / "check", tmp_path / "pam.d"
    check.write_text(CHECK)
    check.chmod(0o755)
    rules.mkdir()
    for service, account in (("open", "pam_permit.so"), ("closed", "pam_deny.so")):
        asked = f"auth required pam_exec.so expose_authtok quiet {check}"
        (rules / service).write_text(f"{asked}\naccount required {account}\n")
    command = ["unshare", "--mount", "sh", "-c", WITH_RULES, "sh", str(rules), sys.executable, "-c", ASKING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == ["open True", "open False", "open False", "closed False"], ended.stderr
