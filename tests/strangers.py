"""Bundles, records, data sets and packs of strangers: good ones, changed in one or a few places, and used.

Run as a program, it changes and uses things for a range of seeds, each within 5 seconds and 1.5 GiB:
`python -m tests.strangers FIRST LAST FOLDER`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.benchmark import record, report
from edgecxr.bundle.bundle import SUMS, Bundle
from edgecxr.bundle.describe import checked_files, describe
from edgecxr.data.overlap import seen_films
from edgecxr.data.pack import open_pack, packed_images
from edgecxr.data.prepared import Prepared
from edgecxr.data.show import show
from edgecxr.errors import EdgeCxrError
from edgecxr.infer.predictor import Predictor
from tests.tiny_bundle import tiny_bundle

SECONDS, GIB = 5.0, 1 << 30
HERE = Path(__file__).parent

VALUES: list[Any] = [
    None, True, 0, -1, 1, 2**40, 2**63, 10**19, 10**30, 0.5, -0.0, 1e308, 1e999, float("nan"), "", "x", "\ud800", "\0",
    "../..", "/etc/passwd", "x" * 100_000, "\x1b[2J", [], {}, [[]], [None], [1, 2, 3], {"x": 1}, {"": {}}, ["a", "a"],
]  # fmt: skip


def use_bundle(folder: Path) -> None:
    checked_files(folder)
    bundle = Bundle.open(folder)
    describe(bundle)
    with Predictor(bundle, force=True) as predictor:
        pixels = np.tile(np.linspace(0, 1, 224, dtype=np.float32), (224, 1))
        assert 0 <= predictor.predict(pixels).abnormal <= 1


def use_record(folder: Path) -> None:
    benchmark_record = record.read(folder / "record.json")
    report.markdown([benchmark_record], 0.02, None)


def use_data(folder: Path) -> None:
    prepared = Prepared.open(folder)
    use_prepared(prepared)
    prepared.check()


def use_pack(folder: Path) -> None:
    packed_images(folder / "pack.npz")
    use_prepared(open_pack(folder / "pack.npz"))


def use_prepared(prepared: Prepared) -> None:
    prepared.describe()
    show(prepared)
    seen_films("model", {"hash": "0", "provenance": {"kind": "nih"}}, prepared, "test")
    for split in ("train", "test"):
        prepared.inputs(prepared.rows(split)[:4], 28)


USES: dict[str, Callable[[Path], None]] = {
    "bundle": use_bundle, "record": use_record, "data": use_data, "pack": use_pack,
}  # fmt: skip


def originals(folder: Path, made_before: Path) -> dict[str, Path]:
    """Make one good folder of each kind."""
    kinds = {kind: folder / kind for kind in USES}
    tiny_bundle(kinds["bundle"])
    shutil.copytree(made_before / "data" / "films", kinds["data"])
    for kind, source in (("pack", made_before / "pack.npz"), ("record", smallest_record())):
        kinds[kind].mkdir()
        shutil.copy(source, kinds[kind] / {"pack": "pack.npz", "record": "record.json"}[kind])
    return kinds


def smallest_record() -> Path:
    results = HERE.parent / "benchmarks" / "results" / "cpu-2core"
    return results / "benchmark-nih_dev-1thread.json"


def changed(folder: Path, rng: random.Random) -> str:
    """Change a file of the folder as a stranger would; return what was done."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    path = rng.choice([path for path in files if path.suffix != ".png" and path.stat().st_size < 1 << 24])
    kinds: list[Callable[[Path, random.Random], None]] = [in_bytes, in_bytes, as_another]
    if path.suffix == ".json":
        kinds += [in_json] * 6
    if path.suffix in (".npz", ".npy"):
        kinds += [in_array] * 4
    kind = rng.choice(kinds)
    kind(path, rng)
    if (folder / SUMS).is_file() and path.name != SUMS:  # a stranger's checksums are in order
        lines = (folder / SUMS).read_text().splitlines()
        names = [line.split("  ", 1)[1] for line in lines]
        sums = {name: _sha256(folder / name) for name in names}
        if "card.json" not in (path.name,) and path.name in ("gate.npy", "model.onnx") and rng.random() < 0.8:
            _into_card(folder, path.name, sums)
            sums["card.json"] = _sha256(folder / "card.json")
        (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    return f"{kind.__name__} {path.name}"


def in_bytes(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        change = rng.randrange(5)
        if change == 0:
            content[at : at + rng.choice([1, 1, 4, 50])] = rng.randbytes(rng.choice([0, 1, 4]))
        elif change == 1:
            del content[at:]
        elif change == 2:
            content[at:at] = rng.choice([b"\0", b"[", b"{", b'"', b",", b"\n", b"\xff", b"9" * 400]) * rng.choice(
                [1, 9]
            )
        elif change == 3:
            content[at : at + 8] = rng.choice([b"\xff", b"\0", b"\x7f"]) * 8
        elif len(content) > at:
            content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def as_another(path: Path, rng: random.Random) -> None:
    """Put something else in the place of the file."""
    path.unlink()
    change = rng.randrange(7)
    if change == 0:
        os.mkfifo(path)
    elif change == 1:
        path.symlink_to(rng.choice(["/dev/zero", "/dev/full", "/etc/passwd", "absent", path.name]))
    elif change == 2:
        path.mkdir()
    elif change == 3:
        path.write_bytes(b"")
        os.truncate(path, rng.choice([1 << 20, 1 << 33, 1 << 40]))
    elif change == 4:
        path.write_bytes(rng.choice([b"[", b'{"a":', b"(", b"a,"]) * 200_000)
    elif change == 5:
        path.write_bytes(rng.randbytes(rng.randrange(2000)))


def in_json(path: Path, rng: random.Random) -> None:
    value = json.loads(path.read_text())
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        outer, key = rng.choice(places)
        change = rng.randrange(4)
        if change == 0:
            del outer[key]
        elif change == 1 and isinstance(outer, dict):
            outer[rng.choice(["", "x", "format", "\ud800"])] = rng.choice(VALUES)
        else:
            outer[key] = rng.choice(VALUES)
        if not value:
            break
    text = json.dumps(value)
    if rng.random() < 0.05:
        text = text.replace("{", '{"format": 1, ', 1)  # a key twice
    path.write_text(text)


def in_array(path: Path, rng: random.Random) -> None:
    arrays = dict(np.load(path)) if path.suffix == ".npz" else {"": np.load(path)}
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    array = rng.choice(
        [
            lambda: array.astype("<f8") if array.dtype.kind != "U" else array.astype("<U4"), lambda: array[..., None],
            lambda: array.reshape(-1), lambda: np.zeros((0, *array.shape[1:]), array.dtype), lambda: np.array(None),
            lambda: array[:1] if array.shape else array.reshape(1), lambda: np.full(array.shape, "x"),
            lambda: np.full_like(array, np.nan) if array.dtype.kind == "f" else array,
            lambda: np.full(array.shape, 1, ">i8"),
            lambda: np.full(array.shape, 7, np.float32), lambda: np.asfortranarray(array),
            lambda: np.zeros((3000, 224, 224), np.uint8), lambda: _changed_info(array, rng),
        ]
    )() if array.dtype.kind != "U" or rng.random() < 0.3 else _changed_info(array, rng)  # fmt: skip
    arrays[name] = array
    content = io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, array)
    else:
        rng.choice([np.savez, np.savez_compressed])(content, **arrays)
    path.write_bytes(content.getvalue())


def _changed_info(array: np.ndarray, rng: random.Random) -> np.ndarray:
    if array.dtype.kind != "U":
        return array
    info = json.loads(str(array))
    outer, key = rng.choice(list(_places(info)))
    outer[key] = rng.choice(VALUES)
    return np.array(json.dumps(info))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _into_card(folder: Path, name: str, sums: dict[str, str]) -> None:
    try:
        card = json.loads((folder / "card.json").read_text())
        (card["gate"] if name == "gate.npy" else card["artefacts"][name])["sha256"] = sums[name]
    except (OSError, ValueError, KeyError, TypeError):
        return
    (folder / "card.json").write_text(json.dumps(card))


def _sha256(path: Path) -> str:
    # What cannot be read has any checksum.
    if not path.is_file() or path.stat().st_size > 1 << 24:
        return "0" * 64
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"it took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)  # others share the cores
    began = time.process_time()
    try:
        yield
    finally:
        if time.process_time() - began > seconds:
            late()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def trial(kinds: dict[str, Path], scratch: Path, seed: int, seconds: float = SECONDS) -> bool:
    """Change and use one thing; return whether it was refused.

    Raises:
        AssertionError: it ended otherwise than with a reason, or too late.
    """
    rng = random.Random(seed)
    kind = sorted(kinds)[seed % len(kinds)]
    folder = scratch / f"{kind}-{seed}"
    shutil.copytree(kinds[kind], folder)
    done = [changed(folder, rng)]
    with contextlib.suppress(Exception):
        if rng.random() < 0.3:  # where the first change has left something to change
            done.append(changed(folder, rng))
    try:
        with within(seconds):
            USES[kind](folder)
    except EdgeCxrError as error:
        assert 0 < len(str(error)) < 3000, f"seed {seed}: {kind}: {len(str(error))} characters"
        return True
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {kind}, {', '.join(done)}: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return False


def main(first: int, last: int, folder: Path) -> None:
    kinds = {kind: folder / kind for kind in USES}
    scratch = folder / f"scratch-{first}"
    scratch.mkdir()
    trial(kinds, scratch, 0)  # loads what is loaded once
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 3 * GIB // 2,) * 2)
    problems, refused = [], 0
    for seed in range(first, last):
        try:
            refused += trial(kinds, scratch, seed)
        except AssertionError as error:
            problems.append(str(error))
    print(json.dumps({"refused": refused, "problems": problems}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
