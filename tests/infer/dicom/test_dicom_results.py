"""`edgecxr infer --dicom`: a structured report and a picture of each DICOM film, for a PACS."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.sr import _concepts_dict

from edgecxr import NOTICE, __version__
from edgecxr.data.tables.labels import SETS
from edgecxr.errors import UsageError
from edgecxr.films.header import HEADERS, checked_header, read_header
from edgecxr.infer import film_readers
from edgecxr.infer.dicom import codes
from edgecxr.infer.film_readers import Readers
from edgecxr.infer.prediction import Rejection
from edgecxr.infer.predictor import PHANTOM_WARNING, Predictor
from edgecxr.infer.run import Asked, infer_paths, readers_for
from edgecxr.phantom.dicom_file import encode
from edgecxr.phantom.film import render
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import DX_FOR_PRESENTATION, film, write
from tests.tiny_bundle import LABELS, tiny_bundle

results = pytest.importorskip("edgecxr.infer.dicom.dicom_results", reason="highdicom is not installed")

PATIENT = {
    "PatientName": "Quispe^Jane",
    "PatientID": "MRN-80417",
    "PatientBirthDate": "19720229",
    "PatientSex": "F",
    "StudyDate": "20240131",
    "StudyTime": "081530",
    "StudyID": "ST-77",
    "AccessionNumber": "ACC-55001",
    "ReferringPhysicianName": "Okafor^Ben",
}
UIDS = {"StudyInstanceUID": "1.2.826.9.1", "SeriesInstanceUID": "1.2.826.9.2", "SOPInstanceUID": "1.2.826.9.3"}
NIH = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
       "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")  # fmt: skip
PAEDIATRIC = ("Pneumonia", "Pneumonia_bacterial", "Pneumonia_viral")


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model", data={"phantom": True}))


def scan(folder: Path, name: str = "film.dcm", **elements: Any) -> Path:
    """Write a film whose upper left quadrant is bright: cardiomegaly in the tiny model's eyes."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 230
    return write(film(pixels, **PATIENT | UIDS | elements), folder, name)


def infer(predictor: Predictor, paths: list[Path], folder: Path, patient: bool = True) -> list[Dataset]:
    """Infer from files, and return the reports and pictures in the folder, in the order of their names."""
    asked = Asked(as_json=True, dicom=folder, patient=patient)
    with readers_for(asked, len(paths)) as processes:
        assert infer_paths(predictor, processes, paths, asked) == 0
    return [dcmread(path) for path in sorted(folder.glob("*.dcm"))]


def one(predictor: Predictor, path: Path, folder: Path, patient: bool = True) -> tuple[Dataset, Dataset]:
    picture, report = infer(predictor, [path], folder, patient)
    return report, picture


def items(parent: Dataset, name: str) -> list[Dataset]:
    """Return the content items below another whose concept has this meaning or value."""
    return [
        item
        for item in parent.get("ContentSequence", [])
        for code in item.ConceptNameCodeSequence
        if name in (code.CodeMeaning, code.CodeValue)
    ]


def number(group: Dataset, name: str) -> float:
    (item,) = items(group, name)
    return float(item.MeasuredValueSequence[0].FloatingPointValue)


def answer(group: Dataset, name: str) -> tuple[str, str, str]:
    (item,) = items(group, name)
    return triple(item.ConceptCodeSequence[0])


def triple(code: Dataset) -> tuple[str, str, str]:
    return code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning


def groups(report: Dataset) -> list[Dataset]:
    (measurements,) = items(report, "Imaging Measurements")
    return items(measurements, "Measurement Group")


# ---- what is written


