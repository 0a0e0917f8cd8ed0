from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.bundle.bundle import SUMS, Bundle, checked_sums
from edgecxr.bundle.signature import SIGNATURE, TRUSTED, make_keys, name_of_key, sign, trusted_keys
from edgecxr.errors import MissingPackage, ModelError, UsageError
from edgecxr.infer.predictor import Predictor
from tests.cli_workspace import edgecxr
from tests.tiny_bundle import tiny_bundle

pytest.importorskip("cryptography")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make two pairs of keys, of which the device trusts the first."""
    for name in ("clinic", "other"):
        make_keys(tmp_path / name)
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(tmp_path / "clinic.pub", folder)
    monkeypatch.setenv(TRUSTED, str(folder))
    return folder


@pytest.fixture
def bundle(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a bundle that the trusted key has signed."""
    monkeypatch.delenv(TRUSTED)
    folder = tiny_bundle(tmp_path / "tiny").path
    sign(folder, checked_sums(folder), tmp_path / "clinic.key")
    monkeypatch.setenv(TRUSTED, str(keys))
    return folder


def refused(folder: Path) -> None:
    with pytest.raises(ModelError):
        Bundle.open(folder)


def test_a_signed_bundle_runs_and_an_unsigned_one_does_not(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Predictor(bundle, force=True).close()
    (bundle / SIGNATURE).unlink()
    refused(bundle)
    with pytest.raises(ModelError):
        Predictor(bundle)
    monkeypatch.delenv(TRUSTED)
    Predictor(bundle, force=True).close()


def test_a_bundle_signed_by_another_key_does_not_run(bundle: Path, tmp_path: Path) -> None:
    (bundle / SIGNATURE).unlink()
    sign(bundle, checked_sums(bundle), tmp_path / "other.key")
    refused(bundle)


def test_a_signature_of_another_bundle_does_not_fit(bundle: Path, tmp_path: Path, keys: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(TRUSTED)
        other = tiny_bundle(tmp_path / "another", name="another").path
    shutil.copy(bundle / SIGNATURE, other)
    refused(other)


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_byte_of_any_file_can_be_changed(bundle: Path, data: st.DataObject) -> None:
    """With its checksum put in order, as an attacker would."""
    copy = bundle.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle, copy)
    path = copy / data.draw(st.sampled_from(sorted(path.name for path in bundle.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    if path.name not in (SUMS, SIGNATURE):
        lines = [line.split("  ") for line in (bundle / SUMS).read_text().splitlines()]
        fitted = [
            f"{hashlib.sha256(content).hexdigest() if name == path.name else digest}  {name}\n"
            for digest, name in lines
        ]
        (copy / SUMS).write_text("".join(fitted))
    try:
        Bundle.open(copy)
    except ModelError:
        return
    # The case of a hexadecimal digit, or what only names the signed content.
    assert path.name in (SUMS, SIGNATURE)
    assert checked_sums(copy) == checked_sums(bundle)


def test_files_cannot_be_added_removed_or_renamed(bundle: Path) -> None:
    sums = (bundle / SUMS).read_text()
    (bundle / "extra.txt").write_text("")
    Bundle.open(bundle)  # it is not listed, and so not used
    with pytest.raises(ModelError):
        Bundle.open(bundle).listed("extra.txt")
    (bundle / SUMS).write_text(
        f"{sums}{'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}  extra.txt\n"
    )
    refused(bundle)
    (bundle / SUMS).write_text("".join(line for line in sums.splitlines(keepends=True) if "gate.npy" not in line))
    refused(bundle)
    (bundle / SUMS).write_text(sums.replace("gate.npy", "gatf.npy"))
    (bundle / "gate.npy").rename(bundle / "gatf.npy")
    refused(bundle)


def test_an_export_over_a_signed_bundle_is_not_signed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUSTED)
    tiny_bundle(bundle)
    assert not (bundle / SIGNATURE).exists()


def test_a_second_key_is_added_and_the_first_can_be_taken_away(bundle: Path, tmp_path: Path, keys: Path) -> None:
    sign(bundle, checked_sums(bundle), tmp_path / "other.key")
    Bundle.open(bundle)
    shutil.copy(tmp_path / "other.pub", keys)
    (keys / "clinic.pub").unlink()
    Bundle.open(bundle)
    (keys / "other.pub").unlink()
    shutil.copy(make_keys(tmp_path / "third")[1], keys)
    refused(bundle)


def test_signatures_of_what_has_changed_are_dropped(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (bundle / SIGNATURE).read_bytes()
    monkeypatch.delenv(TRUSTED)
    tiny_bundle(bundle, name="renamed")
    (bundle / SIGNATURE).write_bytes(old)
    sign(bundle, checked_sums(bundle), tmp_path / "other.key")
    assert len(json.loads((bundle / SIGNATURE).read_text())["signatures"]) == 1


SIGNATURES: dict[str, Callable[[dict[str, object]], object]] = {
    "empty": lambda record: {}, "list": lambda record: [record], "newer": lambda record: record | {"format": 2},
    "true": lambda record: record | {"format": True}, "a fraction": lambda record: record | {"format": 1.0},
    "none": lambda record: record | {"signatures": {}}, "text": lambda record: record | {"signatures": "x"},
    "many": lambda record: record | {"signatures": {f"{i:032}": "" for i in range(100)}},
    "no base64": lambda record: record | {"signatures": dict.fromkeys(record["signatures"], "*")},  # type: ignore[call-overload]
    "a number": lambda record: record | {"signatures": dict.fromkeys(record["signatures"], 1)},  # type: ignore[call-overload]
    "short": lambda record: record | {"signatures": dict.fromkeys(record["signatures"], "QUJD")},  # type: ignore[call-overload]
}  # fmt: skip


@pytest.mark.parametrize("kind", SIGNATURES)
def test_what_is_no_signature_is_refused(bundle: Path, kind: str) -> None:
    record = json.loads((bundle / SIGNATURE).read_text())
    (bundle / SIGNATURE).write_text(json.dumps(SIGNATURES[kind](record)))
    refused(bundle)


def test_a_signature_that_is_no_file_is_refused(bundle: Path) -> None:
    (bundle / SIGNATURE).unlink()
    os.mkfifo(bundle / SIGNATURE)
    refused(bundle)


def test_a_file_that_changes_after_it_was_checked_is_not_used(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    content = bytearray((bundle / "gate.npy").read_bytes())
    content[-1] ^= 1
    (bundle / "gate.npy").write_bytes(content)
    with pytest.raises(ModelError):
        opened.content("gate.npy", 1 << 20)


def test_a_private_key_is_for_its_owner_only(tmp_path: Path, bundle: Path) -> None:
    private, public = tmp_path / "clinic.key", tmp_path / "clinic.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    with pytest.raises(UsageError):
        make_keys(tmp_path / "clinic")
    private.chmod(0o640)
    with pytest.raises(UsageError):
        sign(bundle, checked_sums(bundle), private)
    private.chmod(0o600)
    for wrong in (public, tmp_path / "absent", tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError):
            sign(bundle, checked_sums(bundle), wrong)


def test_keys_of_another_kind_are_refused(tmp_path: Path, bundle: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    wrong = tmp_path / "wrong.key"
    locked = s.BestAvailableEncryption(b"passphrase")
    for content in (
        X25519PrivateKey.generate().private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()),
        Ed25519PrivateKey.generate().private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked),
    ):
        wrong.write_bytes(content)
        wrong.chmod(0o600)
        with pytest.raises(UsageError):
            sign(bundle, checked_sums(bundle), wrong)


@pytest.mark.parametrize(
    "kind", ["gone", "empty", "a file", "relative", "no name", "private", "writable", "key writable"]
)
def test_a_folder_of_keys_that_cannot_be_trusted_lets_no_bundle_run(
    bundle: Path, keys: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind in ("gone", "empty"):
        shutil.rmtree(keys)
        if kind == "empty":
            keys.mkdir()
    elif kind == "private":
        shutil.copy(keys.parent / "other.key", keys / "other.pub")
    elif kind == "writable":
        keys.chmod(0o777)
    elif kind == "key writable":
        (keys / "clinic.pub").chmod(0o666)
    else:
        monkeypatch.chdir(keys.parent)
        monkeypatch.setenv(TRUSTED, {"a file": str(keys / "clinic.pub"), "relative": "trusted", "no name": ""}[kind])
    with pytest.raises(UsageError):
        Bundle.open(bundle)


def test_without_the_library_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingPackage) as caught:
        Bundle.open(bundle)
    assert caught.value.extra == "signed"


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = partial(edgecxr, runs=tmp_path / "runs")
    folder = tiny_bundle(tmp_path / "tiny").path
    assert typed("bundle", "keygen", "clinic").code == 0
    assert typed("bundle", "keygen", "clinic").code == 2
    assert typed("bundle", "sign", folder).code == 2
    assert typed("bundle", "verify", folder, "--key", "clinic.pub").code == 4
    assert typed("bundle", "sign", folder, "--key", "clinic.key").code == 0
    name = name_of_key(tmp_path / "clinic.pub")
    for options in (("--key", "clinic.pub"), ("--keys", "."), ()):
        shown = typed("bundle", "verify", folder, *options)
        assert shown.code == 0 and name in shown.out
    assert typed("bundle", "verify", folder, "--key", "clinic.pub", "--keys", ".").code == 2
    assert typed("bundle", "keygen", "other").code == 0
    assert typed("bundle", "verify", folder, "--key", "other.pub").code == 4
    (folder / "gate.npy").write_bytes(b"")
    assert typed("bundle", "sign", folder, "--key", "clinic.key").code == 4


def test_keys_have_names_of_their_own(keys: Path, tmp_path: Path) -> None:
    assert list(trusted_keys(keys)) == [name_of_key(tmp_path / "clinic.pub")]
    assert name_of_key(tmp_path / "clinic.pub") != name_of_key(tmp_path / "other.pub")
