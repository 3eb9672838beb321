"""Carrying out a page: run its handler, send what it returns, turn what it raises into an error page."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from domzero.front.outbox import Outbox
from domzero.front.routes import PageHandler, Request, Response
from domzero.wire.http import HttpError, error_page, response_head

log = logging.getLogger(__name__)

NOT_MODIFIED = 304
"""The one status among ours that never has a body, nor the length of one (RFC 9110, section 15.4.5)."""

HTML = ("content-type", "text/html; charset=utf-8")


async def serve_page(page: PageHandler, request: Request, outbox: Outbox, keep_alive: bool) -> bool:
    """Answer one request. True when the connection can go on to the next one.

    A stream that breaks after its head was sent cannot be explained to the client: the connection is closed.
    """
    try:
        response = await page(request)
    except HttpError as error:
        response = error_response(error)
    except Exception:
        log.exception("the page %s failed unexpectedly", request.head.path)
        response = error_response(HttpError(500, "The page failed unexpectedly; the log says more."))
    without_body = request.head.method == "HEAD"
    if isinstance(response.body, bytes):
        length = None if response.status == NOT_MODIFIED else len(response.body)
        head = response_head(response.status, response.headers, length=length, keep_alive=keep_alive)
        outbox.write(head if without_body else head + response.body)
        return keep_alive
    keep_alive = keep_alive and response.length is not None
    outbox.write(response_head(response.status, response.headers, length=response.length, keep_alive=keep_alive))
    if without_body:
        return keep_alive
    return await _send_stream(response, response.body, request, outbox) and keep_alive


def error_response(error: HttpError) -> Response:
    """The page that explains an error."""
    return Response(error.status, error_page(error.status, error.text), (*error.headers, HTML))


async def _send_stream(response: Response, body: AsyncIterator[bytes], request: Request, outbox: Outbox) -> bool:
    """Send a body piece by piece at the reader's pace. False when it did not keep to its length."""
    sent = 0
    try:
        async for piece in body:
            sent += len(piece)
            outbox.write(piece)
            await outbox.drain()
    except ConnectionResetError:
        return False
    except Exception:
        log.exception("the stream of %s broke after %d bytes", request.head.path, sent)
        return False
    return response.length is None or sent == response.length
