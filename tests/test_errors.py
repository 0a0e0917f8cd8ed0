from __future__ import annotations

import pickle
import re

import pytest

from edgecxr import errors

EXAMPLES = (
    errors.EdgeCxrError("something"),
    errors.UsageError("--lr -1"),
    errors.InputError("film.dcm is blank", "blank"),
    errors.ModelError("model.onnx is gone"),
    errors.MissingPackage("torch", "train", "method 'mlcak'"),
    errors.CheckFailed("differs"),
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


def test_a_missing_package_names_the_command_that_brings_it():
    assert str(EXAMPLES[4]) == "method 'mlcak' needs torch, which is not installed: pip install 'edgecxr[train]'"
