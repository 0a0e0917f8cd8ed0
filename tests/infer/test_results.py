from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr import NOTICE
from edgecxr.bundle.gate import GateResult
from edgecxr.bundle.tested import CardResult
from edgecxr.films.display import LONG_SIDE, displayed
from edgecxr.films.radiograph import Objection, Radiograph
from edgecxr.infer.overlay import overlay
from edgecxr.infer.prediction import NOT_TESTED, UNRELIABLE, Prediction, Rejection
from edgecxr.infer.results import compared, printed
from edgecxr.metrics import Interval
from edgecxr.terminal import printable


def prediction(source: str = "scan.dcm", **changes: object) -> Prediction:
    values: dict = {
        "findings": {"Cardiomegaly": 0.3, "Pleural effusion": 0.9, "Nodule/Mass": 0.1234567, "Edema": 0.05},
        "abnormal": 0.75,
        "decisions": {
            "Cardiomegaly": True,
            "Pleural effusion": False,
            "Nodule/Mass": False,
            "Edema": False,
            "abnormal": True,
        },
        "thresholds": {
            "Cardiomegaly": 0.25,
            "Pleural effusion": 0.95,
            "Nodule/Mass": 0.5,
            "Edema": 0.0534,
            "abnormal": 0.5,
        },
        "operating_point": "youden",
        "attention": np.array([[0.7, 0.1], [0.1, 0.1]], np.float32),
        "model": "student-28",
        "source": source,
        "timings_ms": {"read": 1.23456, "preprocess": 2.0, "model": 3.0},
        "warnings": ("view not known",),
    }
    return Prediction(**values | changes)


REJECTION = Rejection("bad.dcm", "no-pixels", "bad.dcm has no pixels: send it again")
MODEL_LINE = "model student-28 (fp32); each value stands beside its threshold, chosen by the rule youden"
POSITIVE = "Cardiomegaly 0.30 >= 0.25; 3 below"


def on_test_films(**lows: float) -> dict[str, CardResult]:
    """Return test results, whose AUROC intervals begin at `lows`, else at 0.7; Edema was not tested."""
    names = [name for name in prediction().outputs if name != "Edema"]
    return {name: CardResult(Interval(0.8, lows.get(name.split()[0], 0.7), 0.9), 30, 40, {}) for name in names}


def print_results(results: Iterable[Prediction | Rejection], *arguments: Any) -> None:
    with printed(*arguments) as show_result:
        for result in results:
            show_result(result)


def test_plain_output_has_a_block_per_file_and_the_notice_once() -> None:
    stream = io.StringIO()
    print_results(iter([prediction(), REJECTION, prediction("other.dcm", warnings=())]), stream)
    assert stream.getvalue().splitlines() == [
        "scan.dcm",
        f"  abnormal 0.75 >= 0.50 | {POSITIVE}",
        "bad.dcm",
        "  rejected (no-pixels): has no pixels: send it again",
        "other.dcm",
        f"  abnormal 0.75 >= 0.50 | {POSITIVE}",
        "warning: 1 film (scan.dcm): view not known",
        MODEL_LINE,
        NOT_TESTED,
        NOTICE,
    ]


def test_of_a_film_alone_every_output_is_listed_with_its_threshold() -> None:
    stream = io.StringIO()
    print_results([prediction(tested=on_test_films(Pleural=0.5, abnormal=0.51))], stream, True)
    assert [line.split() for line in stream.getvalue().splitlines()] == [
        ["scan.dcm"],
        ["abnormal", "0.75", ">=", "0.50"],
        ["Cardiomegaly", "0.30", ">=", "0.25"],
        ["Pleural", "effusion?", "0.90", "<", "0.95"],  # its interval reaches 0.5
        ["Nodule/Mass", "0.12", "<", "0.50"],
        ["Edema?", "0.050", "<", "0.053"],  # not tested, though the others were
        ["warning:", "view", "not", "known"],
        MODEL_LINE.split(),
        f"? {UNRELIABLE}".split(),
        NOTICE.split(),
    ]


def test_findings_at_or_above_their_thresholds_are_listed_in_the_order_of_the_card_and_the_others_counted() -> None:
    for positive in (set(), {"Edema", "Cardiomegaly"}, set(prediction().findings)):
        decisions = {name: name in positive for name in prediction().outputs}
        thresholds = {name: 0.0 if name in positive else 1.0 for name in decisions}
        stream = io.StringIO()
        print_results([prediction(decisions=decisions, thresholds=thresholds)], stream)
        listed = stream.getvalue().splitlines()[1].partition(" | ")[2]
        assert re.findall(r"([A-Z][^,]*?) [\d.]+ >= 0.00", listed) == [
            n for n in prediction().findings if n in positive
        ]
        assert ("none of 4" in listed) == (not positive) and ("; 2 below" in listed) == (len(positive) == 2)


