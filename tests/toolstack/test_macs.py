"""The rule by which cards get their addresses, against values worked out with `openssl dgst -md5`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.toolstack.vm.macs import generate_mac, normalise_mac

SEED = "3cb8d8f0-ac0a-4a3a-8fdc-5a1f0d5e1f25"


@pytest.mark.parametrize(
    ("device", "address"),
    [
        # One round: 163fdac0…, then 5ab4aa…; 0x16 is local and unicast already.
        (0, "16:3f:da:c0:b4:aa"),
        # Three rounds: 78b3fc70…, then 68b7d5…; 0x78 becomes 0x7a.
        (1, "7a:b3:fc:70:b7:d5"),
    ],
)
def test_generated_addresses(device: int, address: str) -> None:
    assert generate_mac(SEED, device) == address


@given(st.text(), st.integers(0, 6))
def test_generated_addresses_are_local_unicast_and_stable(seed: str, device: int) -> None:
    address = generate_mac(seed, device)
    assert int(address[:2], 16) & 3 == 2
    assert normalise_mac(address) == address
    assert generate_mac(seed, device) == address


def test_cards_of_one_machine_differ() -> None:
    assert len({generate_mac(SEED, device) for device in range(7)}) == 7


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00:16:3E:AA:bb:0C", "00:16:3e:aa:bb:0c"),
        (" 00:16:3e:aa:bb:0c ", "00:16:3e:aa:bb:0c"),
        ("00:16:3e:aa:bb", None),
        ("00-16-3e-aa-bb-0c", None),
        ("00:16:3e:aa:bb:0c:0d", None),
        ("01:16:3e:aa:bb:0c", None),
        ("00:00:00:00:00:00", None),
        ("0g:16:3e:aa:bb:0c", None),
        ("", None),
    ],
)
def test_given_addresses(text: str, address: str | None) -> None:
    assert normalise_mac(text) == address
