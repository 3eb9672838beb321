"""The server's TLS certificate: made once, self-signed, kept; and the TLS settings that clients of XenServer need."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import socket
import ssl
from asyncio import sslproto
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from domzero.durable import replace

FILE_NAME = "server.pem"
KEY_SIZE = 2048
VALIDITY = timedelta(days=3650)
CLOCK_SKEW = timedelta(days=1)
"""The certificate is valid from this long ago, for clients whose clock is behind."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; `xe` insists on ECDHE-RSA-AES256-GCM-SHA384 or ECDHE-RSA-AES128-GCM-SHA256."""
TLS_BUFFER = 64 << 10
"""What asyncio sets aside to read from each TLS connection. Its own 256 KiB would be most of what a client waiting
for events costs; bulk transfers were as fast with this."""
MAX_COMMON_NAME = 64
"""RFC 5280's upper bound; the full names are in the alternative names anyway."""

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----([^-]*)-----END", re.ASCII)
"""RFC 7468, sections 2 and 5.1."""


class CertificateError(Exception):
    """The certificate's file cannot be read or written, or does not hold a certificate with its key."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key in one PEM file. `fingerprint` is SHA-256 over the certificate, `AB:CD:…`."""

    path: Path
    fingerprint: str


def ensure_certificate(
    directory: Path, names: Iterable[str], addresses: Iterable[str], now: datetime | None = None
) -> Certificate:
    """The certificate in a directory, made for the names and addresses if there is none yet.

    One that exists is kept whatever it says: clients remember fingerprints, and an administrator may have put in
    another. Raises `CertificateError`.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            _write_private(path, make_certificate(names, addresses, now or datetime.now(UTC)))
        return Certificate(path, fingerprint(path.read_bytes()))
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror or error}") from error


def make_certificate(names: Iterable[str], addresses: Iterable[str], now: datetime) -> bytes:
    """A new RSA key and a certificate for all names and addresses, as PEM, key first."""
    # A large library that all starts but the first do without: what is there already is read by OpenSSL.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    names = list(dict.fromkeys(names)) or ["localhost"]
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_SIZE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:MAX_COMMON_NAME])])
    alternatives: list[x509.GeneralName] = [x509.DNSName(text) for text in names if text.isascii()]
    alternatives += [x509.IPAddress(ipaddress.ip_address(text)) for text in dict.fromkeys(addresses)]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the first certificate in a PEM file, in the form that browsers and openssl show.

    Raises `CertificateError` when there is none.
    """
    found = _CERTIFICATE.search(pem)
    if found is None:
        raise CertificateError("there is no certificate in the file")
    try:
        encoded = base64.decodebytes(found[1])
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=encoded)
    except (ValueError, ssl.SSLError) as error:
        raise CertificateError(f"there is no certificate in the file: {error}") from error
    digest = hashlib.sha256(encoded).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def tls_context(certificate: Certificate) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with forward secrecy; every curve OpenSSL offers, secp384r1 among them, which `xe` asks for.

    Raises `CertificateError` when key and certificate do not belong together.
    """
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(certificate.path)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"{certificate.path}: {error}") from error
    return context


def local_identities() -> tuple[list[str], list[str]]:
    """The names and addresses of this machine, the most telling first. Blocks: for use before the event loop runs."""
    # A large library that most starts do without: the certificate is there already.
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # pyroute2 ships no type information

    names = [socket.gethostname(), socket.getfqdn(), "localhost"]
    with IPRoute() as netlink:
        addresses = [message.get("address") for message in netlink.get_addr()]
    return [name for name in dict.fromkeys(names) if name], [text for text in dict.fromkeys(addresses) if text]


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else can ever read, whole or not at all, and on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content)
