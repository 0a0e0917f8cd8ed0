from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecxr.benchmark.synthetic_film import write_films
from edgecxr.errors import REASONS, InputError
from edgecxr.films import read
from edgecxr.films.codestreams import jpeg2000
from edgecxr.films.radiograph import FilmRead, Radiograph
from edgecxr.films.read import read_film, read_radiograph
from edgecxr.films.resize import to_base
from edgecxr.infer.film_readers import Read, Readers, Request, read_of
from edgecxr.infer.prediction import Rejection
from tests.films.dicom_files import film, write


def png(path: Path, grey: int = 200) -> Path:
    pixels = np.zeros((64, 48), np.uint8)
    pixels[:32] = grey
    Image.fromarray(pixels).save(path, "PNG")
    return path


KINDS = ("uncompressed", "jpeg-lossless", "jpeg2000", "jpeg2000 at half its size")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Readers, bytes, Path]]]:
    """Return readers, a film of a kind, and where to write what is made of it."""
    folder = tmp_path_factory.mktemp("changed")
    films = {path.stem: path.read_bytes() for path in write_films(folder, 96, 80)}
    (halved,) = write_films(folder, 128, 120, ("jpeg2000",))
    films[KINDS[-1]] = halved.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg2000, "LEAST", 60)
        processes = Readers(1, time_limit=10, fork=True)  # takes that along
    with processes:
        yield lambda kind: (processes, films[kind], folder / "changed.dcm")


@pytest.fixture
def behaving(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Callable[[], None]]], None]:
    """Let files of certain names do something to the process that reads them, as a decoder's fault would."""

    def behave(faults: dict[str, Callable[[], None]]) -> None:
        def reading(path: str | os.PathLike[str]) -> Radiograph:
            faults.get(Path(path).name, lambda: None)()
            return read_radiograph(path)

        monkeypatch.setattr(read, "read_radiograph", reading)  # before the fork, which takes it along

    return behave


def all_of(parts: Iterator[list[Read]]) -> list[Read]:
    return [each for part in parts for each in part]


def reasons(reads: list[Read]) -> list[str]:
    return [each.reason if isinstance(each, Rejection) else "ok" for each in reads]


def test_a_film_is_read_as_it_is_in_this_process(tmp_path: Path) -> None:
    pixels = np.arange(300 * 260, dtype=np.uint16).reshape(300, 260) % 4096
    path = write(film(pixels, BitsStored=12, ViewPosition="AP"), tmp_path)
    with Readers(1) as processes:
        for size in (224, 448):
            (film_read,) = all_of(processes.read([path], size, display=True))
            assert isinstance(film_read, FilmRead)
            here = read_radiograph(path)
            np.testing.assert_array_equal(film_read.image, to_base(here.pixels, size))
            assert (film_read.source, film_read.view) == (str(path), "AP")
            alone = read_film(path, size, display=True)
            assert film_read.warnings == alone.warnings and set(film_read.timings_ms) == set(alone.timings_ms)
            assert film_read.display is not None and alone.display is not None
            np.testing.assert_array_equal(film_read.display, alone.display)


def test_results_come_in_order_whoever_is_faster(
    tmp_path: Path, behaving: Callable[[dict[str, Callable[[], None]]], None]
) -> None:
    paths = [png(tmp_path / f"{number}.png") for number in range(12)]
    behaving({"0.png": lambda: time.sleep(0.5), "5.png": lambda: time.sleep(0.2)})
    with Readers(3, fork=True) as processes:
        parts = list(processes.read(paths, 224, most=4))
    assert [each.source for part in parts for each in part] == [str(path) for path in paths]
    assert max(map(len, parts)) == 4, "those that were ready are handed over together"


def test_no_more_is_read_ahead_than_a_few_films(tmp_path: Path) -> None:
    taken = []

    def paths() -> Iterator[Path]:
        for number in range(1000):
            taken.append(number)
            yield tmp_path / "gone.png"

    with Readers(2) as processes:
        reads = processes.read(paths(), 224)
        next(reads)
        assert len(taken) < 12
        reads.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [signal.SIGSEGV, signal.SIGKILL, None])
def test_a_file_that_ends_its_reader_costs_that_file_alone(
    tmp_path: Path, behaving: Callable[[dict[str, Callable[[], None]]], None], kind: signal.Signals | None
) -> None:
    def end() -> None:
        faulthandler.disable()  # pytest's, which would print what it was doing
        os.kill(os.getpid(), kind) if kind else os._exit(0)

    behaving({"bad.png": end})
    paths = [png(tmp_path / name) for name in ("a.png", "bad.png", "b.png", "c.png")]
    with Readers(1, fork=True) as processes:
        reads = all_of(processes.read(paths, 224))
        assert reasons(reads) == ["ok", "crash", "ok", "ok"]
        assert "bad.png ended the process" in reads[1].message  # type: ignore[union-attr]
        assert reasons(all_of(processes.read(paths[:1], 224))) == ["ok"]


