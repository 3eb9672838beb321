"""What a plugin is told, and what it answers (XenServer's way).

Its one argument is an XML-RPC call: the method is the function, the parameters are a session and a struct of arguments.
On standard output it writes a response with the Status struct of the API. Pure: texts in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping

from domzero.host.plugins.protocol import PluginRefusedError
from domzero.wire.xmlrpc import XmlRpcError, decode_response, encode_call


class AnswerError(Exception):
    """What the plugin wrote is no answer; the text says why."""


def request(function: str, session: str, arguments: Mapping[str, str]) -> str:
    """The plugin's argument."""
    return encode_call(function, [session, dict(arguments)]).decode()


def answer(output: bytes) -> str:
    """The text of a successful answer. Raises `PluginRefusedError` for an error in it, and `AnswerError`."""
    try:
        response = decode_response(output)
    except XmlRpcError as error:
        raise AnswerError(f"the output is no XML-RPC response: {error}") from error
    match response:
        case {"Status": "Success", "Value": str(value)}:
            return value
        case {"Status": "Success", "Value": value}:
            raise AnswerError(f"the result is no text but {'nothing' if value is None else type(value).__name__}")
        case {"Status": "Failure", "ErrorDescription": [_, *_] as description} if all(
            isinstance(part, str) for part in description
        ):
            raise PluginRefusedError(tuple(description))
    raise AnswerError("the output has neither a result nor an error")
