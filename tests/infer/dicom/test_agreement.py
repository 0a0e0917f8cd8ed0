"""What other programs make of reports and pictures: they must file them under the patient and study of the film."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from edgecxr.films.header import NOT_REPEATED, read_header
from edgecxr.infer.predictor import Predictor
from edgecxr.infer.run import InferOptions, infer_paths, readers_for
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle

pytest.importorskip("highdicom", reason="highdicom is not installed")

REPEATED = ("PatientName", "PatientID", "IssuerOfPatientID", "StudyID", "AccessionNumber", "ReferringPhysicianName")
CODECS = {
    None: ("ascii", "latin-1", "gbk", "shift_jis", "utf-8"), "ISO_IR 100": ("latin-1",), "ISO_IR 101": ("iso8859_2",),
    "ISO_IR 126": ("iso8859_7",), "ISO_IR 144": ("iso8859_5",), "ISO_IR 192": ("utf-8",), "GB18030": ("gb18030",),
    "ISO_IR 999": ("utf-8",),
}  # fmt: skip
"""SpecificCharacterSet -> what the bytes are in; undeclared bytes may be in anything."""

NO_TEXT = ("Cc", "Cs", "Cn", "Co", "Zl", "Zp", "Cf", "Zs", "Mn")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("model") / "bundle"))


@st.composite
def identified(draw: Any) -> tuple[str | None, dict[str, bytes]]:
    """Return a declared character set, and identifiers of up to 200 characters in bytes."""
    declared = draw(st.sampled_from(list(CODECS)))
    codec = draw(st.sampled_from(CODECS[declared]))
    letters = st.characters(codec=codec, exclude_categories=NO_TEXT, exclude_characters="\\^=~")
    texts = st.text(letters, max_size=200) | st.text(letters, max_size=16)
    return declared, {keyword: draw(texts).encode(codec) for keyword in REPEATED}


def source(folder: Path, declared: str | None, values: dict[str, bytes], study: str = "1.2.826.9.1") -> Path:
    """Write a film with the very bytes of some identifiers."""
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 230
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.2", "SOPInstanceUID": f"{study}.3"}
    padded = {keyword: value + b" " * (len(value) % 2) for keyword, value in values.items() if value}
    held = {keyword: "A" * len(value) for keyword, value in padded.items()}
    elements = {"SpecificCharacterSet": declared, "StudyDate": "20240131", "StudyTime": "081530", **uids, **held}
    path = write(film(pixels, **elements), folder)
    content = path.read_bytes()
    for keyword, value in padded.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        head = struct.pack("<HH2sH", tag.group, tag.element, dictionary_VR(tag).encode(), len(value))
        assert content.count(head + b"A" * len(value)) == 1
        content = content.replace(head + b"A" * len(value), head + value)
    path.write_bytes(content)
    return path


def results(predictor: Predictor, path: Path, folder: Path) -> list[Path]:
    options = InferOptions(as_json=True, dicom=folder)
    with readers_for(options, 1) as readers:
        infer_paths(predictor, readers, [path], options)
    return sorted(folder.glob("*.dcm"))


def ended(tool: str, path: Path) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: dcmtk, dicom3tools)")
    return subprocess.run([tool, str(path)], capture_output=True, timeout=60)


def by_dcmtk(path: Path) -> dict[str, str]:
    """Return what DCMTK reads, by keyword; "" if absent, or if DCMTK cannot convert the file's text."""
    dump = ended("dcm2json", path)
    try:
        read = json.loads(dump.stdout)
    except ValueError:
        return {}
    values = {}
    for keyword in (*REPEATED, "StudyInstanceUID"):
        texts = read.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value", [""])
        parts = [part.get("Alphabetic", "") if isinstance(part, dict) else part for part in texts if part is not None]
        values[keyword] = "\\".join(parts)
    return values


