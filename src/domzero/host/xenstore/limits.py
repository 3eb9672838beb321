"""What one domain may take of the store that all share, and how fast."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.wire.xenstore import Operation

COSTS = {Operation.TRANSACTION_START: 20}
"""Tokens that an operation takes; one where nothing is said (guide 5.4)."""
EVENTS_OF_A_TOKEN = 8
"""Watch events that a request may cause before it costs one token more, and so on: they are work, too."""
NODE_STEPS = 8
"""What making, changing or removing one node is counted as; each name on the way to it is one."""
STEPS_OF_A_TOKEN = 64
"""Steps that a change may take before it costs one token more, and so on: a path may name five hundred nodes."""
HOST_QUEUE = 65_536
"""Watch events that may wait for a reader of the host, whom nothing else limits."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What each domain but domain 0 is held to. The numbers follow xenstored's, whose errors they are answered with."""

    nodes: int = 1000
    """Nodes that it owns; more are refused with ENOSPC."""
    value_size: int = 2048
    """Bytes of a value; longer ones are refused with ENOSPC."""
    permissions: int = 5
    """Entries of a node's permissions; more are refused with ENOSPC."""
    path_length: int = 1024
    """Characters of an absolute path, of a relative one what it is made of; longer ones are refused with EINVAL."""
    watches: int = 128
    """Of all its connections; more are refused with E2BIG."""
    transactions: int = 10
    """Open at the same time, in all its connections; more are refused with ENOSPC."""
    transaction_nodes: int = 1024
    """Nodes that a transaction touches, and changes that it makes; more are refused with ENOSPC."""
    connections: int = 8
    """Streams at the same time; more are closed at once."""
    unread: int = 65_536
    """Bytes of replies that it leaves unread before none of its requests is read any more."""
    events: int = 1024
    """Watch events that wait for it to read; with more than that its connection ends."""
    rate: float = 500.0
    """Tokens a second, of all its connections."""
    burst: float = 250.0
    """Tokens that it can save up."""


DEFAULT = Limits()


class TokenBucket:
    """Tokens that come at a steady rate and are kept up to a number. Time is an argument, in seconds."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, now

    def take(self, cost: float, now: float) -> float:
        """0 when the tokens were there and are taken; else the seconds until they will be, and none is taken.

        A cost above what can be saved up is had for all that can.
        """
        cost = min(cost, self._burst)
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= cost:
            self._tokens -= cost
            return 0.0
        return (cost - self._tokens) / self._rate

    def owe(self, cost: float) -> None:
        """What was done has turned out dearer than it seemed; it is paid back before anything else is had."""
        self._tokens -= cost
