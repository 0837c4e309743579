"""TLS of a listener, configured as in Prometheus exporters; changed certificates are read again."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from evalgauge.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
ClientAuth = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
Curve = Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_CIPHERS = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
_TLS13_CIPHERS = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}


class TlsServerConfig(BaseModel):
    """`tls_server_config` of a Prometheus web configuration file; the keys mean what they mean there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert_file: Path | None = Field(None, description="PEM file with the server's certificate and its chain.")
    key_file: Path | None = Field(None, description="PEM file with the certificate's private key.")
    cert: str | None = Field(None, description="The certificate itself in PEM, instead of `cert_file`.")
    key: SecretStr | None = Field(None, description="The private key itself in PEM, instead of `key_file`.")
    client_auth_type: ClientAuth = Field(
        "NoClientCert", description="Whether clients must show a certificate signed by the client CA."
    )
    client_ca_file: Path | None = Field(None, description="PEM file with the CA of client certificates.")
    client_ca: str | None = Field(None, description="That CA itself in PEM, instead of `client_ca_file`.")
    client_allowed_sans: list[str] = Field(
        default_factory=list, description="Only clients with one of these names in their certificate get in."
    )
    min_version: TlsVersion = Field("TLS12", description="Oldest TLS version that is accepted.")
    max_version: TlsVersion = Field("TLS13", description="Newest TLS version that is accepted.")
    cipher_suites: list[str] = Field(
        default_factory=list,
        description="Cipher suites up to TLS 1.2, by their Go names; empty: OpenSSL's own.",
    )
    prefer_server_cipher_suites: bool = Field(
        default=True, description="The server's order of ciphers decides."
    )
    curve_preferences: list[Curve] = Field(
        default_factory=list, max_length=1, description="The elliptic curve of key exchange; one at most."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, text, file in (("cert", self.cert, self.cert_file), ("key", self.key, self.key_file)):
            if (text is None) == (file is None):
                msg = f"give exactly one of `{name}_file` and `{name}`"
                raise ValueError(msg)
        if self.client_ca is not None and self.client_ca_file is not None:
            msg = "give one of `client_ca_file` and `client_ca`, not both"
            raise ValueError(msg)
        has_ca = self.client_ca is not None or self.client_ca_file is not None
        if has_ca != (self.client_auth_type != "NoClientCert"):
            msg = "`client_ca_file` and a `client_auth_type` other than NoClientCert need each other"
            raise ValueError(msg)
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            msg = "`client_allowed_sans` needs `client_auth_type: RequireAndVerifyClientCert`"
            raise ValueError(msg)
        unknown = [name for name in self.cipher_suites if name not in _CIPHERS and name not in _TLS13_CIPHERS]
        if unknown:
            msg = f"unknown cipher suite `{unknown[0]}`; known: {', '.join(_CIPHERS)}"
            raise ValueError(msg)
        return self

    def below(self, folder: Path) -> TlsServerConfig:
        """Give the same with relative file names taken from `folder`."""
        files = ("cert_file", "key_file", "client_ca_file")
        found: dict[str, Path] = {name: folder / path for name in files if (path := getattr(self, name))}
        return self.model_copy(update=found)


class ServerContext(ssl.SSLContext):
    """An SSL context that knows what it was made from, so that renewed certificates can take its place."""

    tls: TlsServerConfig
    stamps: tuple[tuple[int, int], ...]
    """Modification time (ns) and inode of each file it was read from."""


def ssl_context(tls: TlsServerConfig) -> ssl.SSLContext:
    """Make a server's context. Raises `ConfigError` when a file cannot be read or holds no usable certificate."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.tls, context.stamps = tls, _stamps(tls)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]
    context.set_alpn_protocols(["http/1.1"])
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    ciphers = [_CIPHERS[name] for name in tls.cipher_suites if name in _CIPHERS]
    if ciphers:
        context.set_ciphers(":".join(ciphers))
    for curve in tls.curve_preferences:
        context.set_ecdh_curve(_CURVES[curve])
    try:
        with _as_file(tls.cert_file, tls.cert) as cert, _as_file(tls.key_file, _secret(tls.key)) as key:
            context.load_cert_chain(cert, key, password=_no_passphrase)
        if tls.client_auth_type != "NoClientCert":
            context.load_verify_locations(cafile=tls.client_ca_file, cadata=tls.client_ca)
            required = tls.client_auth_type == "RequireAndVerifyClientCert"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(file) for file in (tls.cert_file, tls.key_file, tls.client_ca_file) if file)
        reason = error.strerror or str(error)
        msg = f"TLS: {files or 'the inline certificate'} cannot be used: {reason}"
        raise ConfigError(msg) from error
    return context


def renewed(context: ssl.SSLContext) -> ssl.SSLContext:
    """Give `context`, or a new one if its files changed since; a change that cannot be loaded is not taken."""
    if not isinstance(context, ServerContext) or (stamps := _stamps(context.tls)) == context.stamps:
        return context
    try:
        return ssl_context(context.tls)
    except ConfigError as error:
        log.warning("the changed certificate is not taken, the one before stays in use: %s", error)
        context.stamps = stamps
        return context


def client_allowed(context: ssl.SSLContext, certificate: Mapping[str, Any] | None) -> bool:
    """Whether `client_allowed_sans` lets a client in that showed this (verified) certificate."""
    if not isinstance(context, ServerContext) or not context.tls.client_allowed_sans:
        return True
    names = set()
    for _kind, value in (certificate or {}).get("subjectAltName", ()):
        names.add(value)
        with contextlib.suppress(ValueError):  # `0:0:…:1` and `::1` are one address
            names.add(str(ipaddress.ip_address(value)))
    return not names.isdisjoint(context.tls.client_allowed_sans)


def _stamps(tls: TlsServerConfig) -> tuple[tuple[int, int], ...]:
    stamps = []
    for file in (tls.cert_file, tls.key_file, tls.client_ca_file):
        try:
            found = file.stat() if file else None
        except OSError:
            found = None
        stamps.append((found.st_mtime_ns, found.st_ino) if found else (0, 0))
    return tuple(stamps)


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _no_passphrase() -> str:
    # Without this OpenSSL asks on the terminal, and a service hangs at start.
    msg = "the private key is encrypted; give one without a passphrase"
    raise ConfigError(msg)


@contextlib.contextmanager
def _as_file(path: Path | None, text: str | None) -> Iterator[str]:
    """Yield the path of a PEM file: `path`, or one that holds `text` while OpenSSL reads it (mode 0600)."""
    if path is not None:
        yield str(path)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as file:
        file.write(text or "")
        file.flush()
        yield file.name
