"""TLS for clients of tests, to hosts whose certificate nobody signed."""

from __future__ import annotations

import ssl


def unverified() -> ssl.SSLContext:
    """A context that accepts any certificate. It does not read the machine's own list, which takes long."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
