# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests of what stands before the front door."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs a server's and a client's certificate."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.certificate = self._signed(self._name, self._key.public_key(), is_authority=True)

    def save(self, folder: Path, server_name: str) -> None:
        """Write ``xray.pem`` (with ``xray.key``), ``client.pem`` and ``clients-ca.pem``."""
        for file, name in (("xray", server_name), ("client", "a PACS router")):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self._signed(_named(name), key.public_key(), server_name=server_name)
            private = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            public = certificate.public_bytes(serialization.Encoding.PEM)
            (folder / f"{file}.pem").write_bytes(public + private)
            (folder / f"{file}.key").write_bytes(private)
        (folder / "clients-ca.pem").write_bytes(
            self.certificate.public_bytes(serialization.Encoding.PEM)
        )

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        is_authority: bool = False,
        server_name: str = "",
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if server_name:
            names = x509.SubjectAlternativeName([x509.DNSName(server_name)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
