"""The Certificate class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Enum, Field
from domzero.idl.types import DATETIME, NEVER, NULL_REF, STRING, EnumOf, RefTo

CLASS = Class(
    "Certificate",
    "An X.509 certificate installed on a host or trusted by the pool.",
    "stockholm",
    fields=(
        Field("uuid", STRING, RUNTIME, "stockholm",
            "Unique identifier, stable for the life of the object."),
        Field("name", STRING, RUNTIME, "1.294.0",
            "Name it was installed under; used for trusted authorities only.", default=""),
        Field("type", EnumOf("certificate_type"), RUNTIME, "1.294.0",
            "What the certificate is used for.", default="host"),
        Field("host", RefTo("host"), CONSTRUCTOR, "stockholm",
            "The host it identifies; null for a trusted authority.", default=NULL_REF),
        Field("not_before", DATETIME, CONSTRUCTOR, "stockholm",
            "Start of its validity.", default=NEVER),
        Field("not_after", DATETIME, CONSTRUCTOR, "stockholm",
            "End of its validity; renew it before then.", default=NEVER),
        Field("fingerprint", STRING, CONSTRUCTOR, "stockholm",
            "Hash of the certificate, as hexadecimal bytes, for comparing with the original.", default=""),
    ),
    enums=(
        Enum("certificate_type",
            "Uses a certificate can have.",
            {
                "ca": "Authority whose signatures the pool trusts.",
                "host": "Identifies a host to its API clients.",
                "host_internal": "Identifies a host to other pool members.",
            }),
    ),
)
