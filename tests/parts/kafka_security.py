"""Settings for Kafka listeners with TLS, client certificates, passwords and tokens: for `Kafka(settings=…)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trustme

_MODULES = "org.apache.kafka.common.security"


def tls(listener: str, certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> dict[str, str]:
    """Return what gives a listener (protocol SSL or SASL_SSL) its certificate.

    With `clients`, only those get in who show a certificate of that authority.
    """
    at = f"listener.name.{listener.lower()}"
    chain = b"".join(one.bytes() for one in certificate.cert_chain_pems)
    # The only form of a key that the broker reads.
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    settings = {
        f"{at}.ssl.keystore.type": "PEM",
        f"{at}.ssl.keystore.certificate.chain": chain.decode(),
        f"{at}.ssl.keystore.key": key.decode(),
    }
    if clients is not None:
        settings |= {
            f"{at}.ssl.client.auth": "required",
            f"{at}.ssl.truststore.type": "PEM",
            f"{at}.ssl.truststore.certificates": clients.cert_pem.bytes().decode(),
        }
    return settings


def passwords(listener: str, users: Mapping[str, str]) -> dict[str, str]:
    """Return what lets users (name → password) into a listener (protocol SASL_PLAINTEXT or SASL_SSL) by PLAIN.

    SCRAM is enabled as well; its users are added while the broker runs, by any admin client.
    """
    at = f"listener.name.{listener.lower()}"
    known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    scram = f"{_MODULES}.scram.ScramLoginModule required;"
    return {
        f"{at}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"{at}.plain.sasl.jaas.config": f"{_MODULES}.plain.PlainLoginModule required {known};",
        f"{at}.scram-sha-256.sasl.jaas.config": scram,
        f"{at}.scram-sha-512.sasl.jaas.config": scram,
    }


def tokens(listener: str) -> dict[str, str]:
    """Return what lets anybody with an unsigned, unexpired JWT into a listener by OAUTHBEARER: for tests alone."""
    at = f"listener.name.{listener.lower()}"
    return {
        f"{at}.sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{at}.oauthbearer.sasl.jaas.config": (
            f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="broker";'  # the broker logs in, too, and needs a name for it
        ),
        f"{at}.oauthbearer.sasl.server.callback.handler.class": (
            f"{_MODULES}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        ),
    }
