from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr import NOTICE, __version__
from edgecxr.bundle.gate import GateResult
from edgecxr.errors import GATE_REASONS, REASONS
from edgecxr.films.radiograph import Objection
from edgecxr.infer import json_line
from edgecxr.infer.json_line import SCHEMA, ModelIdentity, record_of, stamp_of, to_json, uids_of
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.rendering import CODES
from edgecxr.vocabulary import WITHOUT_RESULT
from tests.infer.test_results import REJECTION, on_test_films, prediction

MODEL = ModelIdentity("student-28", "fp32", "ab" * 32, "youden")
OF_EVERY_LINE = {
    "schema": 3,
    "edgecxr": __version__,
    "model": "student-28",
    "model_sha256": "ab" * 32,
    "precision": "fp32",
    "operating_point": "youden",
    "film": None,
    "file": None,
    "notice": NOTICE,
}


def line(result: Prediction | Rejection, *more: Any, model: ModelIdentity = MODEL, **outcome: Any) -> str:
    return to_json(record_of(result, model, *more, **outcome))


def test_a_prediction_is_one_object_with_every_probability_and_decision() -> None:
    text = line(prediction())
    assert "\n" not in text
    record = json.loads(text)
    moment = datetime.fromisoformat(record.pop("time"))
    assert abs(datetime.now(timezone.utc) - moment) < timedelta(minutes=10)
    assert record == OF_EVERY_LINE | {
        "source": "scan.dcm",
        "status": "ok",
        "abnormal": {"probability": 0.75, "threshold": 0.5, "decision": True, "unreliable": None},
        "findings": {
            "Cardiomegaly": {"probability": 0.3, "threshold": 0.25, "decision": True, "unreliable": None},
            "Pleural effusion": {"probability": 0.9, "threshold": 0.95, "decision": False, "unreliable": None},
            "Nodule/Mass": {"probability": 0.1234567, "threshold": 0.5, "decision": False, "unreliable": None},
            "Edema": {"probability": 0.05, "threshold": 0.0534, "decision": False, "unreliable": None},
        },
        "timings_ms": {"read": 1.235, "preprocess": 2.0, "model": 3.0},
        "gate": {"verdict": "pass", "distance": None, "threshold": None, "objections": []},
        "warnings": ["view not known"],
        "codes": [],
        "overlay": None,
        "dicom": None,
    }


def lines_of_every_kind() -> Iterator[str]:
    yield line(prediction())
    yield line(prediction(gate=GateResult("pass", (), 0.9, 1.5)), True, model=replace(MODEL, operating_point=None))
    far = GateResult("forced", (Objection("not-chest", "it is a foot"),), 2.5, 1.5)
    yield line(prediction(gate=far))
    yield line(prediction(codes=tuple(CODES)))
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}
    file = {"kind": "sr", "path": "out/sr-1.dcm", "SOPInstanceUID": "1.5"}
    yield line(prediction(), outcome={"film": uids, "overlay_reason": "not-drawn"})
    for reason, files in ((None, [file]), *((code, []) for code in WITHOUT_RESULT if code != "not-drawn")):
        filed = {"files": files, "reason": reason, "message": "dicom: it"}
        yield line(prediction(), outcome={"film": uids, "overlay": "out/a.png", "dicom": filed})
    stamp = {"bytes": 3, "modified": "2026-11-29T07:36:44.123456+00:00"}
    yield line(REJECTION, outcome={"film": uids, "file": stamp})
    for reason in set(REASONS) - {"dataset"}:
        objection = Objection(reason if reason in GATE_REASONS else "view", "it is another")
        yield line(Rejection("a.dcm", reason, "a.dcm is refused", GateResult("refuse", (objection,))))


def test_every_line_is_as_the_schema_says() -> None:
    check = fastjsonschema.compile(json.loads((Path(json_line.__file__).parent / "result.schema.json").read_text()))
    for text in lines_of_every_kind():
        check(json.loads(text))
    for kind in (REJECTION, prediction()):
        whole = json.loads(line(kind))
        for key in whole:
            with pytest.raises(fastjsonschema.JsonSchemaException):
                check({name: value for name, value in whole.items() if name != key})
    whole = json.loads(line(prediction()))
    for wrong in ({"schema": SCHEMA + 1}, {"status": "rejected"}, {"more": 1}, {"gate": None}):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check(whole | wrong)


def test_an_output_whose_interval_reaches_a_half_is_unreliable() -> None:
    record = json.loads(line(prediction(tested=on_test_films(Pleural=0.5, abnormal=0.5001))))
    outputs = record["findings"] | {"abnormal": record["abnormal"]}
    unreliable = {name for name, output in outputs.items() if output["unreliable"]}
    assert unreliable == {"Pleural effusion", "Edema"}
    assert {output["unreliable"] for output in outputs.values()} == {True, False}


def test_the_attention_is_added_on_request() -> None:
    assert json.loads(line(prediction(), True))["attention"] == [[0.7, 0.1], [0.1, 0.1]]


def test_a_rejection_is_one_object() -> None:
    record = json.loads(line(REJECTION))
    assert record.pop("time")
    assert record == OF_EVERY_LINE | {
        "source": "bad.dcm",
        "status": "rejected",
        "reason": "no-pixels",
        "message": "bad.dcm has no pixels: send it again",
        "overlay": None,
        "dicom": None,
        "gate": None,
    }


@pytest.mark.parametrize("raw", [b"two\nlines\r.dcm", b"\xff\xfe.dcm", "Mädchen\u2028.dcm".encode(), b"\x1b[31m.dcm"])
def test_any_file_name_fits_on_one_line_of_ascii_and_comes_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    for text in (line(prediction(name)), line(Rejection(name, "blank", f"{name} is blank"))):
        assert text.isascii()
        assert len(text.splitlines()) == 1
        assert os.fsencode(json.loads(text)["source"]) == raw


def test_a_film_is_named_by_the_uids_that_it_has() -> None:
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "SOPInstanceUID": "1.4"}
    assert uids_of(uids | {"SOPClassUID": "1.5"}) == uids
    assert uids_of({"StudyInstanceUID": "1.2 A"}) == dict.fromkeys(uids, "") | {"StudyInstanceUID": "1.2 A"}
    assert uids_of(None) is None and uids_of(dict.fromkeys(uids, "")) is None


@given(seconds=st.integers(-(2**31) + 1, 2**31), nanoseconds=st.integers(0, 999_999_999), size=st.integers(0, 9))
def test_a_file_that_changed_has_another_stamp(
    tmp_path_factory: pytest.TempPathFactory, seconds: int, nanoseconds: int, size: int
) -> None:
    file = tmp_path_factory.mktemp("stamps") / "a.dcm"
    file.write_bytes(b"x" * size)
    time = 10**9 * seconds + nanoseconds
    os.utime(file, ns=(time, time))
    before = stamp_of(file)
    assert before == stamp_of(file) and before is not None and before["bytes"] == size
    os.utime(file, ns=(time, time + 1_000_000))
    later = stamp_of(file)
    file.write_bytes(b"x" * (size + 1))
    os.utime(file, ns=(time, time))
    assert before != later and before != stamp_of(file)
    for absent in (file / "below", file.with_name("gone"), file.with_name("a\0b")):
        assert stamp_of(absent) is None
