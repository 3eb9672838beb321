"""The standard library's XML-RPC server with the same answers, over a Unix socket and TLS.

Run as `python -m bench.stdlib_server SOCKET STATE ANSWERS`; ANSWERS is a JSON file from method name to value. It speaks
HTTP/1.1, so that connections stay open, with a thread for each.
"""

from __future__ import annotations

import json
import socketserver
import ssl
import sys
import threading
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

from domzero.front.certificates import ensure_certificate, tls_context


class Handler(SimpleXMLRPCRequestHandler):
    """The library's, with connections kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = False
    wbufsize = 65536

    def address_string(self) -> str:
        return "local"


class Calls(SimpleXMLRPCDispatcher):
    """Answers every known method with its value in the API's envelope."""

    logRequests = False  # noqa: N815 - the library's name
    _send_traceback_header = False

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(allow_none=True)
        for name, value in answers.items():
            self.register_function(lambda *_, value=value: {"Status": "Success", "Value": value}, name)


class UnixServer(socketserver.ThreadingUnixStreamServer, Calls):
    """Over a Unix socket."""

    daemon_threads = True

    def __init__(self, path: str, answers: dict[str, Any]) -> None:
        Calls.__init__(self, answers)
        socketserver.ThreadingUnixStreamServer.__init__(self, path, Handler)


class TlsServer(socketserver.ThreadingTCPServer, Calls):
    """Over TLS on a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, answers: dict[str, Any]) -> None:
        Calls.__init__(self, answers)
        socketserver.ThreadingTCPServer.__init__(self, ("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)


def main() -> None:
    """Serve until killed, telling the port first."""
    path, state, file = sys.argv[1:]
    answers = json.loads(Path(file).read_text())
    certificate = ensure_certificate(Path(state), ["localhost"], ["127.0.0.1"])
    tls = TlsServer(tls_context(certificate), answers)
    threading.Thread(target=tls.serve_forever, daemon=True).start()
    unix = UnixServer(path, answers)
    print(f"ready {tls.server_address[1]}", flush=True)
    unix.serve_forever()


if __name__ == "__main__":
    main()
