import csv

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation

from edgecxr.data.prepare.prepare import prepare
from edgecxr.errors import InputError, UsageError
from edgecxr.films.read import read_radiograph
from edgecxr.films.resize import to_base
from edgecxr.phantom import make as module
from edgecxr.phantom.dicom_file import encode
from edgecxr.phantom.disease import LABELS
from edgecxr.phantom.film import plan, render
from edgecxr.phantom.make import image_id, phantom, split_of, write_phantom
from edgecxr.registry import DATASETS, resolve

N = 12


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom") / "films"
    write_phantom(path, N, seed=3, workers=1)
    return path


@pytest.fixture(scope="module")
def files(folder):
    return [folder / split_of(i) / f"{image_id(3, i)}.dicom" for i in range(N)]


def test_two_workers_write_the_same_bytes_as_one(folder, tmp_path):
    counts = []
    write_phantom(tmp_path / "two", N, seed=3, workers=2, progress=lambda done, total: counts.append((done, total)))
    assert contents(tmp_path / "two") == contents(folder)
    assert counts == [(done, N) for done in range(N + 1)]


def test_another_seed_makes_other_films():
    assert image_id(3, 0) != image_id(4, 0)
    assert not np.array_equal(render(3, 0).pixels[:400, :400], render(4, 0).pixels[:400, :400])


def test_an_interrupted_run_goes_on_and_keeps_what_is_complete(folder, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def stop(done, total):
        if done == 5:
            raise Killed

    target = tmp_path / "films"
    with pytest.raises(Killed):
        write_phantom(target, N, seed=3, workers=1, progress=stop)
    assert not (target / "annotations").exists()  # the tables say that a folder is complete
    assert len(list(target.rglob("*.dicom"))) == 5

    films = []
    write = module._write_film
    monkeypatch.setattr(module, "_write_film", lambda *task: films.append(write(*task)) or films[-1])
    write_phantom(target, N, seed=3, workers=1)
    assert films == list(range(5, N))
    assert contents(target) == contents(folder)


def test_more_films_are_added_to_those_there(tmp_path):
    write_phantom(tmp_path / "films", 8, workers=1)
    before = contents(tmp_path / "films")
    write_phantom(tmp_path / "films", 9, workers=1)
    after = contents(tmp_path / "films")
    assert {name for name in before if after[name] == before[name] and name.endswith(".dicom")} == {
        name for name in before if name.endswith(".dicom")
    }
    assert len(rows(tmp_path / "films" / "annotations" / "patients.csv")) == 9


def test_a_folder_of_something_else_is_not_touched(folder, tmp_path):
    with pytest.raises(InputError, match="another seed"):
        write_phantom(folder, N, seed=4)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_phantom(tmp_path, N)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("n", "seed"), [(7, 0), (10, -1)])
def test_sizes_and_seeds_out_of_range_are_usage_errors(tmp_path, n, seed):
    with pytest.raises(UsageError):
        write_phantom(tmp_path / "films", n, seed=seed)


def test_films_are_dx_for_presentation_and_say_that_they_are_synthetic(files):
    for path in files:
        dataset = dcmread(path)
        assert dataset.SOPClassUID == DigitalXRayImageStorageForPresentation
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert (dataset.Modality, dataset.PresentationIntentType) == ("DX", "FOR PRESENTATION")
        assert dataset.BodyPartExamined == "CHEST"
        assert dataset.ViewPosition in ("PA", "AP")
        assert dataset.BitsStored in (12, 14, 16)
        assert dataset.HighBit == dataset.BitsStored - 1
        assert str(dataset.PatientName).startswith("PHANTOM^")
        assert "ynthetic" in dataset.ImageComments
        expected = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
        assert dataset.PresentationLUTShape == expected[dataset.PhotometricInterpretation]
        stored = dataset.pixel_array
        assert stored.shape == (dataset.Rows, dataset.Columns)
        assert stored.max() < 1 << dataset.BitsStored


def test_every_transfer_syntax_and_display_reads_back_as_the_film(tmp_path):
    film = render(0, 0)
    kinds = set()
    for seed in range(60):  # of the storage only: the film stays
        path = tmp_path / "film.dicom"
        path.write_bytes(encode(film, seed))
        dataset = dcmread(path)
        display = "lut" if "VOILUTSequence" in dataset else "window" if "WindowWidth" in dataset else "none"
        key = (dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation, display)
        fresh = {key[0], key[1:]} - kinds
        kinds |= fresh
        if not fresh or display == "none":
            continue
        assert np.abs(read_radiograph(path).pixels - film.pixels).max() < 1 / 255, key
    assert len([key for key in kinds if not isinstance(key, tuple)]) == 7
    assert len([key for key in kinds if isinstance(key, tuple)]) == 6