@given(
    value=st.floats(0, 1),
    threshold=st.one_of(st.floats(0, 1), st.integers(0, 5).map(lambda n: 10.0**-n)),
)
def test_a_value_and_its_threshold_show_which_one_is_larger(value: float, threshold: float) -> None:
    result = prediction(
        abnormal=value,
        thresholds=prediction().thresholds | {"abnormal": threshold},
        decisions=prediction().decisions | {"abnormal": value >= threshold},
    )
    left, sign, right = compared(result, "abnormal").split()
    assert sign == (">=" if value >= threshold else "<")
    assert abs(float(left) - value) <= 0.0051 and abs(float(right) - threshold) <= 0.0051
    if abs(value - threshold) > 1e-6 and threshold > 1e-6:
        assert (float(left) >= float(right)) == (value >= threshold)


def test_warnings_are_counted_once_at_the_end_and_those_of_other_numbers_are_alike() -> None:
    stream = io.StringIO()
    films = [
        prediction(f"/of/{n}.dcm", warnings=("dark", f"only {n} x {n} pixels", *["odd"] * (n == 3))) for n in range(5)
    ]
    print_results(films, stream)
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if "warning" in line] == [
        "warning: all 5 films: dark",
        "warning: all 5 films, of the first: only 0 x 0 pixels",
        "warning: 1 film (3.dcm): odd",
    ]
    stream = io.StringIO()
    print_results([prediction(f"{n}.dcm", warnings=["dark"] if n else []) for n in range(5)], stream)
    assert "warning: 4 films (1.dcm, 2.dcm and 2 more): dark" in stream.getvalue().splitlines()
    stream = io.StringIO()
    print_results([prediction(warnings=[f"kind {chr(97 + n)}" for n in range(26)])], stream)
    assert stream.getvalue().count("warning: ") == 20 and "and 6 more kinds" in stream.getvalue()


def test_what_the_gate_has_against_a_film_stands_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    objections = (Objection("view", "it is lateral"), Objection("not-chest", "it is a foot"))
    for verdict, message in (("forced", "refused by the quality gate"), ("warn", "quality gate warns"), ("pass", None)):
        gate = GateResult(verdict, objections if message else ())
        for stream in (io.StringIO(), Terminal()):
            print_results([prediction(gate=gate), prediction("b.dcm")], stream)
            assert stream.getvalue().count("view, not-chest") == bool(message)
            assert not message or stream.getvalue().count(message) == 1


def test_without_operating_points_the_thresholds_are_said_to_be_0_5() -> None:
    stream = io.StringIO()
    print_results([prediction(operating_point=None)], stream)
    assert "threshold, 0.5, since" in stream.getvalue()


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_what_was_predicted_before_the_end_is_shown_with_its_legend(end: type[BaseException]) -> None:
    def results() -> Iterator[Prediction]:
        yield prediction()
        raise end

    for stream in (io.StringIO(), Terminal()):
        with pytest.raises(end):
            print_results(results(), stream)
        assert "scan.dcm" in stream.getvalue() and stream.getvalue().count(NOTICE) == 1

    stream = io.StringIO()
    with pytest.raises(end):
        print_results(islice(results(), 1, None), stream)
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *results: Prediction | Rejection) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    print_results(results, stream)
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())


def test_a_row_is_on_the_terminal_before_the_next_film_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()

    def results() -> Iterator[Prediction]:
        yield prediction("first.dcm")
        assert "first.dcm" in stream.getvalue()
        yield prediction("second.dcm")

    print_results(results(), stream)
    assert "second.dcm" in stream.getvalue()


def test_a_wide_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_terminal(
        monkeypatch, 120, prediction(), prediction("[red]odd[/].dcm", warnings=("view not known", "dark")), REJECTION
    )
    cells = [re.split(r" {2,}", line.strip()) for line in shown.splitlines()]
    assert cells.pop(0)[:2] == ["film", "abnormal"]
    assert cells == [
        ["scan.dcm", "0.75 >= 0.50", POSITIVE],
        ["[red]odd[/].dcm", "0.75 >= 0.50", POSITIVE],
        ["bad.dcm", "rejected", "no-pixels: has no pixels: send it again"],
        ["warning: all 2 films: view not known"],
        ["warning: 1 film (].dcm): dark"],
        [MODEL_LINE],
        [NOT_TESTED],
        [NOTICE],
    ]
    starts = [line.find(text) for line in shown.splitlines() for text in ("abnormal", "0.75 >=", "rejected")]
    assert len({start for start in starts if 0 < start < 50}) == 1


def test_a_narrow_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, 60, prediction()).splitlines()[0] == "scan.dcm"