def agree(predictor: Predictor, folder: Path, declared: str | None, values: dict[str, bytes]) -> None:
    path = source(folder, declared, values)
    header = read_header(path, "patient")
    lost = header[NOT_REPEATED].split()
    files = results(predictor, path, folder / "results")
    if {"PatientID", "IssuerOfPatientID"} & set(lost):
        assert files == []
        return
    assert len(files) == 2
    plain = all(value.isascii() for value in values.values())
    if plain or (declared and declared != "ISO_IR 999"):
        assert lost == []
    by_others = by_dcmtk(path)
    for result in files:
        read = by_dcmtk(result)
        assert read["StudyInstanceUID"] == "1.2.826.9.1"
        for keyword in REPEATED:
            if keyword in lost:
                assert read[keyword] == ""
            elif by_others and declared not in (None, "ISO_IR 999"):
                assert read[keyword].strip() == by_others[keyword].strip(), keyword
            elif plain:
                assert read[keyword].strip() == values[keyword].decode().strip(), keyword
        errors = [line for line in ended("dciodvfy", result).stderr.splitlines() if line.startswith(b"Error")]
        # What is too long for DICOM is so in the film, too; dciodvfy counts bytes where DICOM counts characters.
        too_long = [line for line in errors if b"Length invalid for this VR" in line]
        summary = [b"Error - Dicom dataset contains invalid data values for Value Representations"] * bool(too_long)
        assert sorted(errors) == sorted([*too_long, *summary])
        assert all(any(_place(keyword) in line for keyword in REPEATED) for line in too_long)
        if all(len(read[keyword].encode()) <= 16 for keyword in REPEATED):
            assert errors == []


def _place(keyword: str) -> bytes:
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"(0x{tag.group:04x},0x{tag.element:04x})".encode()


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck))
@given(film_values=identified())
def test_dcmtk_and_dciodvfy_read_the_film_s_identifiers_in_its_results(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory, film_values: tuple[str | None, dict[str, bytes]]
) -> None:
    agree(predictor, tmp_path_factory.mktemp("film"), *film_values)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(film_values=identified())
def test_they_do_so_of_many_films(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory, film_values: tuple[str | None, dict[str, bytes]]
) -> None:
    agree(predictor, tmp_path_factory.mktemp("film"), *film_values)


STORE = """
function Initialize()
  local out = io.open("{answers}", "w")
  for line in io.lines("{list}") do
    local file = io.open(line, "rb")
    local content = file:read("*a")
    file:close()
    local stored = ParseJson(RestApiPost("/instances", content))
    out:write(RestApiGet("/instances/" .. stored["ID"] .. "/simplified-tags"), "\\0",
              RestApiGet("/instances/" .. stored["ID"] .. "/study"), "\\0")
  end
  out:close()
  RestApiPost("/tools/shutdown", "")
end
"""


