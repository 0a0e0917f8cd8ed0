from __future__ import annotations

import base64
import copy
import re
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from edgecxr import NOTICE
from edgecxr.benchmark import record as records
from edgecxr.benchmark import report
from edgecxr.errors import UsageError
from edgecxr.terminal import printable
from tests.benchmark.benchmarked import STUDENT, TEACHER, record, row
from tests.cli_workspace import edgecxr

ROWS = [
    row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0),
    row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005),
    row(STUDENT, "onnxruntime", "int8", 1.0, 0.05),
]


def no_pictures(results: records.Record, chosen: object) -> dict[str, bytes]:
    return {}


def test_markdown_has_both_tables_the_recommendation_and_the_notice() -> None:
    text = report.markdown([record(ROWS)], 0.02)
    assert "| model | engine | precision |" in text and "Best against best" in text
    assert f"Recommended within 0.02 of AUROC: {STUDENT}/onnxruntime/fp32: 3.00 ms" in text
    assert text.endswith(NOTICE)
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


MARKERS = [*map(report.BEGIN.format, report.KINDS), report.END]
PIECES = [
    *MARKERS, "# head", "- item", "1. one", "> quote", "---", "===", "```", "~~~", "    code", "**b**", "__b__", "_i_",
    "`c`", "``", "\\", "|", "[a](http://b.c)", "![a](b)", "<http://b.c>", "http://b.c", "www.b.c", "a@b.c", "[a]: b",
    "<b>", "</td>", "<!--", "-->", "<script>", "&lt;", "&#33;", "$a$", "{{ a }}", "{% a %}", "~~s~~", "$(id)",
    "; rm -rf /",
    "'", '"', "\n", "\r\n", "\n\n# head\n", "\t", "\x1b[31m", "\x9b", "\u202e", "\ud800", "a", "-", " ", "Nodule/Mass",
    "0.5",
]  # fmt: skip
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), st.text(max_size=12))


def named(text: str) -> records.Record:
    """Return a record with this text wherever a partner may put one."""
    name, model = text[:290], f"s{text}"[:200]
    rows = copy.deepcopy([ROWS[0], ROWS[1] | {"model": model, "id": text, "problems": {name: text}, "no_auroc": text}])
    rows[1]["backend"] = text[:100]
    for each in rows:
        each["auroc"]["labels"] |= {name: each["auroc"]["labels"]["Edema"] | {"positives": 1}}
    rows.append(row(model, text[:100], "int8", 1.0, status="failed", reason=text, id=f"{text}/2"))
    rows[0]["energy"] = {"meter": text, "scope": text, "idle_watts": 1.5, "batches": [
        {"batch": 1, "images": 9, "seconds": 1.0, "joules_per_image": 0.5, "watts": 2.0}
    ]}  # fmt: skip
    results = record(
        rows, warnings=[text], absent={name: text}, film=text, command=text, notice=text, versions={name: text}
    )
    results["device"]["name"] = results["data"]["name"] = results["data"]["split"] = name
    return results


