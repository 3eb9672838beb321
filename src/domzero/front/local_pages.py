"""What pages for local administrators share: only the Unix socket may ask, and both sides speak JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from domzero.front.routes import Request, Response
from domzero.wire.http import HttpError

JSON = (("content-type", "application/json"),)


def require_local(request: Request) -> None:
    """Raises `HttpError` 403 for whoever came another way."""
    if not request.origin.local:
        raise HttpError(403, "This page answers on the Unix socket only.")


def json_fields(request: Request) -> Mapping[str, Any]:
    """The JSON object in the body of a local request. Raises `HttpError` 400 or 403."""
    require_local(request)
    try:
        fields = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"The body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise HttpError(400, "The body is no JSON object.")
    return fields


def text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text among the fields. Raises `HttpError` 400 when it is missing and has no default, or is no text."""
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise HttpError(400, f"The body lacks the text {name}.")
    return value


def json_answer(status: int, content: Mapping[str, Any]) -> Response:
    """A JSON object as an answer."""
    return Response(status, orjson.dumps(content), JSON)