def test_only_rejections_are_still_a_table_with_the_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_terminal(monkeypatch, 100, REJECTION)
    assert "no-pixels" in shown
    assert NOTICE in shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_file_names_cannot_write_to_the_terminal_or_break_it(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    print_results([prediction(os.fsdecode("ä\x1b[2J\n".encode() + b"\xff.dcm"))], stream)
    stream.flush()
    first = raw.getvalue().decode(encoding).splitlines()[0]
    assert first == ("ä" if encoding == "utf-8" else r"\xe4") + r"\x1b[2J\n\udcff.dcm"


def test_printable_leaves_ordinary_text_alone() -> None:
    assert printable("Röntgen [1] 胸.dcm") == "Röntgen [1] 胸.dcm"


def test_results_need_neither_pillow_nor_rich() -> None:
    modules = "edgecxr.infer.results, edgecxr.infer.json_line"
    program = f"import sys, {modules}; sys.exit(bool({{'PIL', 'rich', 'pydicom'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def grey(height: int, width: int) -> Radiograph:
    return Radiograph(np.full((height, width), 0.5, np.float32), "grey")


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(2048, 1024, (1024, 512)), (600, 800, (600, 800)), (100, 100, (560, 560)), (2000, 4, (1024, 2))],
)
def test_the_film_keeps_its_aspect_above_the_caption(height: int, width: int, shown: tuple[int, int]) -> None:
    image = overlay(displayed(grey(height, width).pixels), prediction())
    assert image.mode == "RGB"
    assert max(shown) <= LONG_SIDE
    assert image.width == max(shown[1], 560)
    assert image.height > shown[0] + 100
    # The caption begins with its margin, in the background's colour, right below the film.
    column = np.asarray(image)[:, image.width // 2]
    assert (column[shown[0] : shown[0] + 10] == column[shown[0]]).all()
    assert (column[shown[0] - 1] != column[shown[0]]).any()


def test_colour_lies_where_the_attention_is_and_nowhere_else() -> None:
    pixels = np.asarray(overlay(displayed(grey(800, 800).pixels), prediction()))[:800, :800].astype(int)
    colourful = np.ptp(pixels, axis=2)
    assert colourful[100:300, 100:300].min() > 40
    assert colourful[600:, 600:].max() <= 4  # bicubic enlargement rings a little
    assert abs(pixels[700, 700] - 128).max() <= 4


def test_an_even_attention_leaves_the_film_grey() -> None:
    even = prediction(attention=np.full((7, 7), 1 / 49, np.float32))
    pixels = np.asarray(overlay(displayed(grey(800, 800).pixels), even))[:800, :800].astype(int)
    assert np.ptp(pixels, axis=2).max() <= 2


def test_the_attention_grid_covers_a_film_that_is_not_square() -> None:
    lower_right = prediction(attention=np.eye(14, dtype=np.float32)[[13]].T @ np.eye(14, dtype=np.float32)[[13]])
    pixels = np.asarray(overlay(displayed(grey(500, 1000).pixels), lower_right))[:500].astype(int)
    rows, columns = np.nonzero(np.ptp(pixels, axis=2) > 40)
    assert (rows.max(), columns.max()) == (499, 999)
    assert rows.min() > 400
    assert columns.min() > 800


def caption(name: str | None = None, **changes: object) -> np.ndarray:
    return np.asarray(overlay(displayed(grey(560, 560).pixels), prediction(**changes), name))[560:]


def test_the_caption_says_what_was_decided() -> None:
    negative = caption(decisions=dict.fromkeys(prediction().decisions, False))
    assert caption().shape == negative.shape
    for other in (negative, caption(thresholds=dict.fromkeys(prediction().thresholds, 0.6))):
        assert (caption() != other).any()
    assert (caption(model="another") != caption()).any()


def test_the_caption_grows_until_all_is_told() -> None:
    heights = [
        caption(**changes).shape[0]  # type: ignore[arg-type]
        for changes in (
            {"warnings": ()}, {"name": "scan.dcm", "warnings": ()}, {"name": "scan.dcm", "warnings": ["word " * 9]},
            {"name": "scan.dcm", "warnings": ["word " * 60]}, {"name": "x" * 300, "warnings": ["word " * 60]},
        )
    ]  # fmt: skip
    assert heights == sorted(set(heights))


def test_a_refusal_is_a_red_band_across_the_picture() -> None:
    objections = (Objection("not-chest", "it is a foot"),)

    def red(gate: GateResult) -> int:
        colours = caption(gate=gate)[:, 3].astype(int)
        return int(((colours[:, 0] > 150) & (colours[:, 1] < 80)).sum())

    assert red(GateResult("pass")) == 0
    assert [red(GateResult(verdict, objections)) for verdict in ("forced", "warn")] == [34, 34]


def test_long_names_and_many_findings_do_not_break_the_caption() -> None:
    labels = {f"a finding with a very long name, number {n}\n": n / 30 for n in range(28)}
    few, many = (
        overlay(
            displayed(grey(560, 560).pixels),
            prediction(findings=labels, decisions={name: decided for name in [*labels, "abnormal"]},
                       thresholds=dict.fromkeys([*labels, "abnormal"], 0.5), model="model" * 99),
        )
        for decided in (False, True)
    )  # fmt: skip
    assert few.width == many.width == 560
    assert few.height < many.height  # of findings below their thresholds some are counted, the others are all drawn