def test_monochrome1_stores_inverted_values(files):
    signs = {}
    for index, path in enumerate(files):
        dataset = dcmread(path)
        correlation = np.corrcoef(dataset.pixel_array.ravel(), render(3, index).pixels.ravel())[0, 1]
        signs.setdefault(dataset.PhotometricInterpretation, []).append(correlation)
    assert max(signs["MONOCHROME1"]) < -0.9
    assert min(signs["MONOCHROME2"]) > 0.9


def test_air_is_black_and_the_heart_brighter_than_the_lungs():
    film = render(0, 1, findings=())
    geometry, shot = film.plan.geometry, film.plan.exposure
    y = 0.75 * geometry.height
    row = int((y - shot.centre[1]) / shot.spacing + shot.rows / 2)
    middle = shot.columns / 2 - shot.centre[0] / shot.spacing
    lung = film.pixels[row - 15 : row + 15, int(middle - 8 / shot.spacing) - 15 :][:, :30].mean()
    heart = film.pixels[row - 15 : row + 15, int(middle) - 15 :][:, :30].mean()
    assert film.pixels.dtype == np.float32
    assert film.pixels.min() >= 0
    assert film.pixels.max() <= 1
    assert 0.05 < lung < 0.55
    assert heart > lung + 0.25


@pytest.mark.parametrize("label", ["Pleural effusion", "Lung Opacity", "Nodule/Mass", "Pulmonary fibrosis"])
def test_findings_brighten_their_boxes(label):
    changes = [box_change(index, label) for index in range(4)]
    assert np.mean(changes) > 0.01
    assert max(changes) > 0.02


def test_pneumothorax_darkens_its_box():
    assert np.mean([box_change(index, "Pneumothorax") for index in range(4)]) < -0.004


def box_change(index, label):
    """Mean change of grey in the boxes, against the rest of the film, when the finding appears."""
    without, with_it = render(0, index, findings=()), render(0, index, findings=[label])
    assert with_it.findings == {other: other == label for other in LABELS}
    inside = np.zeros(without.pixels.shape, bool)
    for name, x0, y0, x1, y1 in with_it.boxes:
        assert name == label
        inside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
    difference = with_it.pixels - without.pixels
    return float(difference[inside].mean() - np.median(difference[~inside]))


def test_cardiomegaly_is_a_cardiothoracic_ratio_above_a_half():
    ratios = {True: [], False: []}
    for index in range(300):
        film = plan(0, index)
        left, right = film.geometry.heart_extent
        ratios["Cardiomegaly" in film.disease.present].append((left + right) / (2 * film.anatomy.width))
    assert min(ratios[True]) > 0.5 > max(ratios[False])
    assert max(ratios[False]) > 0.48  # not trivial
    wide, usual = render(0, 1, findings=["Cardiomegaly"]), render(0, 1, findings=())
    (_, x0, y0, x1, y1) = wide.boxes[0]
    box = np.s_[int(y0) : int(y1), int(x0) : int(x1)]
    assert wide.pixels[box].mean() > usual.pixels[box].mean() + 0.01


def test_about_half_the_films_have_no_finding_and_every_finding_occurs():
    present = [plan(0, index).disease.present for index in range(600)]
    assert 0.42 < np.mean([not labels for labels in present]) < 0.6
    for label in LABELS:
        assert 0.04 < np.mean([label in labels for labels in present]) < 0.3


def test_tables_are_those_of_vindr(folder):
    train = rows(folder / "annotations" / "image_labels_train.csv")
    test = rows(folder / "annotations" / "image_labels_test.csv")
    assert list(train[0]) == ["image_id", "rad_id", *LABELS, "No finding"]
    assert list(test[0]) == ["image_id", *LABELS, "No finding"]
    indices = {split: [i for i in range(N) if split_of(i) == split] for split in ("train", "test")}
    assert [row["image_id"] for row in train] == [image_id(3, i) for i in indices["train"] for _ in range(3)]
    for start in range(0, len(train), 3):
        assert len({row["rad_id"] for row in train[start : start + 3]}) == 3
    for row, index in zip(test, indices["test"], strict=True):
        film = render(3, index)
        assert row["image_id"] == image_id(3, index)
        assert {label: row[label] == "1" for label in LABELS} == film.findings
        assert (row["No finding"] == "1") == (not any(film.findings.values()))


