"""What a launcher, or what is left of one, says in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr import terminal
from edgecxr.errors import UsageError
from edgecxr.launcher import number_of_several, place
from tests.cli_workspace import edgecxr
from tests.tiny_bundle import tiny_bundle

TORCHRUN = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK")
PARSED = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "MASTER_PORT")
VALUES = st.sampled_from(["", "0", "1", "2", "3", " 1 ", "x", "-1", "1.5", "²", "9" * 40])


@given(
    variables=st.dictionaries(st.sampled_from(TORCHRUN), VALUES)
    | st.fixed_dictionaries({name: st.sampled_from("0123") for name in TORCHRUN}),
    more=st.dictionaries(st.sampled_from(PARSED), VALUES, max_size=1),
)
def test_variables_make_sense_or_are_a_mistake_of_usage(variables: dict[str, str], more: dict[str, str]) -> None:
    variables = variables | more
    with patch.dict(os.environ, variables):
        for name in {*TORCHRUN, *PARSED} - set(variables):
            os.environ.pop(name, None)
        try:
            own_place = place()
        except UsageError as error:
            assert "torchrun" in str(error) and variables
            assert number_of_several() is None and terminal.speaks(), "an error is heard, whatever RANK says"
            return
        for name in PARSED:  # as Lightning reads them
            assert int(variables.get(name, "0")) >= 0
        rank = int(variables.get("RANK", "0"))
        assert rank < own_place.ranks >= own_place.local_ranks > (own_place.local_rank or 0)
        assert number_of_several() == (rank if own_place.ranks > 1 else None)
        assert terminal.speaks() == (rank == 0), "of several, only the first speaks"


def test_what_torchrun_sets_makes_sense() -> None:
    for ranks in (1, 2, 3):
        for rank in range(ranks):
            values = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank}
            with patch.dict(
                os.environ, {name: str(value) for name, value in values.items()} | {"MASTER_PORT": "29500"}
            ):
                assert place() == (ranks, ranks, rank)


LEFT = pytest.mark.parametrize(
    "left",
    [{"WORLD_SIZE": "2", "LOCAL_RANK": "a"}, {"MASTER_PORT": "x"}, {"RANK": "3"}, {"WORLD_SIZE": "1", "RANK": "3"}],
    ids=lambda left: " ".join(f"{name}={value}" for name, value in left.items()),
)


@LEFT
def test_what_a_launcher_left_is_named_before_lightning_stumbles_over_it(left: dict[str, str]) -> None:
    code = "from edgecxr.registry import load; load('edgecxr.train.device:Device', 'train')"
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **left}, capture_output=True, text=True, check=False
    )
    last = ended.stderr.splitlines()[-1]
    assert "UsageError" in last and "torchrun" in last and list(left)[-1] in last


def test_a_rank_that_was_left_silences_no_command(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "bundle")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "notes.txt").write_text("no film")
    words = ("infer", tmp_path / "films", "--model", tmp_path / "bundle")
    typed = edgecxr(*words, runs=tmp_path / "runs", RANK="3")
    assert typed == edgecxr(*words, runs=tmp_path / "runs") and "passed over" in typed.err