def stored(folder: Path, paths: list[Path]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Return what Orthanc says of each file once it has stored it, and of its study. It opens no port."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    names = {name: folder / name for name in ("answers", "list", "store.lua", "settings.json")}
    names["list"].write_text("".join(f"{path}\n" for path in paths))
    script = STORE
    for name in ("answers", "list"):
        script = script.replace(f"{{{name}}}", str(names[name]))
    names["store.lua"].write_text(script)
    settings = {
        "HttpServerEnabled": False, "DicomServerEnabled": False, "Plugins": [], "LuaScripts": [str(names["store.lua"])],
        "StorageDirectory": str(folder / "archive"), "IndexDirectory": str(folder / "archive"),
        "DefaultEncoding": "Latin1",
    }  # fmt: skip
    names["settings.json"].write_text(json.dumps(settings))
    command = ["Orthanc", str(names["settings.json"])]
    ran = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    answers = [json.loads(part) for part in names["answers"].read_text().split("\0")[:-1]]
    return list(zip(answers[::2], answers[1::2], strict=True))


FILED = {
    "plain": (None, {"PatientName": "Quispe^Jane", "PatientID": "MRN-80417", "AccessionNumber": "ACC-55001"}),
    "long": (None, {"PatientName": "Quispe^Jane", "PatientID": "7" * 70, "AccessionNumber": "A" * 21}),
    "greek": ("ISO_IR 126", {"PatientName": "Διονυσιος", "PatientID": "Δ-1", "AccessionNumber": "A 1"}),
    "latin": ("ISO_IR 100", {"PatientName": "Müller^Jörg", "PatientID": "Ü-17", "AccessionNumber": "ß/2"}),
    "unicode": ("ISO_IR 192", {"PatientName": "山田^太郎", "PatientID": "影像-5", "AccessionNumber": "号-9"}),
    "none": (None, {"PatientName": "", "PatientID": "", "AccessionNumber": ""}),
}
ENCODINGS = {None: "ascii", "ISO_IR 126": "iso8859_7", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}


def test_orthanc_files_results_where_it_files_their_film(predictor: Predictor, tmp_path: Path) -> None:
    paths, expected = [], []
    for number, (name, (declared, values)) in enumerate(FILED.items()):
        (tmp_path / name).mkdir()
        encoded = {keyword: value.encode(ENCODINGS[declared]) for keyword, value in values.items()}
        path = source(tmp_path / name, declared, encoded, f"1.2.826.9.1.{number}")
        files = results(predictor, path, tmp_path / name / "results")
        assert len(files) == 2
        paths += [path, *files]
        expected += [values] * 3
    from_orthanc = stored(tmp_path, paths)
    for (tags, study), values in zip(from_orthanc, expected, strict=True):
        assert {keyword: tags.get(keyword, "") for keyword in values} == values
        assert study["MainDicomTags"].get("AccessionNumber", "") == values["AccessionNumber"]
    for place in range(0, len(from_orthanc), 3):
        of_film, *of_results = [study for _, study in from_orthanc[place : place + 3]]
        for study in of_results:
            assert (study["ID"], study["ParentPatient"]) == (of_film["ID"], of_film["ParentPatient"])


# ---- the small files that were wrong once


def case(name: str) -> Path:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    return Path(root).parent / "cases" / "films" / f"{name}.dcm"


@pytest.mark.corpus
def test_one_uid_of_three_films_gives_results_with_uids_of_their_own(predictor: Predictor, tmp_path: Path) -> None:
    datasets = [dcmread(path) for n in ("uid_a", "uid_b_window", "uid_d_study") for path in
            results(predictor, case(n), tmp_path / n)]  # fmt: skip
    assert (
        len({str(each.SOPInstanceUID) for each in datasets})
        == len({str(each.SeriesInstanceUID) for each in datasets})
        == 6
    )
    assert [each.StudyInstanceUID for each in datasets] == [
        dcmread(case(n), stop_before_pixels=True).StudyInstanceUID
        for n in ("uid_a", "uid_b_window", "uid_d_study")
        for _ in range(2)
    ]


@pytest.mark.corpus
def test_the_other_rows_about_results(predictor: Predictor, tmp_path: Path) -> None:
    lossy = dcmread(case("lossy"), stop_before_pixels=True)
    flags = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
    pictures = [
        dcmread(path) for path in results(predictor, case("lossy"), tmp_path / "lossy") if path.name[:2] == "sc"
    ]
    assert [{flag: each[flag].value for flag in flags} for each in pictures] == [{f: lossy[f].value for f in flags}]
    zone = dcmread(case("issuer_tz"), stop_before_pixels=True)
    offset = int(zone.TimezoneOffsetFromUTC[:3]) * 3600 + int(zone.TimezoneOffsetFromUTC[3:]) * 60
    moment = time.gmtime(case("issuer_tz").stat().st_mtime + offset)
    for path in results(predictor, case("issuer_tz"), tmp_path / "zone"):
        dataset = dcmread(path)
        assert (dataset.TimezoneOffsetFromUTC, dataset.IssuerOfPatientID) == (
            zone.TimezoneOffsetFromUTC,
            zone.IssuerOfPatientID,
        )
        assert (dataset.ContentDate, dataset.ContentTime) == (
            time.strftime("%Y%m%d", moment),
            time.strftime("%H%M%S", moment),
        )
    files = results(predictor, case("private_sopclass"), tmp_path / "private")
    assert [path.name[:2] for path in files] == ["sc", "sr"]
    for path in files:
        assert not [line for line in ended("dciodvfy", path).stderr.splitlines() if line.startswith(b"Error")]
    (picture,) = [
        dcmread(p) for p in results(predictor, case("pixel_aspect_2_1"), tmp_path / "a") if p.name[:2] == "sc"
    ]
    assert picture.Columns == 560 and picture.Rows > 34 + 560 * 512 // 448


def test_results_are_series_of_their_own_with_a_description_and_a_time(predictor: Predictor, tmp_path: Path) -> None:
    path = source(tmp_path, None, {"PatientID": b"1"})
    datasets = [dcmread(file) for file in results(predictor, path, tmp_path / "results")]
    moment = time.localtime(int(path.stat().st_mtime))
    for dataset in datasets:
        assert (
            dataset.SeriesDescription and dataset.SeriesInstanceUID != "1.2.826.9.1.2" and dataset.SeriesNumber > 9000
        )
        assert (dataset.SeriesDate, dataset.SeriesTime) == (
            time.strftime("%Y%m%d", moment),
            time.strftime("%H%M%S", moment),
        )
    assert len({each.SeriesInstanceUID for each in datasets}) == len({each.SeriesNumber for each in datasets}) == 2
