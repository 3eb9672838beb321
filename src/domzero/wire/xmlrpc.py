"""XML-RPC as XenAPI speaks it: the public face of the codec.

Decoding gives plain values (`str`, `int`, `bool`, `float`, `list`, `dict`, `None`, `bytes`, `DateTime`) and raises only
`XmlRpcError`. Encoding of answers needs the API type of the value and lives in `XmlEncoder`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from domzero.wire.xml_decode import Call, DateTime, XmlRpcError, XmlRpcFaultError, decode_call, decode_response
from domzero.wire.xml_encode import Model, XmlEncoder, encode_failure, escape

__all__ = [
    "Call", "DateTime", "Model", "XmlEncoder", "XmlRpcError", "XmlRpcFaultError", "decode_call", "decode_response",
    "encode_call", "encode_failure", "escape",
]  # fmt: skip


def encode_call(method: str, params: tuple[Any, ...] | list[Any]) -> bytes:
    """A call as a client sends it. Integers travel as strings of digits, as XenAPI's 64-bit `int` always does.

    Raises `TypeError` for a value that has no XML-RPC form.
    """
    values = "".join(f"<param>{_plain(param)}</param>" for param in params)
    return (
        f'<?xml version="1.0"?><methodCall><methodName>{escape(method)}</methodName>'
        f"<params>{values}</params></methodCall>"
    ).encode()


def _plain(value: Any) -> str:
    match value:
        case DateTime():
            return f"<value><dateTime.iso8601>{escape(value)}</dateTime.iso8601></value>"
        case str():
            return f"<value>{escape(value)}</value>"
        case bool():
            return f"<value><boolean>{int(value)}</boolean></value>"
        case int():
            return f"<value>{value}</value>"
        case float():
            return f"<value><double>{value!r}</double></value>"
        case None:
            return "<value><nil/></value>"
        case bytes():
            return f"<value><base64>{b64encode(value).decode()}</base64></value>"
        case list() | tuple():
            return f"<value><array><data>{''.join(map(_plain, value))}</data></array></value>"
        case dict():
            members = (f"<member><name>{escape(str(k))}</name>{_plain(v)}</member>" for k, v in value.items())
            return f"<value><struct>{''.join(members)}</struct></value>"
    raise TypeError(f"a {type(value).__name__} has no XML-RPC form")
