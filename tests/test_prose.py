"""The sentences that users read are kept in one file, so that other tests need not quote them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.prose import GOLDEN, sentences, text

TESTS = Path(__file__).parent
MOST_WORDS = 4


def test_the_sentences_that_users_read_are_those_of_the_golden_file():
    assert text() == GOLDEN.read_text(encoding="utf-8"), "read what has changed, then `make prose`"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise ValueError('give another file instead')", ["give another file instead"]),
        ("say(f'{a} of {b} films are read' ', twice over')", ["{} of {} films are read, twice over"]),
        ("f'{x} ({\"none of them is here\" if y else z})'", ["none of them is here"]),
        ("def f():\n    '''Return what nobody has seen.'''", []),
        ("NAMES = ('one', 'two words')", []),
    ],
)
def test_sentences_are_found_wherever_they_stand(code: str, expected: list[str]):
    assert sentences(code) == expected


def quoted(node: ast.AST) -> list[str]:
    """Return the strings that a test compares with, by assert or by match=."""
    if isinstance(node, ast.Assert):
        checked = node.test
    elif isinstance(node, ast.keyword) and node.arg == "match":
        checked = node.value
    else:
        return []
    return [part.value for part in ast.walk(checked) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def words(sentence: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", sentence.lower())


def test_tests_quote_few_words_of_a_sentence():
    golden = " ".join(words(GOLDEN.read_text(encoding="utf-8")))
    long = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for text_of_test in quoted(node):
                every = words(text_of_test)
                runs = (" ".join(every[at : at + MOST_WORDS + 1]) for at in range(len(every) - MOST_WORDS))
                if any(f" {run} " in f" {golden} " for run in runs):
                    long.append(f"{path.relative_to(TESTS)}:{node.lineno}: {text_of_test}")
    assert not long, "pin the reason, exit code, number, flag or file; of a sentence at most four words"
