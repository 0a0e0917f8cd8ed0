from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecxr import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_log_gets_the_end_and_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress("films") as update:
        for done in range(101):
            now = 1000.0 + done  # a second for each film
            update(done, 100, "fine" if done == 100 else "")
    lines = lines_of(capsys)
    assert lines[0] == "films: 15/100, about 85 s left"
    assert lines[-1] == "films: 100/100, fine"
    assert 6 <= len(lines) <= 8


def test_the_time_left_of_a_resumed_task_counts_only_what_was_done_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress("films") as update:
        update(80, 100)
        now = 20.0
        update(90, 100)  # ten in twenty seconds, ten more to come
    assert lines_of(capsys) == ["films: 90/100, about 20 s left"]


def test_a_rate_counts_what_was_done_since_the_task_began(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress("prepare") as update:
        counted = terminal.with_rate(update, "films")
        counted(80, 100)  # of an earlier run
        now = 20.0
        counted(90, 100)
        now = 25.0
        counted(100, 100)
    assert lines_of(capsys) == ["prepare: 90/100, about 20 s left, 0.5 films/s", "prepare: 100/100, 0.8 films/s"]


def test_the_last_line_is_printed_once_with_its_last_note(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), terminal.progress("train") as update:
        update(10, 10, "epoch 1/1")
        update(10, 10, "epoch 1/1 loss 0.5")
        raise KeyError
    assert lines_of(capsys) == ["train: 10/10, epoch 1/1 loss 0.5"]


def test_a_task_that_is_never_reported_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("films"):
        pass
    assert lines_of(capsys) == []


def test_a_terminal_gets_a_bar_and_notes_are_not_read_as_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with terminal.progress("train") as update:
        update(3, 10, "[bold]loss 1.5")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "train" in text and "3/10" in text and "[bold]loss 1.5" in text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_bar_is_one_line_of_the_terminal_with_its_note(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with terminal.progress("distill") as update:
        update(1234, 35000, "epoch 3/100 loss 0.412")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    bars = [line.split("\r")[-1] for line in text.splitlines() if "1234/35000" in line]
    assert bars and all(len(line.rstrip()) <= columns for line in bars)
    assert all("loss 0.412" in line if columns > 60 else "epoch 3/100" in line for line in bars)


@pytest.mark.parametrize(("seconds", "duration"), [(40, "60 s"), (400, "10 min"), (40_000, "16.7 h")])
def test_the_time_left_has_a_unit_that_one_can_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float, duration: str
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.progress("train") as update:
        update(0, 100)
        now = seconds
        update(40, 100)
    assert lines_of(capsys) == [f"train: 40/100, about {duration} left"]


def test_an_error_within_a_task_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        with pytest.raises(KeyError), terminal.progress("train") as update:
            update(1, 2)
            raise KeyError("x")


def test_say_prints_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("hello")
    assert lines_of(capsys) == ["hello"]


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("\u80ba film.dcm", "utf-8", "\u80ba film.dcm"),
        ("\u80ba film.dcm", "ascii", "\\u80ba film.dcm"),
        ("a\nb\tc", "utf-8", "a\\nb\\tc"),
        ("\x1b[31mred", "utf-8", "\\x1b[31mred"),
        ("\udcff.dcm", "utf-8", "\\udcff.dcm"),
        ("plain", None, "plain"),
    ],
)
def test_printable_escapes_what_a_terminal_would_obey_or_cannot_show(
    text: str, encoding: str | None, shown: str
) -> None:
    assert terminal.printable(text, encoding) == shown


HOSTILE = "a\x00\x07\x1b[31m\x7f\x85\x9b2J\u200b\u2028\u202e\u2066\ufeff\u3164\ufe0f\udcff\U000e0041\r\n\tz"
strangers = st.one_of(st.text(max_size=20), st.text(st.sampled_from(HOSTILE), max_size=20))


def unsafe(text: str, allowed: str = "") -> str:
    """Return the characters of a text that a terminal would obey, hide or reorder by."""
    ignorable = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
    return "".join(
        c
        for c in text
        if c not in allowed
        and (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or c in ignorable or "\ufe00" <= c <= "\ufe0f")
    )


@example(HOSTILE)
@given(text=strangers)
def test_whatever_stands_in_a_line_one_line_is_printed_and_nothing_that_a_terminal_obeys(text: str) -> None:
    for encoding in ("utf-8", "ascii", "latin-1"):
        shown = terminal.printable(text, encoding)
        assert not unsafe(shown) and shown.encode(encoding).decode(encoding) == shown
        assert terminal.printable(shown, encoding) == shown
    assert terminal.joined([text, "b"]).count("\n") == 1
    assert not unsafe("".join(terminal.aligned([[text, "b"], ["c"]])))
    out = io.StringIO()
    terminal.show(text, out)
    assert out.getvalue() == terminal.printable(text) + "\n"


@example(HOSTILE)
@given(text=strangers)
def test_json_is_printed_without_control_characters_and_says_the_same(text: str) -> None:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        terminal.show_json(json.dumps({text: text}, indent=1))
    assert not unsafe(out.getvalue(), "\n") and json.loads(out.getvalue()) == {text: text}


@example(HOSTILE)
@given(text=strangers)
def test_what_libraries_print_warn_and_log_is_escaped(text: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with terminal.guarded():
            print("text", text)
            sys.stderr.writelines(["a", text])
            sys.stderr.write(warning := warnings.formatwarning(text, UserWarning, text, 1, text))
            logging.lastResort.handle(logging.makeLogRecord({"msg": "%s", "args": (text,), "levelno": 40}))  # type: ignore[union-attr]
            try:
                raise ValueError(text)
            except ValueError:
                terminal.show_traceback()
        assert (sys.stdout, sys.stderr) == (out, err)
    assert not unsafe(out.getvalue() + err.getvalue(), "\n\t")
    assert warning.count("\n") == 1 and warning.endswith("\n")


def test_a_progress_bar_of_a_library_may_begin_with_a_carriage_return(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with terminal.guarded():
        sys.stderr.write("\rdone\r50 %")
    assert err.getvalue() == "\rdone\\r50 %"


def test_what_is_printed_to_a_file_during_a_bar_reaches_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    out, screen = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.guarded(), terminal.progress("infer") as update:
        terminal.show_json("{}")
        update(1, 2, HOSTILE)
    assert out.getvalue() == "{}\n"
    assert not unsafe(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()), "\r\n")
