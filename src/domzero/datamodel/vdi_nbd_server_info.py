"""The vdi_nbd_server_info class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Durability, Field
from domzero.idl.types import INT, STRING

CLASS = Class(
    "vdi_nbd_server_info",
    "Details a client needs to read one disk from one network address over NBD.",
    "inverness",
    fields=(
        Field("exportname", STRING, RUNTIME, "inverness",
            "Name to request from the server; it contains a session reference, so keep it secret."),
        Field("address", STRING, RUNTIME, "inverness",
            "IP address of the server, either IPv4 or IPv6."),
        Field("port", INT, RUNTIME, "inverness",
            "TCP port on which the server listens."),
        Field("cert", STRING, RUNTIME, "inverness",
            "TLS certificate of the server in PEM form, for checking its identity."),
        Field("subject", STRING, RUNTIME, "inverness",
            "Host name found in the certificate, which the client should expect when checking it."),
    ),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)
