"""What is noted of a card at its port in Open vSwitch's database, so that its rules come back after the switch: pure.

Flows and meters end with the switch's process, ports do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from domzero.host.network.plan import CardRules, LockingMode


@dataclass(frozen=True, slots=True)
class CardNote:
    """What a card's flows are made from."""

    mac: str
    rules: CardRules


def tell(mac: str, rules: CardRules) -> str:
    """The note as text."""
    return json.dumps(
        {
            "mac": mac.lower(),
            "locking": rules.locking.value,
            "ipv4": list(rules.ipv4_allowed),
            "ipv6": list(rules.ipv6_allowed),
            "rate": rules.kilobytes_per_second,
        }
    )


def read_note(told: str) -> CardNote | None:
    """What `tell` told; None for what is no such text."""
    try:
        fields = json.loads(told)
        rules = CardRules(
            LockingMode(fields["locking"]), tuple(fields["ipv4"]), tuple(fields["ipv6"]), int(fields["rate"])
        )
        return CardNote(str(fields["mac"]), rules)
    except (ValueError, TypeError, KeyError):
        return None