def rendered(text: str) -> list[Token]:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example("".join(PIECES))
@given(text=texts)
def test_names_of_a_record_add_no_markup_to_the_markdown(text: str) -> None:
    results = named(text)
    records.check(results, "a.json")
    written = report.markdown([results], 0.02)
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in rendered(written)}
    assert kinds <= {
        "paragraph", "inline", "text", "strong", "softbreak", "bullet_list", "list_item", "code_inline",
        "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert sum(token.type == "strong_open" for token in rendered(written)) == 1
    assert not [mark for mark in (*MARKERS, "<", ">", "](", "://", "www.", "{{", "$") if mark in written]
    assert not [c for c in written if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"]


@example("".join(PIECES))
@given(text=texts)
def test_what_is_escaped_is_shown_as_it_was(text: str) -> None:
    for before, after in (("- ", ""), ("|a|\n|---|\n| ", " |")):
        shown = "".join(
            token.content for token in rendered(f"{before}{report._escaped(text)}{after}")
            if token.type in ("text", "code_inline", "softbreak")
        )  # fmt: skip
        expected = ("a" if after else "") + re.sub("`(edgecxr [^`]*)`", r"\1", printable(text))
        assert shown.split() == expected.split()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(text="".join(PIECES), lines=["a", *MARKERS[::2], "b", *MARKERS[1:]], newline="\r\n", ended=False)
@example(text="", lines=["\ufeff" + MARKERS[0], report.END], newline="\n", ended=True)
@given(
    text=texts,
    lines=st.lists(st.sampled_from([*MARKERS, MARKERS[0], report.END, "a", "", f"`{MARKERS[0]}`", f"x {report.END}",
                                    "<!-- edgecxr report: some -->"]), max_size=6),
    newline=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
)  # fmt: skip
def test_a_file_is_filled_between_its_markers_or_refused_and_filled_again_is_the_same(
    text: str, lines: list[str], newline: str, ended: bool, tmp_path: Path
) -> None:
    page, results = tmp_path / "page.md", [named(text)]
    content = (newline.join(lines) + (newline if ended else "")).encode()
    page.write_bytes(content)
    try:
        count = report.insert(page, results, 0.02)
    except UsageError as error:
        assert page.read_bytes() == content and "page.md" in str(error)
        return
    filled = page.read_bytes()
    assert report.insert(page, results, 0.02) == count >= 1
    assert page.read_bytes() == filled
    assert outside(filled.decode(), newline) == outside(content.decode(), newline)
    assert filled.count(b"\r\n") == (filled.count(b"\n") if newline == "\r\n" else 0)


def outside(text: str, newline: str) -> list[str]:
    """Return the lines that are not between markers, and the markers."""
    kept, within = [], False
    for line in text.split(newline):
        within = within and line != report.END
        kept += [] if within else [line]
        within = within or line.strip("\ufeff") in MARKERS[:2]
    return kept


@pytest.mark.parametrize(
    ("lines", "good"),
    [
        ([MARKERS[0], "x", report.END], True),
        ([f"  {MARKERS[0]} ", "x", f"{report.END} "], True),
        ([MARKERS[0], report.END, "x", MARKERS[1], report.END], True),
        ([f"see `{MARKERS[0]}`", MARKERS[1], report.END], True),
        ([report.END, MARKERS[0]], False),
        ([report.END, MARKERS[0], report.END], False),
        ([MARKERS[0], MARKERS[0], "x", report.END], False),
        ([MARKERS[0], "x", report.END, "y", report.END], False),
        ([MARKERS[0], f"x {report.END}", "y", report.END], False),
        ([MARKERS[0] + report.END], False),
        ([MARKERS[0], report.END, "<!-- edgecxr report: some -->", report.END], False),
    ],
)
def test_markers_in_the_wrong_places_are_refused(tmp_path: Path, lines: list[str], good: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(lines))
    if good:
        assert report.insert(page, [record(ROWS)], 0.02)
        return
    with pytest.raises(UsageError, match=r"page\.md"):
        report.insert(page, [record(ROWS)], 0.02)
    assert page.read_text() == "\n".join(lines)


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
    results = record(ROWS, warnings=["<script>alert(1)</script>"])
    text = report.page([results, record(ROWS)], 0.02, no_pictures)
    tags = Tags()
    tags.feed(text)
    assert "<script>" not in text and "Some <board>" in tags.text and "<script>alert(1)</script>" in tags.text
    assert tags.sources == [] and tags.cells > 40
    assert tags.text.count("Recommended: ") == 2


class Shape(HTMLParser):
    """Collects the tags of a page with their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", ()))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example("".join(PIECES))
@given(text=texts)
def test_names_of_a_record_add_no_tags_to_the_page(text: str) -> None:
    shapes = []
    for name in (text, "0" if text[:1].isdigit() else "a"):
        page = report.page([named(name)], 0.02, no_pictures)
        page.encode()
        shapes.append(Shape())
        shapes[-1].feed(page)
        shapes[-1].close()
    # Cells that begin with a digit have a class.
    kinds = [[tag for tag, _ in shape.tags] for shape in shapes]
    assert kinds[0] == kinds[1] and printable(text) in shapes[0].text
    assert {names for tag, names in shapes[0].tags if tag == "td"} <= {(), ("class",)}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example("".join(PIECES))
@example("_$x^{$")
@given(text=texts)
def test_names_of_a_record_are_drawn_as_they_are(text: str) -> None:
    pytest.importorskip("matplotlib")
    from edgecxr.plots.records import pictures

    results = named(text)
    drawn = pictures(results, results["rows"][0])
    assert len(drawn) == 3
    for picture in drawn.values():
        ElementTree.fromstring(picture)


def test_a_name_is_drawn_whole_whatever_matplotlib_means_by_it() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from edgecxr.plots.figure import name

    names = ["$x$", "_hidden", r"\$a$", "$", "50 % $"]
    axes = Figure().subplots()
    for text in names:
        axes.plot([], [], label=name(text))
    legend = axes.legend()
    assert [text._preprocess_math(text.get_text()) for text in legend.get_texts()] == [
        (" _hidden" if text == "_hidden" else text, False) for text in names
    ]


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
    for options, message in (
        (("--html", "page.pdf"), "ends in .html"),
        (("--html", "page.html", "--into", "README.md"), "leave --html out"),
        (("--against", "nosuch"), "no record has that model"),
    ):
        typed = edgecxr("report", *options, runs=tmp_path / "runs")
        assert (typed.code, typed.out) == (2, "") and message in typed.error


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
    assert "Within one engine" in page.read_text()


def test_the_page_of_benchmarks_has_what_report_writes_now(tmp_path: Path) -> None:
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    page = shutil.copy(benchmarks / "README.md", tmp_path)
    kept = benchmarks / "results" / "cpu-2core" / "benchmark-nih_dev-1thread.json"
    against = ("--against", "teacher-base-224-untrained")
    assert edgecxr("report", kept, *against, "--into", page, runs=tmp_path / "runs").code == 0
    assert Path(page).read_text() == (benchmarks / "README.md").read_text()
