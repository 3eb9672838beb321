"""What the front allows a stranger to use up. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of the listeners, with their defaults.

    Precedents: XenServer reads heads of 1 KiB and bodies of 300 KiB, 10 and 60 seconds for a head, 5 minutes of idle
    keep-alive, 800 connections over TCP and 1,024 over the Unix socket. Heads and bodies are larger here because long
    cookies and large `other_config` maps are known to break on those.
    """

    head_size: int = 16 << 10
    """Request line and headers together; more is answered with 431."""
    body_size: int = 4 << 20
    """The body of an RPC or page request; more is answered with 413. Streams to a raw handler are not counted."""
    bodies_size: int = 256 << 20
    """All bodies above 64 KiB that are being received at once; a request that would exceed it is answered with 503."""
    tcp_connections: int = 800
    unix_connections: int = 1024
    """Connections at once for each kind of listener. One more takes the place of an idle one, else gets 503. As many
    again may be in the middle of the TLS handshake."""
    refusals: int = 64
    """How many connections may at once be in the course of being told 503; beyond that they are closed unheard."""
    handshake: float = 10.0
    """For the whole TLS handshake."""
    head_idle: float = 10.0
    """Between two pieces of a head, once its first byte came."""
    head_total: float = 60.0
    """For a whole head, and for the first byte of a new connection."""
    body_idle: float = 30.0
    body_total: float = 300.0
    """Between two pieces of a body, and for all of it."""
    keep_alive: float = 300.0
    """Between two requests."""
    write_stall: float = 60.0
    """How long a reader may take nothing of an answer before it is cut off."""
    linger: float = 5.0
    """How long a refused sender is listened to, so that it reads why it was refused, and how long the answer may still
    take for a client that has closed its sending side."""
    sweep: float = 1.0
    """How often deadlines are looked at: each may be this much late."""