def test_boxes_belong_to_what_the_readers_report(folder):
    for split in ("train", "test"):
        who = ("image_id", "rad_id")[: 2 if split == "train" else 1]
        labels = rows(folder / "annotations" / f"image_labels_{split}.csv")
        reported = {
            tuple(row[k] for k in who): {name for name in (*LABELS, "No finding") if row[name] == "1"} for row in labels
        }
        drawn = {key: set() for key in reported}
        for row in rows(folder / "annotations" / f"annotations_{split}.csv"):
            drawn[tuple(row[k] for k in who)].add(row["class_name"])
            corners = [row[k] for k in ("x_min", "y_min", "x_max", "y_max")]
            if row["class_name"] == "No finding":
                assert corners == [""] * 4
            else:
                x0, y0, x1, y1 = map(float, corners)
                assert 0 <= x0 < x1 < 640
                assert 0 <= y0 < y1 < 640
        assert drawn == reported


def test_boxes_of_the_prepared_set_cover_what_the_finding_changes(folder, tmp_path):
    prepared = prepare(phantom(folder, N, seed=3), tmp_path / "prepared", 1)
    boxes, number = prepared.boxes, {image_id(3, index): index for index in range(N)}
    shapes, boxed = set(), set()
    for row, column in sorted(set(zip(boxes.image.tolist(), boxes.label.tolist(), strict=True))):
        index, label = number[prepared.ids[row]], prepared.labels[column]
        assert prepared.targets[row, column] >= 0.5
        present = plan(3, index).disease.present
        if label not in present or label == "Pulmonary fibrosis":  # a false alarm of two readers; a change of texture
            continue
        film, rest = render(3, index), render(3, index, [other for other in present if other != label])
        difference = to_base(film.pixels).astype(float) - to_base(rest.pixels)
        change = np.abs(difference - np.median(difference))  # the processing of the film sees all of it
        inside = np.zeros((224, 224), bool)
        for x0, y0, x1, y1 in boxes.corners[(boxes.image == row) & (boxes.label == column)]:
            inside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
        assert change[inside].mean() > 2 * change[~inside].mean(), (index, label)
        shapes.add(film.pixels.shape)
        boxed.add(label)
    assert len(boxed) >= 3
    assert any(rows > columns for rows, columns in shapes) and any(rows < columns for rows, columns in shapes)


def test_readers_disagree_sometimes_and_their_majority_is_mostly_right():
    votes, truth = [], []
    for index in range(150):
        film = plan(0, index)
        readings = [findings for _, findings, _ in module._readings(0, film)]
        votes += [sum(label in findings for findings in readings) for label in LABELS]
        truth += [label in film.disease.present for label in LABELS]
    votes, truth = np.array(votes), np.array(truth)
    split = np.mean((votes[truth] > 0) & (votes[truth] < 3))
    assert 0.1 < split < 0.6
    assert np.mean(votes[truth] >= 2) > 0.85
    assert np.mean(votes[~truth] >= 2) < 0.01


def test_patients_with_two_films_stay_on_one_side_of_the_split():
    splits, films = {}, {}
    for index in range(400):
        patient = plan(0, index).patient
        splits.setdefault(patient, set()).add(split_of(index))
        films[patient] = films.get(patient, 0) + 1
    assert all(len(of_patient) == 1 for of_patient in splits.values())
    assert set(films.values()) == {1, 2}
    assert sum(split_of(index) == "test" for index in range(400)) == 80


def test_the_data_set_opens_with_its_provenance_and_patients(folder, files):
    dataset = resolve(DATASETS, "phantom", "data set")(folder, n=N, seed=3)
    assert dataset.name == "phantom"
    assert dataset.labels == LABELS
    assert len(dataset) == N
    assert dataset.provenance["phantom"] is True
    assert (dataset.provenance["seed"], dataset.provenance["n"]) == (3, N)
    assert set(dataset.ids) == {path.stem for path in files}
    assert len(set(dataset.patients)) == len({dcmread(path).PatientID for path in files})
    assert dataset.reader(0)().pixels.max() <= 1
    assert phantom is resolve(DATASETS, "phantom", "data set")
