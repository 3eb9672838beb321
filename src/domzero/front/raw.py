"""Handing a connection to a raw handler, as an asyncio stream pair."""

from __future__ import annotations

import asyncio
import logging

from domzero.front.hub import Hub, Member
from domzero.front.intake import Intake
from domzero.front.routes import RawHandler, RawStream, Request

log = logging.getLogger(__name__)


def hand_over(
    hub: Hub, member: Member, transport: asyncio.Transport, handler: RawHandler, request: Request, rest: bytes
) -> None:
    """From here on the transport belongs to the handler; `rest` is what came behind the request's head."""
    intake = Intake(hub, member)
    transport.set_protocol(intake)
    intake.connection_made(transport)
    writer = asyncio.StreamWriter(transport, intake, intake.reader, hub.loop)
    if rest:
        intake.feed(rest)
    stream = RawStream(intake.reader, writer, intake.receive)
    hub.start(_run(handler, request, stream))


async def _run(handler: RawHandler, request: Request, stream: RawStream) -> None:
    try:
        await handler(request, stream)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        log.info("%s %s ended early: %s", request.head.method, request.head.path, error)
    except Exception:
        log.exception("%s %s failed unexpectedly", request.head.method, request.head.path)
    finally:
        stream.writer.close()
