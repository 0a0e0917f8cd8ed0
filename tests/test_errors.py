from __future__ import annotations

import pickle
import re

import pytest

from edgecxr import errors, extras

EXAMPLES = (
    errors.EdgeCxrError("something"),
    errors.UsageError("--lr -1"),
    errors.InputError("film.dcm is blank", "blank"),
    errors.ModelError("model.onnx is gone"),
    errors.MissingPackage("torch", "train", "method 'mlcak'"),
    errors.CheckFailed("differs"),
    errors.TimeIsUp("8 hours are over"),
)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_out_of_a_worker_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code
    assert vars(copy) == vars(error)


def test_the_docstring_draws_the_tree_with_its_exit_codes():
    drawn = dict(re.findall(r"^    (?: \+-- )?(\w+) +(\d)  ", errors.__doc__, flags=re.MULTILINE))
    every = {errors.EdgeCxrError, *errors.EdgeCxrError.__subclasses__()}
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in every}
    assert {type(error) for error in EXAMPLES} == every
    assert len({kind.exit_code for kind in every}) == len(every)  # programs tell them apart


def test_an_input_error_has_a_reason_that_programs_know():
    assert errors.InputError("film.dcm is blank", "blank").reason == "blank"
    with pytest.raises(ValueError, match="no-such-reason"):
        errors.InputError("film.dcm", "no-such-reason")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("short", "short"),
        ("two\n\tlines\x1b[31m ", "two lines?[31m"),
        ("", "no details"),
        ("word " * 40, "word " * 30 + "word..."),
        ("one, " * 40, "one, " * 30 + "one..."),
        ("x" * 200, "x" * 157 + "..."),
    ],
)
def test_what_a_library_said_is_cut_between_words(message: str, shown: str):
    assert errors.brief(message) == shown and len(shown) <= 160


def test_a_missing_package_names_the_command_that_brings_it():
    message = f"method 'mlcak' needs torch, which is not installed: {extras.command('train')}"
    assert str(EXAMPLES[4]) == message and "[train]" in message


def test_a_package_that_does_not_load_says_why():
    with pytest.raises(errors.MissingPackage, match=r"reading DICOM needs pydicom, which does not load \(libx.so: no"):
        try:
            raise ImportError("libx.so: no such file\nand more")
        except ImportError as error:
            raise errors.MissingPackage("pydicom", "", "reading DICOM") from error
