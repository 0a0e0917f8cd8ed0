from __future__ import annotations

import io
import re

import pytest

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
