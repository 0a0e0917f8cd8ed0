from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgecxr.benchmark import record as records
from edgecxr.benchmark import report
from edgecxr.errors import UsageError
from tests.benchmark.benchmarked import STUDENT, TEACHER, record, row
from tests.cli_workspace import edgecxr

ROWS = [
    row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0),
    row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005),
    row(STUDENT, "onnxruntime", "int8", 1.0, 0.05),
]


def no_pictures(made: records.Record, chosen: object) -> dict[str, bytes]:
    return {}


def test_markdown_has_both_tables_the_recommendation_and_the_notice() -> None:
    text = report.markdown([record(ROWS)], 0.02)
    assert "| model | engine | precision |" in text and "Best against best" in text
    assert f"Recommended within 0.02 of AUROC: {STUDENT}/onnxruntime/fp32: 3.00 ms" in text
    assert text.endswith("Research use only. Not a medical device; not for diagnosis.")
    widths = {line.count("|") for line in text.split("Best against best")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1, "every line of a table has as many cells"


def test_what_stands_between_the_markers_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Title\n\n<!-- edgecxr report: best -->\nold\n<!-- end of edgecxr report -->\n\nafter\n")
    for _ in range(2):  # the second time, too
        assert report.insert(page, [record(ROWS)], 0.02) == 1
    text = page.read_text()
    assert text.startswith("# Title\n\n<!-- edgecxr report: best -->\n\n") and text.endswith("report -->\n\nafter\n")
    assert "old" not in text and text.count("Best against best") == 1 and "Within one engine" not in text


FORGOTTEN = (
    "<!-- edgecxr report: best -->\nno end, and prose\n<!-- edgecxr report: all -->\n<!-- end of edgecxr report -->\n"
)


@pytest.mark.parametrize("content", ["no marker", "<!-- edgecxr report: all -->\nno end", FORGOTTEN, None])
def test_a_file_without_markers_is_refused_with_what_to_add_and_kept(tmp_path: Path, content: str | None) -> None:
    page = tmp_path / "README.md"
    if content is not None:
        page.write_text(content)
    with pytest.raises(UsageError, match=r"README\.md"):
        report.insert(page, [record(ROWS)], 0.02)
    assert content is None or page.read_text() == content


class Tags(HTMLParser):
    """Collects what a page refers to, and checks that its tables are whole."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.cells = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.cells += tag == "td"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_no_other_file_and_takes_no_name_for_markup() -> None:
    made = record(ROWS, warnings=["<script>alert(1)</script>"])
    text = report.page([made, record(ROWS)], 0.02, no_pictures)
    tags = Tags()
    tags.feed(text)
    assert "<script>" not in text and "Some <board>" in tags.text and "<script>alert(1)</script>" in tags.text
    assert tags.sources == [] and tags.cells > 40
    assert tags.text.count("Recommended: ") == 2


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """The page of a record, as the command writes it."""
    pytest.importorskip("matplotlib")
    runs = tmp_path / "runs"
    records.write(record(ROWS), runs / "benchmark-2026-11-26.json")
    typed = edgecxr("report", runs=runs)
    assert typed.code == 0, typed.err
    assert "| model |" in typed.out
    return runs / "report.html"


def test_the_command_takes_the_workspaces_records_and_draws_three_pictures(drawn: Path) -> None:
    tags = Tags()
    tags.feed(drawn.read_text())
    assert len(tags.sources) == 3
    for source in tags.sources:
        assert source.startswith("data:image/svg+xml;base64,")
        picture = ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
        assert picture.tag.endswith("svg")


def test_the_findings_are_drawn_at_a_models_highest_precision_whatever_was_measured_first() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from edgecxr.plots.records import findings

    int8, fp32 = row(STUDENT, "tensorrt", "int8", 1.0, 0.1), row(STUDENT, "onnxruntime", "fp32", 4.0, 0.01)
    with matplotlib.rc_context({"svg.hashsalt": "the same"}):
        assert findings(record([int8, fp32])) == findings(record([fp32]))
        assert findings(record([int8])) != findings(record([fp32]))


@pytest.mark.slow
def test_a_browser_shows_the_page(drawn: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: apt install chromium")
    common = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = drawn.as_uri()
    shown = subprocess.run([*common, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert len(re.findall(r"<img ", shown.stdout)) == 3 and "Recommended" in shown.stdout
    picture = tmp_path / "page.png"
    subprocess.run(
        [*common, f"--screenshot={picture}", "--window-size=1200,3000", page],
        capture_output=True,
        timeout=120,
        check=True,
    )
    np = pytest.importorskip("numpy")
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] == 1200
    # Pictures that a browser refused would leave white boxes: there must be many colours of the plots.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_a_page_without_matplotlib_is_refused_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    records.write(record(ROWS), tmp_path / "runs" / "benchmark-1.json")
    monkeypatch.setitem(sys.modules, "edgecxr.plots.records", None)
    monkeypatch.delitem(sys.modules, "edgecxr.plots.records")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    typed = edgecxr("report", runs=tmp_path / "runs")
    assert typed.code == 5 and "matplotlib" in typed.error and "| model |" in typed.out


def test_options_are_looked_at_before_anything_is_printed(tmp_path: Path) -> None:
    records.write(record(ROWS), tmp_path / "runs" / "benchmark-1.json")
    for options, said in (
        (("--html", "page.pdf"), "ends in .html"),
        (("--html", "page.html", "--into", "README.md"), "leave --html out"),
        (("--against", "nosuch"), "no record has that model"),
    ):
        typed = edgecxr("report", *options, runs=tmp_path / "runs")
        assert (typed.code, typed.out) == (2, "") and said in typed.error


def test_a_record_of_nothing_is_left_out_unless_it_is_named(tmp_path: Path) -> None:
    empty = record([row(STUDENT, "onnxruntime", "fp32", 3.0, status="pending")], complete=False)
    records.write(empty, tmp_path / "runs" / "benchmark-1.json")
    assert edgecxr("report", runs=tmp_path / "runs").code == 3
    records.write(record(ROWS), tmp_path / "runs" / "benchmark-2.json")
    typed = edgecxr("report", runs=tmp_path / "runs")
    assert typed.code == 0 and "NOT COMPLETE" not in typed.out
    named = report.markdown([empty], 0.02)
    assert "NOT COMPLETE" in named and "|" not in named


def test_no_record_is_an_error_with_the_command_that_makes_one(tmp_path: Path) -> None:
    typed = edgecxr("report", runs=tmp_path / "runs")
    assert typed.code == 3 and "edgecxr benchmark" in typed.error


def test_a_file_is_filled_by_the_command(tmp_path: Path) -> None:
    records.write(record(ROWS), tmp_path / "a.json")
    page = tmp_path / "README.md"
    page.write_text("<!-- edgecxr report: all -->\n<!-- end of edgecxr report -->\n")
    typed = edgecxr("report", tmp_path / "a.json", "--into", page, runs=tmp_path / "runs")
    assert (typed.code, typed.out) == (0, "") and "1 place filled" in typed.err
    assert "Within one engine and precision" in page.read_text()
