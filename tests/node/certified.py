"""Certificates that the node's tests make: an authority, systems, and what strangers and time make of them."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgecxr.node.tls.authority import certify


def certified(folder: Path, *names: str) -> Path:
    """Return a folder with an authority and systems on loopback."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for name in names:
        certify(folder, name, ["127.0.0.1", "localhost"], 365)
    return folder


def until(folder: Path, name: str, days: float) -> None:
    """Give a system a certificate of the folder's authority that ends so many days from now."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed (extra signed)")
    from cryptography.hazmat.primitives import hashes, serialization

    def key_of(system: str) -> object:
        return serialization.load_pem_private_key((folder / f"{system}.key").read_bytes(), None)

    issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    before = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(before.subject)
        .issuer_name(issuer.subject)
        .public_key(before.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
    )
    for extension in before.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    certificate = builder.sign(key_of("ca"), hashes.SHA256())  # type: ignore[arg-type]
    building = folder / f"{name}.new"
    building.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    building.replace(folder / f"{name}.pem")


def tls_table(folder: Path, name: str = "node", mutual: bool = True) -> str:
    """Return the lines of a configuration that name a system's files."""
    ca = f'ca = "{folder}/ca.pem"\n' if mutual else ""
    return f'[tls]\ncertificate = "{folder}/{name}.pem"\nkey = "{folder}/{name}.key"\n{ca}'
