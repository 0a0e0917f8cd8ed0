"""Signatures of bundles, and the keys that a device trusts.

A signature is Ed25519's over the name, size and SHA-256 of every file that a bundle's list of checksums names; nothing
else of it is used. Engines that a device builds are not signed: they have a seal of their own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.errors import MissingPackage, ModelError, UsageError, brief
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.json_values import format_of, read_json
from edgecxr.storage.reading import BadFile, open_file, read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "SIGNATURE.json"
"""File in a bundle: its signatures, each with the name of its key."""

TRUSTED = "EDGECXR_TRUSTED_KEYS"
"""Variable with the folder of public keys; where it is set, no other bundles are opened than those that they signed."""

PUBLIC, PRIVATE = ".pub", ".key"

_FORMAT = 1
_LARGEST = 64 << 10
_MOST_SIGNATURES = 16
_MOST_KEYS = 100


def make_keys(name: Path) -> tuple[Path, Path]:
    """Make a pair of keys; existing files are not replaced.

    Args:
        name: path of the files, without their endings.

    Returns:
        The private key's file, for its owner only, and the public key's.

    Raises:
        UsageError: a file exists already, or cannot be written.
        MissingPackage: cryptography is not installed.
    """
    ed25519, serialization = _library()
    private = ed25519.Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    paths = name.with_name(name.name + PRIVATE), name.with_name(name.name + PUBLIC)
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already, and a key that is lost cannot be made again: give another name")
    for path, content, mode in zip(paths, (secret, public), (0o600, 0o644), strict=True):
        with writing(path, "give another name"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
    return paths


def sign(folder: Path, sums: Mapping[str, str], key: Path) -> str:
    """Sign a bundle whose checksums hold.

    Signatures of other keys are kept if they are of the same files, so that keys can be exchanged one after the other.

    Args:
        folder: the bundle.
        sums: name -> SHA-256 of its files.
        key: file with the private key.

    Returns:
        The name of the key.

    Raises:
        UsageError: the key cannot be used, or the bundle cannot be written.
        ModelError: the bundle's file of signatures is none.
        MissingPackage: cryptography is not installed.
    """
    private = _private_key(key)
    statement = _statement(folder, sums)
    name = _name(private.public_key())
    signatures: dict[str, bytes] = {}
    if os.path.lexists(folder / SIGNATURE):
        signed, signatures = _read(folder)
        signatures = signatures if signed == _sha256(statement) else {}
    signatures[name] = private.sign(statement)
    if len(signatures) > _MOST_SIGNATURES:
        raise UsageError(f"{folder} has {_MOST_SIGNATURES} signatures: remove {folder / SIGNATURE}")
    record = {
        "format": _FORMAT,
        "signed": _sha256(statement),
        "signatures": {key: base64.b64encode(value).decode() for key, value in signatures.items()},
    }
    atomic_write(folder / SIGNATURE, json.dumps(record, indent=1) + "\n", "sign a copy that can be written")
    return name


def require_trusted(folder: Path, sums: Mapping[str, str]) -> None:
    """Refuse an unsigned bundle, if only signed ones may run.

    Args:
        folder: the bundle.
        sums: name -> SHA-256 of its files.

    Raises:
        ModelError: it is not signed by a trusted key.
        UsageError: the folder of keys cannot be used.
        MissingPackage: cryptography is not installed.
    """
    keys = keys_folder()
    if keys is not None:
        check_signature(folder, sums, trusted_keys(keys))


def keys_folder() -> Path | None:
    """Return the folder of trusted keys; None accepts any bundle.

    Raises:
        UsageError: the variable is empty, or its path depends on the current folder.
    """
    keys = os.environ.get(TRUSTED)
    if keys is None:
        return None
    if not Path(keys).is_absolute():
        raise UsageError(
            f"{TRUSTED} is {keys!r}: give the whole path of a folder, or unset it so that any bundle may run"
        )
    return Path(keys)


def check_signature(folder: Path, sums: Mapping[str, str], keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Return the name of the key that has signed a bundle.

    Args:
        folder: the bundle.
        sums: name -> SHA-256 of its files, as they are.
        keys: name -> key; one of them must have signed.

    Raises:
        ModelError: none of them has.
    """
    from cryptography.exceptions import InvalidSignature

    if not os.path.lexists(folder / SIGNATURE):
        raise ModelError(f"{folder} is not signed: take a bundle that was signed with `edgecxr bundle sign`")
    _, signatures = _read(folder)
    known_names = [name for name in signatures if name in keys]
    if not known_names:
        raise ModelError(
            f"{folder} is signed by {', '.join(signatures) or 'nobody'}, which is no trusted key: take one that such a "
            "key has signed"
        )
    statement = _statement(folder, sums)
    for name in known_names:
        try:
            keys[name].verify(signatures[name], statement)
            return name
        except InvalidSignature:
            continue
    raise ModelError(f"{folder} has changed since it was signed: copy it again, or have it signed again")


