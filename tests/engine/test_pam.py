"""PAM as the machine has it: what is not an account is refused, whatever the rules say."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