def test_a_film_gets_a_report_and_a_picture_in_series_of_their_own_in_its_study(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    report, picture = one(predictor, scan(tmp_path), tmp_path / "results")
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage" and report.Modality == "SR"
    assert picture.SOPClassUID.name == "Secondary Capture Image Storage" and picture.Modality == "OT"
    for made in (report, picture):
        assert made.StudyInstanceUID == UIDS["StudyInstanceUID"]
        assert {keyword: str(made[keyword].value) for keyword in PATIENT} == PATIENT
        assert "research use only" in made.SeriesDescription and len(made.SeriesDescription) <= 64
        assert made.SOPInstanceUID.startswith("2.25.") and made.SOPInstanceUID in Path(made.filename).name
    series = {made.SeriesInstanceUID for made in (report, picture)}
    assert len(series | {UIDS["SeriesInstanceUID"]}) == 3
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("dicom: ") and report.filename in said and picture.filename in said


def test_the_report_says_each_finding_with_code_probability_threshold_and_decision(
    tmp_path: Path, predictor: Predictor
) -> None:
    path = scan(tmp_path)
    report, _ = one(predictor, path, tmp_path / "results")
    expected = predictor.predict(path)
    whole, *found = groups(report)
    assert [answer(group, "Finding") for group in found] == [
        ("8186001", "SCT", "Cardiomegaly"),
        ("NODULE-OR-MASS", "99EDGECXR", "Nodule or mass"),
        ("60046008", "SCT", "Pleural effusion"),
    ]
    for label, group in zip(LABELS, found, strict=True):
        assert number(group, "Probability") == pytest.approx(expected.findings[label], abs=1e-6)
        assert number(group, codes.THRESHOLD.value) == 0.5
        decision = ("10828004", "SCT", "Positive") if expected.decisions[label] else ("260385009", "SCT", "Negative")
        assert answer(group, "DECISION") == decision
    assert [answer(group, "DECISION")[2] for group in found] == ["Positive", "Negative", "Negative"]
    assert answer(whole, "Finding")[:2] == ("ABNORMAL-FILM", "99EDGECXR")
    assert number(whole, "Probability") == pytest.approx(expected.abnormal, abs=1e-6)
    assert answer(whole, "Normality") == ("17621005", "SCT", "Normal") and answer(whole, "DECISION")[2] == "Negative"


def test_the_report_names_film_model_and_what_it_is_for(tmp_path: Path, predictor: Predictor) -> None:
    path = scan(tmp_path)
    report, _ = one(predictor, path, tmp_path / "results")
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert triple(report.ConceptNameCodeSequence[0]) == ("126000", "DCM", "Imaging Measurement Report")
    assert [item.TextValue for item in items(report, "Comment")] == [NOTICE, *predictor.predict(path).warnings]
    assert answer(report, "Observer Type") == ("121007", "DCM", "Device")
    sha256 = hashlib.sha256(predictor.bundle.artefact("fp32").read_bytes()).hexdigest()
    for group in groups(report):
        assert [item.TextValue for item in items(group, "Algorithm Name")] == ["tiny-test"]
        (version,) = items(group, "Algorithm Version")
        assert sha256[:16] in version.TextValue and __version__ in version.TextValue
        assert [item.TextValue for item in items(group, "Algorithm Parameters")] == ["operating point: youden"]
        (image,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
        (reference,) = image.ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
        assert reference.ReferencedSOPClassUID == DX_FOR_PRESENTATION
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == UIDS["SeriesInstanceUID"]
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99EDGECXR"


def test_the_picture_is_the_overlay_below_a_band(tmp_path: Path, predictor: Predictor) -> None:
    from edgecxr.films.display import displayed
    from edgecxr.films.read import read_radiograph
    from edgecxr.infer.overlay import overlay, research_band

    path = scan(tmp_path)
    _, picture = one(predictor, path, tmp_path / "results")
    drawn = overlay(displayed(read_radiograph(path).pixels), predictor.predict(path))
    difference = np.abs(picture.pixel_array.astype(int) - np.asarray(research_band(drawn)))
    assert difference.mean() < 0.01
    assert picture.Rows == drawn.height + 34 and picture.Columns == drawn.width
    assert (picture.PhotometricInterpretation, picture.BitsStored, picture.ConversionType) == ("RGB", 8, "WSD")
    assert picture.ImageType[:2] == ["DERIVED", "SECONDARY"] and picture.ImageComments == NOTICE
    (reference,) = picture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == UIDS["SOPInstanceUID"]
    # The caption names nobody; of the film itself only its file can tell.
    assert "BurnedInAnnotation" not in picture
    for said in ("YES", "NO"):
        marked = one(predictor, scan(tmp_path, BurnedInAnnotation=said), tmp_path / said)[1]
        assert marked.BurnedInAnnotation == said


def test_a_second_run_replaces_what_the_first_wrote(tmp_path: Path, predictor: Predictor) -> None:
    path, folder = scan(tmp_path), tmp_path / "results"
    first = infer(predictor, [path], folder)
    again = infer(predictor, [path], folder)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "filename"):
        assert [getattr(made, keyword) for made in first] == [getattr(made, keyword) for made in again]
    items_of = [[str(group) for group in groups(made)] for made in (first[1], again[1])]
    assert items_of[0] == items_of[1] and len(list(folder.iterdir())) == 2


def test_another_film_model_or_operating_point_makes_other_objects(tmp_path: Path, predictor: Predictor) -> None:
    points = {rule: dict.fromkeys((*LABELS, "abnormal"), 0.5) for rule in ("youden", "sensitivity90")}
    other = Predictor(tiny_bundle(tmp_path / "points", operating_points=points), operating_point="sensitivity90")
    larger = Predictor(tiny_bundle(tmp_path / "larger", size=56))
    made = infer(predictor, [scan(tmp_path), scan(tmp_path, "b.dcm", SOPInstanceUID="1.2.826.9.4")], tmp_path / "1")
    made += infer(other, [scan(tmp_path)], tmp_path / "2") + infer(larger, [scan(tmp_path)], tmp_path / "3")
    lower = {"youden": dict.fromkeys((*LABELS, "abnormal"), 0.4)}
    again = Predictor(tiny_bundle(tmp_path / "again", operating_points=lower))
    made += infer(again, [scan(tmp_path)], tmp_path / "4")
    made += infer(predictor, [scan(tmp_path, BurnedInAnnotation="NO")], tmp_path / "5", patient=False)
    assert len({one.SOPInstanceUID for one in made} | {one.SeriesInstanceUID for one in made}) == 24
    reports = [one for one in made if one.Modality == "SR"]
    observers = {str(item.UID) for one in reports for item in items(one, "Device Observer UID")}
    assert len(observers) == len({one.ManufacturerModelName for one in reports}) + 1, "one for each model file"


def test_typed_as_a_user_types_it(tmp_path: Path, predictor: Predictor) -> None:
    path, folder = scan(tmp_path / "archive", BurnedInAnnotation="NO"), tmp_path / "results"
    typed = ("infer", str(path.parent), "--model", str(predictor.bundle.path), "--dicom", str(folder))
    ended = edgecxr(*typed, "--no-phi", runs=tmp_path / "runs")
    assert ended.code == 0 and "Cardiomegaly 0.83 *" in ended.out and ended.err.startswith("dicom: ")
    assert [str(dcmread(made).PatientName) for made in folder.iterdir()] == ["", ""]
    # What names the patient is another object: a PACS that has the one must not keep it for the other.
    assert edgecxr(*typed, runs=tmp_path / "runs").code == 0
    names = sorted(str(dcmread(made).PatientName) for made in folder.iterdir())
    assert names == ["", "", *[PATIENT["PatientName"]] * 2]


# ---- who the patient is


def test_without_phi_no_string_of_the_patient_is_in_the_files(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = {**PATIENT, "BodyPartExamined": "KNEE QUISPE"}
    named = scan(tmp_path / "named", **secret)
    report, picture = one(predictor, named, tmp_path / "with")
    assert b"Quispe^Jane" in Path(report.filename).read_bytes()
    assert any("KNEE QUISPE" in item.TextValue for item in items(report, "Comment"))
    named = scan(tmp_path / "no names in pixels", **secret, BurnedInAnnotation="NO")
    report, picture = one(predictor, named, tmp_path / "results", patient=False)
    for made in (report, picture):
        content = Path(made.filename).read_bytes()
        strings = {part for value in secret.values() for part in re.split(r"[\^ ]", value) if len(part) > 1}
        assert [part for part in strings if part.encode() in content] == []
        assert {keyword: str(made[keyword].value or "") for keyword in PATIENT} == dict.fromkeys(PATIENT, "")
        assert made.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert [item.TextValue for item in items(report, "Comment")] == [NOTICE, PHANTOM_WARNING]
    assert "Quispe" not in capsys.readouterr().err


def test_a_report_says_that_the_quality_gate_was_overruled_and_no_phi_quotes_nothing(tmp_path: Path) -> None:
    forced = Predictor(tiny_bundle(tmp_path / "patients"), force=True)
    knee = scan(tmp_path, BodyPartExamined="KNEE QUISPE")
    overruled = "the quality gate refuses this film (body-part) and was overruled by --force"
    report, _ = one(forced, knee, tmp_path / "with")
    said = [item.TextValue for item in items(report, "Comment")]
    assert said[0] == NOTICE and overruled in said and any("KNEE" in text for text in said)
    (report,) = infer(forced, [knee], tmp_path / "without", patient=False)
    assert [item.TextValue for item in items(report, "Comment")] == [NOTICE, overruled]
    (chest,) = infer(forced, [scan(tmp_path, "chest.dcm")], tmp_path / "chest", patient=False)
    assert chest.SOPInstanceUID != report.SOPInstanceUID, "one UID does not stand for two contents"


@pytest.mark.parametrize("said", [{"BurnedInAnnotation": "YES"}, {"BurnedInAnnotation": "Y"}, {}])
def test_without_phi_a_film_that_may_have_names_in_its_pixels_gets_no_picture(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], said: dict[str, str]
) -> None:
    (report,) = infer(predictor, [scan(tmp_path, **said)], tmp_path / "results", patient=False)
    assert report.Modality == "SR" and "no picture" in capsys.readouterr().err


def test_a_name_in_another_script_arrives(tmp_path: Path, predictor: Predictor) -> None:
    path = scan(tmp_path, SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎")
    for made in one(predictor, path, tmp_path / "results"):
        assert str(made.PatientName) == "Yamada^Tarou=山田^太郎"


def test_what_dicom_does_not_allow_is_left_empty(tmp_path: Path, predictor: Predictor) -> None:
    wrong = {"PatientBirthDate": "1972.02.29", "StudyTime": "8 h", "PatientID": "x" * 65, "PatientSex": "W"}
    header = dict.fromkeys(HEADERS["patient"], "") | UIDS | {"SOPClassUID": DX_FOR_PRESENTATION} | wrong
    assert {checked_header(header, "patient")[keyword] for keyword in wrong} == {""}
    for value in ("a\\b", "a\nb", "\x1b[1m", "\udcff"):
        assert checked_header(header | {"PatientID": value, "PatientName": value}, "patient")["PatientID"] == ""
    assert checked_header(header | {"StudyDate": "20230231"}, "patient")["StudyDate"] == ""
    path = scan(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"19720229", b"1972.229").replace(b"MRN-80417", b"MRN\n80417"))
    for made in one(predictor, path, tmp_path / "results"):
        assert (str(made.PatientBirthDate or ""), str(made.PatientID or "")) == ("", "")
        assert str(made.PatientName) == PATIENT["PatientName"]


def test_odd_names_and_uids_of_old_films_arrive_and_are_not_quoted(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    odd = {"PatientName": "QUISPE  JANE^^^^^^", "StudyInstanceUID": "1.02.3"}
    for made in one(predictor, scan(tmp_path, **odd), tmp_path / "results"):
        assert (str(made.PatientName), made.StudyInstanceUID) == (odd["PatientName"], odd["StudyInstanceUID"])
    assert "QUISPE" not in capsys.readouterr().err + "".join(str(one.message) for one in recwarn)


def test_the_header_is_read_by_the_process_that_reads_the_film_and_only_as_far_as_it_is_wanted(tmp_path: Path) -> None:
    path = scan(tmp_path)
    with Readers(1) as processes:
        for kind, known in ((None, None), ("identifiers", False), ("patient", True)):
            ((found,),) = processes.read([path], 224, header=kind)
            assert not isinstance(found, Rejection)
            if kind is None:
                assert found.header is None
            else:
                assert found.header == read_header(path, kind)
                assert found.header["SOPInstanceUID"] == "1.2.826.9.3"
                assert ("PatientName" in found.header) == known


def test_a_process_that_answers_with_another_header_than_was_asked_for_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scan(tmp_path)
    for said in ({"PatientName": "x"}, dict.fromkeys(HEADERS["identifiers"], 1), ["x"], None):
        monkeypatch.setattr(film_readers, "read_header", lambda path, kind, said=said: said)
        with Readers(1) as processes:
            ((found,),) = processes.read([path], 224, header="identifiers")
            assert isinstance(found, Rejection) and found.reason == "crash"


# ---- what gets no result


def test_a_film_that_cannot_be_referred_to_gets_no_result_and_the_rest_goes_on(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(image)
    bare = scan(tmp_path, "b.dcm", StudyInstanceUID=None)
    odd = scan(tmp_path, "c.dcm", SOPClassUID="1.2.3.4.5", SOPInstanceUID="1.2.3.9")
    twin = scan(tmp_path / "twin", "d.dcm")
    made = infer(predictor, [image, bare, odd, scan(tmp_path), twin], tmp_path / "results")
    printed = capsys.readouterr()
    assert len(made) == 2 and len(printed.out.splitlines()) == 5
    said = printed.err.splitlines()
    assert re.search(r"^no DICOM result of .*a\.png: it has no usable StudyInstanceUID, SeriesInstanceUID", said[0])
    assert said[1] == f"no DICOM result of {bare}: it has no usable StudyInstanceUID"
    assert said[2].startswith(f"no DICOM result of {odd}: ")
    assert said[3].startswith("dicom: ")
    assert "d.dcm" in said[4] and "film.dcm has the same SOPInstanceUID" in said[4]


def test_a_picture_that_fails_leaves_no_report(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(picture: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr(results, "research_band", fail)
    assert infer(predictor, [scan(tmp_path)], tmp_path / "results") == []
    assert "no DICOM result of" in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_option(
    tmp_path: Path, predictor: Predictor
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(UsageError, match="--dicom"):
        infer(predictor, [scan(tmp_path)], taken)
    with pytest.raises(UsageError, match="--dicom"):
        infer(predictor, [scan(tmp_path)], taken / "below")


def test_leaving_out_the_patient_is_about_dicom_files_alone() -> None:
    with pytest.raises(UsageError, match="add --dicom"):
        Asked(patient=False).check()


# ---- codes


def test_every_label_of_the_data_sets_has_a_code_of_its_own() -> None:
    named = {label: codes.finding(label) for label in (*SETS["all"], *NIH, *PAEDIATRIC)}
    same = {"Effusion": "Pleural effusion", "Fibrosis": "Pulmonary fibrosis",
            "Pleural_Thickening": "Pleural thickening"}  # fmt: skip
    for one, other in same.items():
        assert named.pop(one) == named[other]
    assert len({(code.value, code.scheme) for code in named.values()}) == len(named)
    assert not [label for label, code in named.items() if code.value.startswith("L-")]
    for code in named.values():
        assert len(code.value) <= 16 and code.meaning and len(code.meaning) <= 64


def test_codes_that_dicom_lists_mean_what_dicom_says() -> None:
    used = {code for code in vars(codes).values() if isinstance(code, codes.Code)}
    used |= {codes.finding(label) for label in (*SETS["all"], *NIH, *PAEDIATRIC)}
    listed = {
        (value, scheme): meaning
        for scheme in ("DCM", "SCT")
        for concepts in _concepts_dict.concepts[scheme].values()
        for value, (meaning, _) in concepts.items()
    }
    known = {code for code in used if (code.value, code.scheme) in listed}
    assert {code for code in used if code.scheme == "DCM"} < known and len(known) > 12
    for code in known:
        assert code.meaning.lower() == listed[code.value, code.scheme].lower()


def test_the_documentation_lists_every_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "dicom.md").read_text()
    for label in (*SETS["all"], *NIH, *PAEDIATRIC):
        code = codes.finding(label)
        (row,) = [line for line in page.splitlines() if line.startswith("| `") and f"`{label}`" in line]
        assert row.endswith(f"| {code.value}, {code.scheme} | {code.meaning} |"), label


def test_a_label_of_ones_own_gets_a_private_code_that_never_changes() -> None:
    code = codes.finding("Scimitar\\sign " + "x" * 80)
    assert code == codes.finding("Scimitar\\sign " + "x" * 80) != codes.finding("Scimitar sign")
    assert code.scheme == "99EDGECXR" and re.fullmatch(r"L-[0-9a-f]{12}", code.value)
    assert code.meaning.startswith("Scimitar/sign x") and len(code.meaning) == 64


# ---- what others say of the files


def told_by(tool: str, *arguments: str) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: dcmtk, dicom3tools)")
    ended = subprocess.run([tool, *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("kind", ["film", "phantom", "bare"])
def test_dciodvfy_finds_no_errors(tmp_path: Path, predictor: Predictor, kind: str, patient: bool) -> None:
    path = tmp_path / "film.dcm"
    if kind == "phantom":
        path.write_bytes(encode(render(3, 0), 3))
    else:
        scan(tmp_path, **{"BurnedInAnnotation": "NO"} | (dict.fromkeys(PATIENT) if kind == "bare" else {}))
    for made in one(predictor, path, tmp_path / "results", patient):
        said = told_by("dciodvfy", made.filename).splitlines()
        assert [line for line in said if line.startswith("Error")] == []
        assert {"SR": "Comprehensive3DSR", "OT": "SCImage"}[made.Modality] in said


def test_dsrdump_reads_the_report(tmp_path: Path, predictor: Predictor) -> None:
    report, _ = one(predictor, scan(tmp_path), tmp_path / "results")
    said = told_by("dsrdump", "+Pl", "+Pc", report.filename)
    assert "Comprehensive 3D SR Document" in said and NOTICE in said
    assert '(121071,DCM,"Finding")=(8186001,SCT,"Cardiomegaly")' in said
    assert not re.search(r"^[EF]: ", said, flags=re.MULTILINE)


def test_highdicom_reads_the_report(tmp_path: Path, predictor: Predictor) -> None:
    from highdicom.sr import Comprehensive3DSR

    report, _ = one(predictor, scan(tmp_path), tmp_path / "results")
    content: Any = Comprehensive3DSR.from_dataset(report).content
    found = content.get_image_measurement_groups(referenced_sop_instance_uid=UIDS["SOPInstanceUID"])
    assert [group.finding_type.meaning for group in found][1:] == ["Cardiomegaly", "Nodule or mass", "Pleural effusion"]