def signers(folder: Path) -> list[str]:
    """Return the names of keys that claim to have signed.

    Raises:
        ModelError: the file of signatures is none.
    """
    return list(_read(folder)[1]) if os.path.lexists(folder / SIGNATURE) else []


def trusted_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Read the public keys in a folder.

    They are the files that end in .pub.

    Returns:
        Name -> key.

    Raises:
        UsageError: the folder is not there, has no key, or is not safe from others; or a file is no public key.
        MissingPackage: cryptography is not installed.
    """
    try:
        _refuse_writable_by_all(folder, folder.stat())
        paths = sorted(path for path in folder.iterdir() if path.suffix == PUBLIC)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} is no folder of trusted keys ({brief(error)}): give one with the public keys of those whose "
            f"bundles may run ({TRUSTED})"
        ) from error
    if not 1 <= len(paths) <= _MOST_KEYS:
        raise UsageError(f"{folder} has {len(paths)} files that end in {PUBLIC}: give from 1 to {_MOST_KEYS} keys")
    keys = [public_key(path) for path in paths]
    return {_name(key): key for key in keys}


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        UsageError: the file is none, or everybody can change it.
        MissingPackage: cryptography is not installed.
    """
    ed25519, serialization = _library()
    try:
        with open_file(path) as file:
            _refuse_writable_by_all(path, os.fstat(file.fileno()))
        key = serialization.load_pem_public_key(read_bytes(path, _LARGEST))
    except Exception as error:  # the library raises errors of many kinds
        raise _no_key(path, "public", error) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _no_key(path, "public", "it is of another kind")
    return key


def name_of_key(path: Path) -> str:
    """Return the name of a public key, as signatures give it."""
    return _name(public_key(path))


def _private_key(path: Path) -> Ed25519PrivateKey:
    ed25519, serialization = _library()
    try:
        with open_file(path) as file:
            mode = os.fstat(file.fileno()).st_mode
        content = read_bytes(path, _LARGEST)
    except (OSError, BadFile) as error:
        raise _no_key(path, "private", error) from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"{path} can be read by others: make another key, or `chmod 600 {path}` if nobody has")
    try:
        key = serialization.load_pem_private_key(content, None)
    except Exception as error:  # such as a key with a passphrase
        raise _no_key(path, "private", error) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key(path, "private", "it is of another kind")
    return key


def _no_key(path: Path, kind: str, error: object) -> UsageError:
    if isinstance(error, UsageError):
        return error
    return UsageError(
        f"{path} is no {kind} key that edgecxr can use ({brief(error)}): make one with `edgecxr bundle keygen`"
    )


def _refuse_writable_by_all(path: Path, state: os.stat_result) -> None:
    if state.st_mode & 0o002:
        raise UsageError(f"{path} can be changed by everybody, so it proves nothing: `chmod o-w {path}`")


def _name(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _statement(folder: Path, sums: Mapping[str, str]) -> bytes:
    """Return what is signed: a line for each file, by name."""
    try:
        lines = [f"{sums[name]} {(folder / name).stat().st_size} {name}" for name in sorted(sums)]
    except OSError as error:
        raise ModelError(f"{folder} is not whole ({brief(error)}): copy it again") from error
    return "\n".join([f"edgecxr bundle {_FORMAT}", *lines, ""]).encode()


def _read(folder: Path) -> tuple[str, dict[str, bytes]]:
    """Return what was signed, by its checksum, and the signatures."""
    path = folder / SIGNATURE
    try:
        record = read_json(path, _LARGEST)
        if (number := format_of(record)) != _FORMAT:
            raise BadFile(f"its format is {number}, and this edgecxr knows {_FORMAT}")
        if not isinstance(record.get("signatures"), dict):
            raise BadFile("it has no signatures")
        texts = record["signatures"].items()
        if len(texts) > _MOST_SIGNATURES or not all(len(k) == 32 and k.isalnum() for k, _ in texts):
            raise BadFile("it has more signatures than a bundle has, or keys without a name")
        return str(record.get("signed")), {key: base64.b64decode(text, validate=True) for key, text in texts}
    except (OSError, BadFile, TypeError, binascii.Error, ValueError) as error:
        raise ModelError(f"{path} holds no signatures ({brief(error)}): copy the bundle again") from error


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingPackage("cryptography", "signed", "the signature of a bundle") from error
    return ed25519, serialization
