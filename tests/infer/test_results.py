from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fastjsonschema
import numpy as np
import pytest

from edgecxr import NOTICE
from edgecxr.bundle.gate import GateResult
from edgecxr.errors import GATE_REASONS, REASONS
from edgecxr.films.display import LONG_SIDE, displayed
from edgecxr.films.radiograph import Objection, Radiograph
from edgecxr.infer import results
from edgecxr.infer.overlay import overlay
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.results import SCHEMA, print_results, printable, to_json, top_findings


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
            "Edema": 0.0034,
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
LEGEND_LINE = (
    "* at or above the youden operating point of student-28: abnormal 0.50, Cardiomegaly 0.25, Pleural effusion 0.95, "
    "Nodule/Mass 0.50, Edema 0.003"
)


def test_a_prediction_is_one_object_with_every_probability_and_decision() -> None:
    line = to_json(prediction())
    assert "\n" not in line
    assert json.loads(line) == {
        "source": "scan.dcm",
        "status": "ok",
        "schema": 1,
        "model": "student-28",
        "precision": "fp32",
        "operating_point": "youden",
        "abnormal": {"probability": 0.75, "threshold": 0.5, "decision": True},
        "findings": {
            "Cardiomegaly": {"probability": 0.3, "threshold": 0.25, "decision": True},
            "Pleural effusion": {"probability": 0.9, "threshold": 0.95, "decision": False},
            "Nodule/Mass": {"probability": 0.1234567, "threshold": 0.5, "decision": False},
            "Edema": {"probability": 0.05, "threshold": 0.0034, "decision": False},
        },
        "timings_ms": {"read": 1.235, "preprocess": 2.0, "model": 3.0},
        "gate": {"verdict": "pass", "distance": None, "threshold": None, "objections": []},
        "warnings": ["view not known"],
        "notice": NOTICE,
    }


def lines_of_every_kind() -> Iterator[str]:
    yield to_json(prediction())
    yield to_json(prediction(operating_point=None, gate=GateResult("pass", (), 0.9, 1.5)), attention=True)
    far = GateResult("forced", (Objection("not-chest", "it is a foot"),), 2.5, 1.5)
    yield to_json(prediction(gate=far))
    yield to_json(REJECTION)
    for reason in set(REASONS) - {"dataset"}:
        objection = Objection(reason if reason in GATE_REASONS else "view", "it is another")
        yield to_json(Rejection("a.dcm", reason, "a.dcm is refused", GateResult("refuse", (objection,))))


def test_every_line_is_as_the_schema_says() -> None:
    check = fastjsonschema.compile(json.loads((Path(results.__file__).parent / "result.schema.json").read_text()))
    for line in lines_of_every_kind():
        check(json.loads(line))
    whole = json.loads(to_json(prediction()))
    for key in whole:
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check({name: value for name, value in whole.items() if name != key})
    for wrong in ({"schema": SCHEMA + 1}, {"status": "rejected"}, {"more": 1}, {"gate": None}):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check(whole | wrong)


def test_the_attention_is_added_on_request() -> None:
    assert json.loads(to_json(prediction(), attention=True))["attention"] == [[0.7, 0.1], [0.1, 0.1]]


def test_a_rejection_is_one_object() -> None:
    assert json.loads(to_json(REJECTION)) == {
        "source": "bad.dcm",
        "status": "rejected",
        "schema": 1,
        "reason": "no-pixels",
        "message": "bad.dcm has no pixels: send it again",
        "model": None,
        "precision": None,
        "gate": None,
        "notice": NOTICE,
    }


@pytest.mark.parametrize("raw", [b"two\nlines\r.dcm", b"\xff\xfe.dcm", "Mädchen\u2028.dcm".encode(), b"\x1b[31m.dcm"])
def test_any_file_name_fits_on_one_line_of_ascii_and_comes_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    for line in (to_json(prediction(name)), to_json(Rejection(name, "blank", f"{name} is blank"))):
        assert line.isascii()
        assert len(line.splitlines()) == 1
        assert os.fsencode(json.loads(line)["source"]) == raw


def test_what_was_decided_positive_comes_first_then_the_likeliest() -> None:
    assert top_findings(prediction(), 2) == [("Cardiomegaly", 0.3, True), ("Pleural effusion", 0.9, False)]
    every = dict.fromkeys(prediction().decisions, True)
    assert len(top_findings(prediction(decisions=every), 2)) == 4


def test_plain_output_has_a_block_per_file_and_the_notice_once() -> None:
    stream = io.StringIO()
    print_results(iter([prediction(), REJECTION, prediction("other.dcm", warnings=())]), stream)
    assert stream.getvalue().splitlines() == [
        "scan.dcm",
        "  abnormal 0.75 * | Cardiomegaly 0.30 *, Pleural effusion 0.90, Nodule/Mass 0.12",
        "  warning: view not known",
        "bad.dcm",
        "  rejected (no-pixels): bad.dcm has no pixels: send it again",
        "other.dcm",
        "  abnormal 0.75 * | Cardiomegaly 0.30 *, Pleural effusion 0.90, Nodule/Mass 0.12",
        LEGEND_LINE,
        NOTICE,
    ]


def test_common_warnings_are_printed_once_and_before_the_films() -> None:
    stream = io.StringIO()
    print_results([prediction(), prediction("b.dcm", warnings=("dark", "view not known"))], stream, ["view not known"])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "warning: view not known" and lines[1] == "scan.dcm"
    assert [line for line in lines[1:] if "warning" in line] == ["  warning: dark"]


def test_without_operating_points_the_legend_speaks_of_thresholds() -> None:
    stream = io.StringIO()
    print_results([prediction(operating_point=None)], stream)
    assert "* at or above the threshold of student-28: abnormal 0.50, " in stream.getvalue()


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
    findings = "Cardiomegaly 0.30 *, Pleural effusion 0.90, Nodule/Mass 0.12"
    assert cells == [
        ["film", "abnormal", "findings"],
        ["scan.dcm", "0.75 *", findings],
        ["warning: view not known"],
        ["[red]odd[/].dcm", "0.75 *", findings],
        ["warning: view not known"],
        ["warning: dark"],
        ["bad.dcm", "rejected", "no-pixels: bad.dcm has no pixels: send it again"],
        [LEGEND_LINE],
        [NOTICE],
    ]
    starts = [line.find(text) for line in shown.splitlines() for text in ("abnormal", "0.75 *", "rejected")]
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


def test_json_needs_neither_pillow_nor_rich() -> None:
    program = "import sys, edgecxr.infer.results; sys.exit(bool({'PIL', 'rich', 'pydicom'} & set(sys.modules)))"
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


def test_the_caption_says_what_was_decided() -> None:
    def caption(**changes: object) -> np.ndarray:
        return np.asarray(overlay(displayed(grey(560, 560).pixels), prediction(**changes)))[560:]

    negative = caption(decisions=dict.fromkeys(prediction().decisions, False))
    assert caption().shape == negative.shape
    assert (caption() != negative).any()
    assert (caption(model="another") != caption()).any()


def test_long_names_and_many_findings_do_not_break_the_caption() -> None:
    labels = {f"a finding with a very long name, number {n}\n": n / 30 for n in range(28)}
    many = prediction(findings=labels, decisions=dict.fromkeys([*labels, "abnormal"], True), model="model" * 99)
    assert overlay(displayed(grey(560, 560).pixels), many).width == 560
