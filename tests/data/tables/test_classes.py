"""Class folders, and one column that names the findings."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecxr.data.adapters.class_folders import class_folders
from edgecxr.data.adapters.folder import folder
from edgecxr.data.prepared import Prepared
from edgecxr.data.tables.classes import spread
from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.table import Table
from edgecxr.errors import InputError, UsageError
from edgecxr.storage.walk import remove_tree
from tests.cli_workspace import edgecxr
from tests.data.tables.test_statements import NORMAL, SPELLINGS
from tests.storage.test_walk import deep


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (80, 80)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def table(place: Path, header: str, lines: list[str]) -> Path:
    for number in range(len(lines)):
        image(place / f"{number}.png")
    rows = [f"{number}.png,{line}" for number, line in enumerate(lines)]
    (place / "labels.csv").write_text("\n".join([f"image,{header}", *rows]) + "\n")
    return place


@pytest.mark.parametrize("split", [True, False])
def test_class_folders_are_labels_and_splits(tmp_path: Path, split: bool) -> None:
    for part, kind in (("train", "NORMAL"), ("train", "PNEUMONIA"), ("Val", "Normal"), ("test", "PNEUMONIA"),
                       ("test", "NORMAL")):  # fmt: skip
        for number in range(3):
            image(tmp_path / "xray" / (part if split else "") / kind / f"{part}{number}.jpeg")
    (tmp_path / "xray" / "NORMAL.txt").write_text("no film")
    dataset = folder(tmp_path / "xray")
    assert dataset.labels == ("PNEUMONIA",) and dataset.name == "xray" and len(dataset) == 15
    for name, target, abnormal, part in zip(
        dataset.ids, dataset.targets[:, 0], dataset.abnormal, dataset.splits, strict=True
    ):
        assert target == abnormal == ("PNEUMONIA" in name)
        assert not split or part == name.partition("/")[0].lower()
    assert all(file.exists() for file in dataset.files)


def test_class_folders_with_other_options_or_layouts_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "train" / "A" / "1.png")
    image(tmp_path / "train" / "B" / "2.png")
    with pytest.raises(UsageError, match="--images"):
        folder(tmp_path, images=tmp_path)
    image(tmp_path / "C" / "3.png")
    with pytest.raises(InputError) as caught:
        folder(tmp_path)
    assert caught.value.reason == "dataset" and "C" in str(caught.value)


@pytest.mark.parametrize("name", ["non-TB", "NO_pneumonia", "ohne Erguss", "not TB"])
@pytest.mark.parametrize("split", [True, False])
def test_a_class_that_is_the_absence_of_something_is_refused(tmp_path: Path, name: str, split: bool) -> None:
    for part in ("train", "test") if split else ("",):
        for label in ("TB", name):
            image(tmp_path / "films" / part / label / "a.png")
    with pytest.raises(InputError, match=name):
        class_folders(tmp_path / "films")


def test_a_column_of_names_becomes_a_column_for_each(tmp_path: Path) -> None:
    lines = [
        "Pneumonia|Effusion",
        "No Finding",
        "effusion;Pneumonia",
        "",
        "Effusion",
        "No Finding",
    ]
    dataset = folder(table(tmp_path, "diagnosis", lines), label_column="diagnosis", val_fraction=0, test_fraction=0)
    assert dataset.labels == ("Pneumonia", "Effusion")
    nan = np.nan
    np.testing.assert_array_equal(dataset.targets, [[1, 1], [0, 0], [1, 1], [nan, nan], [0, 1], [0, 0]])
    np.testing.assert_array_equal(dataset.abnormal, [1, 0, 1, nan, 1, 0])


def test_a_column_of_yes_and_no_is_one_finding(tmp_path: Path) -> None:
    dataset = folder(table(tmp_path, "tb", ["yes", "No", "YES", "", "n"]), label_column="tb", val_fraction=0)
    assert dataset.labels == ("tb",)
    np.testing.assert_array_equal(dataset.targets[:, 0], [1, 0, 1, np.nan, 0])


FINDINGS = ("Pneumonia", "Effusion", "Mass")


@settings(deadline=None, max_examples=40)
@given(
    films=st.lists(st.lists(st.sampled_from(FINDINGS), unique=True), min_size=6, max_size=6),
    separator=st.sampled_from(["|", ";", ",", " | ", ", ", "; "]),
    spelling=st.sampled_from([str, str.upper, str.lower]),
    brackets=st.booleans(),
)
def test_each_film_has_the_findings_that_its_cell_names(
    films: list[list[str]], separator: str, spelling: Callable[[str], str], brackets: bool
) -> None:
    films = [*([name] for name in FINDINGS), [], *films]
    cells = [separator.join(map(spelling if row > 3 else str, names)) or "Normal" for row, names in enumerate(films)]
    with tempfile.TemporaryDirectory() as place:
        lines = [f'"{[cell] if brackets else cell}"' for cell in cells]
        dataset = folder(table(Path(place), "dx", lines), label_column="dx", val_fraction=0, test_fraction=0)
    assert dataset.labels == FINDINGS
    np.testing.assert_array_equal(dataset.targets, [[name in names for name in FINDINGS] for names in films])
    np.testing.assert_array_equal(dataset.abnormal, [bool(names) for names in films])


DOUBTS = ("{}?", "? {}", "possible {}", "Probable {}", "suspected {}", "V.a. {}", "r/o {}", "{} (likely)")


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize(("uncertain", "value"), [("ignore", np.nan), ("ones", 1), ("zeros", 0)])
def test_a_doubted_finding_counts_as_the_user_says(tmp_path: Path, doubt: str, uncertain: str, value: float) -> None:
    doubted = doubt.format("Pneumonia")
    place = table(tmp_path, "dx", ["Effusion", "Pneumonia", "Normal", doubted, f"Effusion|{doubted}", "Normal"])
    with pytest.raises(InputError, match=r"line 5 .*--uncertain") as caught:
        folder(place, label_column="dx", val_fraction=0, test_fraction=0)
    assert caught.value.reason == "dataset"
    dataset = folder(place, label_column="dx", val_fraction=0, test_fraction=0, uncertain=uncertain)
    assert dataset.labels == ("Effusion", "Pneumonia")
    np.testing.assert_array_equal(dataset.targets, [[1, 0], [0, 1], [0, 0], [0, value], [1, value], [0, 0]])
    np.testing.assert_array_equal(dataset.abnormal, [1, 1, 0, value, 1, 0])


@pytest.mark.parametrize("uncertain", [None, "ignore", "ones", "zeros"])
@pytest.mark.parametrize(
    "cell", ["no Pneumonia", "Ohne Befund, no effusion", "1", "yes", "Pneumonia / Effusion", "Pneumonia and Effusion"]
)
def test_a_cell_that_names_no_single_finding_is_refused(tmp_path: Path, cell: str, uncertain: str | None) -> None:
    place = table(tmp_path, "dx", ["Effusion", "Pneumonia", "Normal", f'"{cell}"'])
    with pytest.raises(InputError, match=r"labels\.csv") as caught:
        folder(place, label_column="dx", val_fraction=0, test_fraction=0, uncertain=uncertain)
    assert caught.value.reason == "dataset" and "'dx'" in str(caught.value)


@pytest.mark.parametrize("adjective", ["specific", "calcified", "obstructing", "displaced", "tuberculous"])
@pytest.mark.parametrize("join", [" ", "-", "_"])
def test_an_adjective_with_non_denies_nothing(tmp_path: Path, adjective: str, join: str) -> None:
    name = f"Non{join}{adjective} opacity"
    place = table(tmp_path, "dx", ["Effusion", "Normal", name, f"Effusion|{name}"])
    dataset = folder(place, label_column="dx", val_fraction=0, test_fraction=0)
    assert dataset.labels == ("Effusion", name)
    np.testing.assert_array_equal(dataset.targets, [[1, 0], [0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(dataset.abnormal, [1, 0, 1, 1])


@pytest.mark.parametrize(
    "cell", ["non pneumonia", "non tuberculosis", "Non-COVID", "non_TB", "no-effusion", "ohne Erguss", "pas de nodule"]
)
def test_a_denial_in_other_words_is_refused_and_named(tmp_path: Path, cell: str) -> None:
    with pytest.raises(InputError, match="line 4") as caught:
        folder(table(tmp_path, "dx", ["Effusion", "Normal", cell]), label_column="dx", val_fraction=0, test_fraction=0)
    assert cell in str(caught.value) and "No finding" in str(caught.value)


def test_a_doubt_about_nothing_in_particular_is_not_known(tmp_path: Path) -> None:
    place = table(tmp_path, "dx", ["Effusion", "Normal", "?", "Normal?", "uncertain"])
    dataset = folder(place, label_column="dx", val_fraction=0, test_fraction=0, uncertain="ignore")
    np.testing.assert_array_equal(dataset.abnormal, [1, 0, np.nan, np.nan, np.nan])
    for uncertain in (None, "ones", "zeros"):
        with pytest.raises(InputError, match="line 4"):
            folder(place, label_column="dx", val_fraction=0, test_fraction=0, uncertain=uncertain)


@pytest.mark.parametrize("words", [("ja", "nein"), ("oui", "non"), ("sí", "no"), ("T", "F"), ("1", "0"), ("+", "-")])
def test_yes_and_no_in_other_languages_with_a_doubt(tmp_path: Path, words: tuple[str, str]) -> None:
    place = table(tmp_path, "tb", [*words, "?", *words])
    dataset = folder(place, label_column="tb", val_fraction=0, test_fraction=0, uncertain="ignore")
    np.testing.assert_array_equal(dataset.targets[:, 0], [1, 0, np.nan, 1, 0])
    with pytest.raises(InputError, match=r"line 4 .*--uncertain"):
        folder(place, label_column="tb", val_fraction=0, test_fraction=0)


@pytest.mark.parametrize(
    ("header", "lines", "named"),
    [
        ("diagnosis,Nodule", ["Pneumonia,1", "No finding,0"], "Nodule"),
        ("diagnosis", ["Pneumonia|No finding", "No finding"], "Pneumonia"),
        ("diagnosis,Pneumonia", ["Pneumonia,old", "No finding,new"], "Pneumonia"),
    ],
)
def test_labels_that_contradict_each_other_are_named(tmp_path: Path, header: str, lines: list[str], named: str) -> None:
    with pytest.raises(InputError) as caught:
        folder(table(tmp_path, header, lines), label_column="diagnosis", val_fraction=0, test_fraction=0)
    assert caught.value.reason == "dataset" and named in str(caught.value) and "labels.csv" in str(caught.value)


def test_a_column_that_is_not_there_is_said(tmp_path: Path) -> None:
    place = table(tmp_path / "films", "diagnosis", ["A", "No finding"])
    typed = edgecxr("prepare", "folder", place, "--label-column", "diagnose", runs=tmp_path / "runs")
    assert typed.code == 3 and "diagnose" in typed.error and not (tmp_path / "runs").exists()


PNG, DICOM, WEBP = b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM", b"RIFF\0\0\0\0WEBPVP8 "
LISTED = {"a.png": b"any", "IM0001": DICOM, "1.2.840": DICOM, "scan.img": PNG, "b.webp": WEBP, "photo": WEBP,
          "sub/c": PNG, "sub/more/d.DCM": b"any"}  # fmt: skip
PASSED = {"._a.png": "hidden", ".DS_Store": "hidden", "Thumbs.db": "hidden", "sub/desktop.ini": "hidden",
          "__MACOSX/x.png": "hidden", "@eaDir/y.png": "hidden", "notes.txt": "other files", "e.dcm.gz": "other files",
          "DICOMDIR": "DICOMDIR"}  # fmt: skip
PARTS = ("", "train", "test")


@settings(deadline=None, max_examples=60)
@given(data=st.data(), split=st.booleans())
def test_each_file_of_class_folders_is_a_film_or_unlisted_or_counted(data: st.DataObject, split: bool) -> None:
    tops = PARTS[1:] if split else PARTS[:1]
    expected, loose, passed = set(), set(), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        root, elsewhere = Path(name, "films"), Path(name, "elsewhere")
        for top in {"", *tops}:
            for film in data.draw(st.sets(st.sampled_from(["a.png", "IM0001"])), "loose"):
                written(root / top / film, LISTED[film])
                loose.add(root / top / film)
            junk = {"._a.png": "hidden", "__MACOSX/x.png": "hidden"}
            for film in data.draw(st.sets(st.sampled_from(sorted(junk))), "junk"):
                written(root / top / film, b"any")
                passed[junk[film]] += 1
        for place in (root / top / label for top in tops for label in ("Normal", "Pneumonia")):
            for film in data.draw(st.sets(st.sampled_from(sorted(LISTED)), min_size=1), "films"):
                written(place / film, LISTED[film])
                expected.add(place / film)
            for film in data.draw(st.sets(st.sampled_from(sorted(PASSED))), "passed over"):
                written(place / film, b"any")
                passed[PASSED[film]] += 1
            if data.draw(st.booleans(), "linked"):
                far = elsewhere / "-".join(place.relative_to(root).parts)
                written(far / "deep" / "IM0002", DICOM)
                (place / "far").symlink_to(far)
                expected.add(place / "far" / "deep" / "IM0002")
            if data.draw(st.booleans(), "lost"):
                (place / "lost.dcm").symlink_to("/nonexist/lost.dcm")
                expected.add(place / "lost.dcm")
            for back in data.draw(st.sets(st.sampled_from([".", "..", "../..", root])), "back"):
                (place / f"back{len(str(back))}").symlink_to(back)
        classes = class_folders(root)
    table = classes.table
    images = table.columns["image"]
    assert {root / image for image in images} == expected and len(table) == len(expected)
    assert table.columns["Pneumonia"] == [str(int("Pneumonia" in image)) for image in images]
    assert set(classes.loose) == loose and classes.search.passed_over == passed


def written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_what_class_folders_leave_out_is_said_and_listed_and_lost_films_are_rejected(tmp_path: Path) -> None:
    root = tmp_path / "films"
    for number in range(8):
        image(root / "train" / ("Normal", "Pneumonia")[number % 2] / f"{number}.png")
    image(root / "train" / "loose.png")
    written(root / "train" / "Normal" / "._0.png", b"any")
    written(root / "train" / "Normal" / "film", WEBP)
    (root / "train" / "Normal" / "IM1").symlink_to("/nonexist/IM1")
    options = ("prepare", "folder", root, "--workers", "1")
    typed = edgecxr(*options, runs=tmp_path / "runs")
    assert typed.code == 0 and "line names: 1 (" in typed.out and "hidden (1)" in typed.err
    assert "rejected: not-found 1, unsupported 1" in typed.out
    assert "loose.png" in (tmp_path / "runs" / "data" / "films" / "unlisted.csv").read_text()
    (root / "val").symlink_to("/nonexist/val")
    typed = edgecxr(*options, runs=tmp_path / "runs")
    assert typed.code == 3 and "val" in typed.error and "/nonexist/val" in typed.error


def test_one_class_folder_is_no_data_set(tmp_path: Path) -> None:
    image(tmp_path / "Normal" / "1.png")
    with pytest.raises(InputError, match="of one class") as caught:
        class_folders(tmp_path)
    assert caught.value.reason == "dataset" and "labels.csv" in str(caught.value)


def test_class_folders_may_be_deep(tmp_path: Path) -> None:
    for name in ("NORMAL", "Pneumonia"):
        (tmp_path / name).mkdir()
        deep(tmp_path / name, 1200)
    try:
        assert len(class_folders(tmp_path).table) == 2400
    finally:
        for name in ("NORMAL", "Pneumonia"):
            remove_tree(tmp_path / name)


def spread_out(cells: list[str], **options: object) -> dict[str, list[str]]:
    """Return the columns that a column of names becomes."""
    lines = list(range(2, 2 + len(cells)))
    return spread(Table(Path("labels.csv"), {"dx": cells}, lines), "dx", [], **options).columns  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    normal=st.lists(st.sampled_from(NORMAL), min_size=1, max_size=4),
    spelling=st.sampled_from(SPELLINGS),
    films=st.lists(st.sampled_from(FINDINGS), min_size=1, max_size=5),
)
def test_all_words_for_normal_are_one_class(
    normal: list[str], spelling: Callable[[str], str], films: list[str]
) -> None:
    columns = spread_out([*films, *map(spelling, normal)])
    (of_normal,) = columns.keys() - set(films)
    assert columns[of_normal] == ["0"] * len(films) + ["1"] * len(normal)
    assert all(
        columns[name] == ["1" if name == film else "0" for film in films] + ["0"] * len(normal) for name in films
    )


@pytest.mark.parametrize(
    "cell", ["None", "none", "nil", "-", "--", "nothing", "[]", "{}", "()", "NIL", "['None']", "old", "excluded"]
)
def test_none_means_what_the_user_says(cell: str) -> None:
    with pytest.raises(InputError, match=r"line 3 .*--normal-names.*--unknown-names") as caught:
        spread_out(["Effusion", cell])
    assert caught.value.reason == "dataset" and cell.strip("[']") in str(caught.value)
    assert spread_out(["Effusion", cell], normal=[cell]) == {"Effusion": ["1", "0"], cell: ["0", "1"]}


def test_none_of_pandas_beside_normal_is_not_known() -> None:
    assert spread_out(["Effusion", "None", "Normal"]) == {"Effusion": ["1", "", "0"], "Normal": ["0", "", "1"]}
    for cell in ("none", "nil", "-"):
        with pytest.raises(InputError, match="line 3"):
            spread_out(["Effusion", cell, "Normal"])


@settings(deadline=None, max_examples=60)
@given(
    form=st.sampled_from(
        ["{}.", "({})", "<{}>", "{} positive", "{}: yes", "{}=1", "{} +", "old {}", "Status post {}", "s/p {}",
         "{} (left)", "healed {}", "post {}", "{} \\ Effusion", "{} Effusion", "{}\u3001Effusion", "{} plus Effusion"]
    ),
    finding=st.sampled_from(("Pneumonia", "Mass", "Hernia")),
    order=st.permutations(range(3)),
)  # fmt: skip
def test_another_form_of_a_finding_is_no_class_of_its_own(form: str, finding: str, order: list[int]) -> None:
    name = form.format(finding)
    cells = [(finding, name, "Effusion")[place] for place in order]
    with pytest.raises(InputError, match=r"line [234] ") as caught:
        spread_out(cells)
    assert caught.value.reason == "dataset" and repr(name) in str(caught.value) and "--labels" in str(caught.value)
    assert set(spread_out(cells, as_written=[name])) == set(cells)


@pytest.mark.parametrize("name", ["Old fracture", "COVID+", "Pneumonia (viral)", "s/p surgery", "{Mass}"])
def test_the_only_form_of_a_finding_is_its_name(name: str) -> None:
    columns = spread_out(["Effusion", name, "Normal", "Pneumonia (bacterial)"])
    assert columns["Effusion"] == ["1", "0", "0", "0"] and len(columns) >= 4


def test_class_folders_that_mean_normal_are_one_and_others_need_an_option(tmp_path: Path) -> None:
    for name in ("Normals", "No Finding", "Pneumonia", "Clear lungs"):
        image(tmp_path / name / "a.png")
    with pytest.raises(InputError, match=r"Clear lungs.*--normal-names"):
        class_folders(tmp_path)
    dataset = folder(tmp_path, normal_names=["clear_lungs"], val_fraction=0, test_fraction=0)
    assert dataset.labels == ("Pneumonia",) and dataset.abnormal.tolist() == [0, 0, 0, 1]


def test_a_file_says_what_cells_mean_and_unknown_names_are_told(tmp_path: Path) -> None:
    place = table(tmp_path, "dx", ["Effusion", "Pneumonia (resolved)", "o.B.", "ok", "n.k.", "Pneumonia"])
    parts = tmp_path / "labels.toml"
    parts.write_text('[labels]\nPneumonia = ["Pneumonia", "Pneumonia (resolved)"]\nFluid = ["Effusion"]\n')
    typed = edgecxr("prepare", "folder", place, "--label-column", "dx", "--labels", parts, "--normal-names", "ok",
                    "--unknown-names", "n.k.", "--name", "mapped", runs=tmp_path / "runs")  # fmt: skip
    assert typed.code == 0, typed.err
    prepared = Prepared.open(tmp_path / "runs" / "data" / "mapped")
    assert prepared.labels == ("Pneumonia", "Fluid") and prepared.info["provenance"]["normal_names"] == "ok"
    nan = np.nan
    np.testing.assert_array_equal(prepared.targets, [[0, 1], [1, 0], [0, 0], [0, 0], [nan, nan], [1, 0]])
    np.testing.assert_array_equal(prepared.abnormal, [1, 1, 0, 0, nan, 1])
    assert "2 of 12" in typed.err
    for option in ("--normal-names", "--unknown-names"):
        typed = edgecxr("prepare", "folder", place, "--label-column", "dx", option, "gesundd", runs=tmp_path / "runs")
        assert typed.code == 3 and f"{option} gesundd" in typed.error
    parts.write_text('[labels]\nNormal = ["o.B."]\n')
    typed = edgecxr("prepare", "folder", place, "--label-column", "dx", "--labels", parts, runs=tmp_path / "runs")
    assert typed.code == 2 and "--normal-names" in typed.error


@settings(deadline=None, max_examples=40)
@given(
    words=st.lists(st.sampled_from(["train", "Training", "TEST", "val ", "valid", "testing"]), min_size=1, unique=True),
    inside=st.booleans(),
    deep=st.booleans(),
    spelling=st.sampled_from([str, str.upper, str.lower, str.title]),
    loose=st.booleans(),
)
def test_folders_of_splits_count_above_and_below_those_of_classes(
    words: list[str], inside: bool, deep: bool, spelling: Callable[[str], str], loose: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for word in words:
            for label in ("normal", "viral pneumonia"):
                parts = (spelling(label), word) if inside else (word, spelling(label))
                image(root.joinpath(*parts, *["images"] * deep, "a.png"))
        if loose:
            image(root / spelling("normal") / "b.png")
            with pytest.raises(InputError, match="keep one kind"):
                class_folders(root)
            return
        read = class_folders(root)
    columns, finding = read.table.columns, spelling("viral pneumonia")
    assert read.warnings == [] and set(columns) == {"image", "split", spelling("normal"), finding}
    for path, split, positive in zip(columns["image"], columns["split"], columns[finding], strict=True):
        assert [split] == [SYNONYMS[word.lower().strip()] for word in words if word in path.split("/")]
        assert positive == str(int(finding in path.split("/")))


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train/Normal/test", "train/Mass"), "two splits"),
        (("lung/Normal", "lung/Mass", "other"), "below lung"),
        (("Normal", "Mass", "Mass/no finding"), "below Mass"),
        (("site 1/Normal", "site 1/Mass", "site 2/Normal"), "below site 1"),
        (("Normal/images", "Normal/masks", "Mass/images"), "masks"),
        (("Normal", "Lung_Masks"), "Lung_Masks"),
        (("Normal", "Mass", "abnormal"), "what is wrong"),
        (("Normal", "ABNORMAL"), "what is wrong"),
        (("Normal", "Mass", "Mass?"), "--uncertain"),
        (("Normal", "Mass", "uncertain"), "--uncertain"),
        (("Normal", "Mass", "Effusion", "Mass and Effusion"), "more than one finding"),
        (("Normal", "Mass", "Mass (old)"), "write both alike"),
        (("Normal", "Mass", "unlabeled"), "nothing is known"),
        (("Normal", "Mass_0", "Mass_1"), "--normal-names Mass_0"),
    ],
)
@pytest.mark.parametrize("split", ["", "train"])
def test_class_folders_that_contradict_themselves_are_refused(
    tmp_path: Path, folders: tuple[str, ...], said: str, split: str
) -> None:
    for name in folders:
        image(tmp_path / (split if "train" not in name else "") / name / "a.png")
    with pytest.raises(InputError, match=said) as caught:
        folder(tmp_path)
    assert caught.value.reason == "dataset" and "\n" not in str(caught.value)


def test_class_folders_are_read_as_a_column_of_names_is(tmp_path: Path) -> None:
    names = ["Normal", "Mass", "mass_", "Mass?", "Mass, Effusion", "uncertain", "Negative"]
    for number, name in enumerate(names):
        image(tmp_path / name / f"{number}.png")
    read = folder(tmp_path, uncertain="ignore", normal_names=["negative"], val_fraction=0, test_fraction=0)
    nan, order = np.nan, [names.index(Path(image).parent.name) for image in read.ids]
    expected = np.array([[0, 0], [1, 0], [1, 0], [nan, 0], [1, 1], [nan, nan], [0, 0]])[order]
    np.testing.assert_array_equal(read.targets[:, [read.labels.index("Mass"), read.labels.index("Effusion")]], expected)
    np.testing.assert_array_equal(read.abnormal, np.array([0, 1, 1, nan, 1, nan, 0])[order])


def test_names_of_folders_below_classes_are_told(tmp_path: Path) -> None:
    for place in ("Normal", "Mass/benign", "Mass/p 7/left", "Mass/images"):
        image(tmp_path / place / "a.png")
    (said,) = class_folders(tmp_path).warnings
    assert ": 2 (Mass/benign, Mass/p 7);" in said
    assert said in folder(tmp_path, val_fraction=0, test_fraction=0).provenance["warnings"]


@pytest.mark.parametrize("words", [("positive", "negative"), ("1", "0"), ("yes", "no")])
def test_class_folders_of_answers_need_a_name_for_normal(tmp_path: Path, words: tuple[str, str]) -> None:
    for word in words:
        image(tmp_path / word / "a.png")
    with pytest.raises(InputError, match=f"--normal-names {words[1]}"):
        folder(tmp_path)
    read = folder(tmp_path, normal_names=[words[1]], val_fraction=0, test_fraction=0)
    assert read.labels == (words[0],) and sorted(read.abnormal.tolist()) == [0, 1]