def test_a_file_that_takes_too_long_is_given_up_and_the_rest_goes_on(
    tmp_path: Path, behaving: Callable[[dict[str, Callable[[], None]]], None]
) -> None:
    behaving({"slow.png": lambda: time.sleep(60)})
    paths = [png(tmp_path / name) for name in ("slow.png", "a.png", "b.png")]
    begun = time.monotonic()
    with Readers(2, time_limit=0.5, fork=True) as processes:
        assert reasons(all_of(processes.read(paths, 224))) == ["too-slow", "ok", "ok"]
    assert time.monotonic() - begun < 20


def test_a_file_that_wants_too_much_memory_is_refused(
    tmp_path: Path, behaving: Callable[[dict[str, Callable[[], None]]], None]
) -> None:
    behaving({"large.png": lambda: np.ones(600 << 20, np.uint8).sum()})
    paths = [png(tmp_path / name) for name in ("large.png", "a.png")]
    with Readers(1, memory_mib=300, fork=True) as processes:
        reads = all_of(processes.read(paths, 224))
    assert reasons(reads) == ["too-large", "ok"]


LIES: list[tuple[object, bytes]] = [
    ({"view": None, "warnings": [], "timings_ms": {}, "display": None}, b"too short"),
    ({"reason": "no such reason", "message": ""}, b""),
    ({"view": None}, b"\0" * 224 * 224),
    ({"view": None, "warnings": [], "timings_ms": {}, "display": [9, 9]}, b"\0" * (224 * 224 + 80)),
    (
        {
            "view": None, "warnings": [], "timings_ms": {"read": 1, "preprocess": 1}, "display": None,
            "objections": [["no such reason", "because"]],
        },
        b"\0" * 224 * 224,
    ),
    (
        {
            "view": None, "warnings": [], "timings_ms": {"read": float("nan"), "preprocess": 1}, "display": None,
            "objections": [],
        },
        b"\0" * 224 * 224,
    ),
    (None, b""),
    ("reason", b""),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LIES)))
def test_an_answer_that_no_reader_gives_is_not_believed(number: int) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        read_of(Request(Path("film.png"), 224), *LIES[number])


def test_a_folder_and_what_is_gone_are_rejected(tmp_path: Path) -> None:
    with Readers(1) as processes:
        reads = all_of(processes.read([tmp_path, tmp_path / "gone.png"], 224))
    assert reasons(reads) == ["not-found", "not-found"]
    assert "is a folder" in reads[0].message  # type: ignore[union-attr]
    with pytest.raises(InputError, match="is a folder"):
        read_film(tmp_path)


def test_names_that_are_no_text_get_through(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png"))
    try:
        png(path)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with Readers(1) as processes:
        (film_read,) = all_of(processes.read([path], 224))
    assert isinstance(film_read, FilmRead) and os.fsencode(film_read.source) == os.fsencode(path)


def test_what_threads_of_this_process_hold_does_not_matter(tmp_path: Path) -> None:
    with read._ONE_AT_A_TIME, Readers(1, fork=True) as processes:
        assert reasons(all_of(processes.read([png(tmp_path / "a.png")], 224))) == ["ok"]


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.corpus
def test_no_hostile_file_hangs_or_takes_more_than_its_share() -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    paths = sorted(Path(root, "dicom", "hostile").iterdir())
    with Readers(2, time_limit=5) as processes:
        reads = all_of(processes.read(paths, 224))
    assert len(reads) == len(paths) > 100
    assert not {"crash", "too-slow"} & set(reasons(reads)), [f for f in reads if isinstance(f, Rejection)]


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_films_that_were_changed_anywhere_get_a_reason_and_the_next_is_read_well(
    changed: Callable[[str], tuple[Readers, bytes, Path]], kind: str, data: st.DataObject
) -> None:
    processes, whole, path = changed(kind)
    content = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:cut])
    ((film_read,),) = processes.read([path], 224)
    if isinstance(film_read, Rejection):
        # A decoder may crash: that it costs this file alone is what the processes are for.
        assert film_read.reason in REASONS and film_read.reason != "too-slow", film_read
        assert "\n" not in film_read.message and path.name in film_read.message
    else:
        assert film_read.image.shape == (224, 224)
    path.write_bytes(whole)
    ((film_read,),) = processes.read([path], 224)
    assert isinstance(film_read, FilmRead)
