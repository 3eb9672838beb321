"""What is taken out of texts, what is left, and that no text makes it slow."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from domzero.datamodel.graph import GRAPH
from domzero.engine.database import Database
from domzero.engine.sensitive import HIDDEN
from domzero.host.clock import ManualClock
from domzero.toolstack.host.redaction import FEW, LONGEST_LINE, Redactor
from tests.sampling import each


@pytest.fixture
async def redact() -> AsyncIterator[Redactor]:
    database = await Database.open(GRAPH, None, ManualClock())
    with database.transaction() as transaction:
        transaction.create("secret", {"value": "hunter2/&\nsecond line", "other_config": {}})
        transaction.create("secret", {"value": "abc", "other_config": {}})
        transaction.create("pool", {"other_config": {"a_password": "correct horse", "folder": "public"}})
    yield Redactor(database)
    await database.close()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("said hunter2/& here", f"said {HIDDEN} here"),
        ("?q=hunter2%2F%26&b", f"?q={HIDDEN}&b"),
        ("second line", HIDDEN),
        ("correct horse", HIDDEN),
        ("abc public", "abc public"),
        ("password=x, user=y", f"password={HIDDEN}, user=y"),
        ('"chappassword": "x", "b"', f'"chappassword": "{HIDDEN}", "b"'),
        ("tokens are words", "tokens are words"),
        ("mount -o password=x /mnt", f"mount -o password={HIDDEN} /mnt"),
        ("tool --token x -v", f"tool --token {HIDDEN} -v"),
        ("https://user:x@host/", f"https://user:{HIDDEN}@host/"),
        ("https://user:x@y@host/", f"https://user:{HIDDEN}@host/"),
        ("https://host:443/a@b", "https://host:443/a@b"),
        ("linux rootpw=x quiet", f"linux rootpw={HIDDEN} quiet"),
        ("Authorization: Basic QWxhZGRpbg==", f"Authorization: Basic {HIDDEN}"),
        ("-object secret,id=a,data=x,b", f"-object secret,id=a,data={HIDDEN},b"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----", HIDDEN),
        ("OpaqueRef:00000000-0000-0000-0000-000000000000", "OpaqueRef:00000000-0000-0000-0000-000000000000"),
        ("root:$6$salt$hash:19000", f"root:{HIDDEN}:19000"),
    ],
)
def test_what_is_hidden(redact: Redactor, text: str, left: str) -> None:
    assert redact(text) == left
    assert redact(f"\n{text}\n") == f"\n{left}\n"


def test_secrets_are_found_wherever_they_are_in_a_long_text(redact: Redactor) -> None:
    line = "x" * 5_000 + " correct horse\n"
    assert "correct horse" not in redact(line * 200)
    key = "-----BEGIN PRIVATE KEY-----\n" + "M" * 64 + "\n" + ("N" * 64 + "\n") * 9_000 + "-----END PRIVATE KEY-----\n"
    assert redact(f"before\n{key}after") == f"before\n{HIDDEN}\nafter"
    assert redact(f"before\n{key[:200]}") == f"before\n{HIDDEN}"
    assert len(redact("y" * (LONGEST_LINE + 1))) < 100


async def test_many_secrets_are_found_as_few_are() -> None:
    database = await Database.open(GRAPH, None, ManualClock())
    with database.transaction() as transaction:
        for number in range(FEW * 10):
            transaction.create("secret", {"value": f"secret value {number}!", "other_config": {}})
    redact = Redactor(database)
    assert redact("xsecret value 7!y\nsecret value 499!\nsecret value 500") == f"x{HIDDEN}y\n{HIDDEN}\nsecret value 500"
    await database.close()


@pytest.mark.parametrize(
    "part",
    each(
        7,
        [
            "pass",
            "password",
            "a-",
            "://",
            "://a:",
            "$1",
            "$1$",
            "basic ",
            "-",
            "-token",
            "data",
            "-----BEGIN ",
            " ",
            "=",
        ],
    ),
)
def test_no_text_makes_it_slow(redact: Redactor, part: str) -> None:
    text = (part * 300_000)[:250_000]
    began = time.process_time()
    redact(text)
    redact(text.replace(" ", "\n"))
    assert time.process_time() - began < 2.0
