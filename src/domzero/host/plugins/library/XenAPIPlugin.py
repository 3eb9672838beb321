"""What a plugin in Python begins with: from the program's argument to one of its functions, and the answer.

    import XenAPIPlugin

    def greet(session, args):
        return "Hello, " + args["name"]

    if __name__ == "__main__":
        XenAPIPlugin.dispatch({"greet": greet})

A function gets a session of `XenAPI` that is logged in at this host, and the caller's arguments, a dictionary of texts;
it returns a text. What it raises becomes the caller's error.
"""

from __future__ import annotations

import sys
import traceback
import xmlrpc.client
from typing import Any, Callable, Dict, List, Mapping, Tuple

import XenAPI

Function = Callable[[Any, Dict[str, str]], Any]


class Failure(Exception):
    """To be raised by a plugin: an error code and its parameters, as the caller is to see them."""

    def __init__(self, code: str, params: List[Any]) -> None:
        super().__init__(code, params)
        self.params = [code, *params]

    def __str__(self) -> str:
        return str(self.params)


def success_message(result: Any) -> str:
    """The answer that carries a result."""
    return _message({"Status": "Success", "Value": result})


def failure_message(description: List[Any]) -> str:
    """The answer that carries an error: code and parameters, which become texts."""
    return _message({"Status": "Failure", "ErrorDescription": [str(part) for part in description]})


def dispatch(fn_table: Mapping[str, Function]) -> None:
    """Run the function that the caller asked for, and write the answer to standard output.

    Tracebacks go to standard error. `SystemExit` passes: a plugin that ends so answers with its exit code.
    """
    name, session, args = _request()
    function = fn_table.get(name)
    if function is None:
        answer = failure_message(["UNKNOWN_XENAPI_PLUGIN_FUNCTION", name])
    else:
        answer = _outcome(name, function, session, args)
    sys.stdout.write(answer + "\n")
    sys.stdout.flush()


def _outcome(name: str, function: Function, session: Any, args: Dict[str, str]) -> str:
    try:
        return success_message(function(session, args))
    except Failure as failure:
        return failure_message(failure.params)
    except XenAPI.Failure as failure:
        return failure_message(list(failure.details))
    except Exception as error:  # noqa: BLE001 - whatever a plugin does, its caller is to hear of it
        traceback.print_exc()
        return failure_message(["XENAPI_PLUGIN_FAILURE", name, type(error).__name__, str(error)])


def _request() -> Tuple[str, Any, Dict[str, str]]:
    """The function's name, a session for it, and its arguments. Leaves the program when it was not called as one."""
    if len(sys.argv) != 2:
        sys.exit("This is a plugin, to be run by host.call_plugin: its one argument is an XML-RPC call.")
    params, name = xmlrpc.client.loads(sys.argv[1])
    reference, args = params
    session = XenAPI.xapi_local()
    session._session = reference  # noqa: SLF001 - the name that XenServer's plugins use
    return str(name), session, args  # type: ignore[return-value]  # typeshed has no type for a call's values


def _message(response: Dict[str, Any]) -> str:
    text: str = xmlrpc.client.dumps((response,), "", True, allow_none=True)
    return text
