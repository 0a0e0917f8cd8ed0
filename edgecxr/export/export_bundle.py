"""Export of a finished run to a bundle of checked artefacts.

Each artefact is compared with the checkpoint on real images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle.bundle import Bundle, read_sums, seal, sha256_of
from edgecxr.bundle.card import ModelCard
from edgecxr.bundle.describe import KINDS
from edgecxr.data.prepared import Prepared
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.engines.target import Target
from edgecxr.errors import CheckFailed, InputError
from edgecxr.export.calibration_images import choose
from edgecxr.export.choose_calibration import quantise, ranges_of
from edgecxr.export.earlier_bundle import MADE_FROM, EarlierBundle, made_from
from edgecxr.export.fit_gate import add_gate
from edgecxr.export.lower_precision import to_fp16
from edgecxr.export.onnx import OPSETS, export_fp32
from edgecxr.export.parity import FAIL, Truth, Verdict, check_parity, compare, logits_of, same_auroc
from edgecxr.export.recipe import Recipe
from edgecxr.export.sensitivity import Cost, analyse, worst
from edgecxr.films.radiograph import FilmRead
from edgecxr.films.resize import BASE_SIZE, source_size
from edgecxr.storage.folders import atomic_folder
from edgecxr.storage.unfinished import sweep
from edgecxr.terminal import progress
from edgecxr.train.checkpoint import load_run
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.vocabulary import FloatArray

FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}

SPLIT = "val"
"""Split that artefacts are chosen and judged on; the test split is kept for evaluating the result."""

CHECKED_IMAGES = 64

Note = Callable[[str], None]


def export_bundle(
    run: Path,
    prepared: Prepared,
    dest: Path,
    recipe: Recipe | None = None,
    target: Target | None = None,
    note: Note = lambda text: None,
    not_chest: Sequence[FilmRead] = (),
    name: str | None = None,
) -> Bundle:
    """Export a finished run to a bundle.

    If an artefact fails its check, an existing bundle at `dest` is left unchanged. Model files of it that would be made
    again are taken over with their verdicts, and so are the engines that were built from them.

    Args:
        run: folder of a teacher's or student's run.
        prepared: the data set; its training images calibrate, its validation images judge.
        dest: folder of the bundle.
        recipe: what to build and how much it may lose; by default FP32, FP16 and INT8.
        target: the device, which decides the ONNX profile and the float part of the INT8 file. Without a target the
            files are for any recent engine, and the INT8 file is for CPUs.
        note: called with a line of text on the result of each artefact.
        not_chest: images that are no frontal chest films, to count how many the quality gate refuses.
        name: name of the model in its card; None means that of the run.

    Raises:
        ModelError: the run is not finished or damaged, or the exporter failed.
        InputError: the data set has no validation images, or too few training images for calibration.
        CheckFailed: an artefact differs from the checkpoint.
        UsageError: `dest` cannot be written, another process is writing it, or the recipe is for another
            model.
    """
    recipe = recipe or Recipe()
    model, card = load_run(run)
    recipe.check(card)
    card = replace(card, name=name or card.name, target=asdict(target) if target else {}, limits=recipe.limits)
    images = _some_images(prepared, card)
    reference = TorchBackend(model)
    profile = target.profile if target else "modern"
    precisions = [precision for precision in FILES if precision in recipe.precisions or precision == "fp32"]
    origins = {FILES[precision]: made_from(card, prepared, recipe, target, precision) for precision in precisions}
    earlier = EarlierBundle(dest)
    if earlier.unchanged(card, origins) and not not_chest:
        sweep(dest.parent)  # an earlier export may have been killed after it had put this bundle here
        note(f"{dest} is up to date, and nothing is made again; remove it to make all of it anew")
        return Bundle.open(dest)
    with atomic_folder(dest) as folder:
        fp32 = folder / FILES["fp32"]
        common = {"profile": profile, "opset": OPSETS[profile]}
        same = earlier.copy(fp32.name, origins[fp32.name], folder)
        if same is None:
            export_fp32(model, card, fp32, profile, split_attention=target is not None and target.engine == "tensorrt")
            parity = compare(reference, OnnxRuntimeBackend(fp32), images)
            check_parity(parity, card.name, recipe.logit_tolerance)
            difference = f"{parity['max_logit_difference']:.1e}"
            note(f"fp32: pass, logits within {difference} of the checkpoint on {len(images)} images")
            same = _facts(fp32, "fp32", common, parity | {"data": prepared.name})
        else:
            note(f"fp32: unchanged, taken from the bundle at {dest}")
        artefacts = {fp32.name: same | {MADE_FROM: origins[fp32.name]}}
        truth: Truth | None = None
        for precision in precisions[1:]:
            file = folder / FILES[precision]
            same = earlier.copy(file.name, origins[file.name], folder)
            if same is not None:
                note(f"{precision}: unchanged, taken from the bundle at {dest}")
                artefacts[file.name] = same
                continue
            truth = truth or Truth.of(reference, prepared, SPLIT, card.size)
            if precision == "fp16":
                conversion = to_fp16(fp32, file)
            else:
                float_part = target.int8_float if target else "fp32"
                conversion = _int8(fp32, file, truth, card, recipe, float_part)
            backend = OnnxRuntimeBackend(file)
            verdict = same_auroc(truth, logits_of(backend, prepared, SPLIT, card.size), recipe.tolerance(precision))
            note(f"{precision}: {verdict}")
            if verdict.status == FAIL:
                _refuse(fp32, precision, verdict, truth, card, recipe)
            facts = _facts(file, precision, common, compare(reference, backend, images) | {"data": prepared.name})
            verdict_facts = {"verdict": verdict.to_dict(), MADE_FROM: origins[file.name]}
            artefacts[file.name] = facts | conversion | verdict_facts
        paths = {facts["precision"]: folder / name for name, facts in artefacts.items()}
        gate = add_gate(folder, paths, prepared, card, not_chest)
        if not_chest and source_size(card.size) != BASE_SIZE:
            note(f"--not-chest: left out for {card.name}, since the files are read at {BASE_SIZE} px")
        note(_of_gate(gate))
        card = replace(card, artefacts=artefacts, gate=gate)
        seal(folder, card)
        lost = [*earlier.gone(artefacts), *earlier.copy_engines(artefacts, folder)]
        if lost:
            note(f"no longer in {dest}, because this export makes it anew without them: {', '.join(lost)}")
    return Bundle(dest, card, read_sums(dest))


def _of_gate(gate: dict[str, Any]) -> str:
    """Return one line on the gate's rates with the FP32 file."""
    if not gate:
        return "quality gate: none, there are too few training or validation films"
    rates = dict(gate["rates"]["fp32"])
    films = rates.pop("films", None)
    refusals = ", ".join(f"{KINDS.get(kind, kind)} {rate['refused']}/{rate['images']}" for kind, rate in rates.items())
    wrongly = f"{films['refused']} of {films['images']}" if films else "unknown, there is no test split"
    aim = f"set to refuse about {gate['false_rejection']:.0%} of such films"
    return f"quality gate: test films refused wrongly: {wrongly} ({aim}); rightly refused: {refusals}"


def layer_costs(run: Path, prepared: Prepared, recipe: Recipe, scratch: Path) -> list[Cost]:
    """Return what INT8 costs layer by layer, the worst first.

    Args:
        run: folder of a teacher's or student's run.
        prepared: the data set, as in `export_bundle`.
        recipe: its first number of images and its first method are used to calibrate.
        scratch: an existing folder for temporary files.

    Raises:
        InputError: the data set has no validation images, or too few training images for calibration.
    """
    model, card = load_run(run)
    _validation(prepared)
    truth = Truth.of(TorchBackend(model), prepared, SPLIT, card.size)
    fp32 = scratch / FILES["fp32"]
    export_fp32(model, card, fp32)
    return _costs(fp32, truth, card, recipe)


def _int8(fp32: Path, file: Path, truth: Truth, card: ModelCard, recipe: Recipe, float_part: str) -> dict[str, Any]:
    keep = worst(_costs(fp32, truth, card, recipe), recipe.keep_float) if recipe.keep_float else ()
    with progress("calibrate") as update:
        return quantise(fp32, file, truth, card.size, recipe, float_part, keep, update)


def _costs(fp32: Path, truth: Truth, card: ModelCard, recipe: Recipe) -> list[Cost]:
    choice = choose(truth.prepared, recipe.calibration_images[0], recipe.seed)
    ranges = ranges_of(fp32, truth.prepared, choice, card.size, recipe.calibration_methods[0])
    with progress("analyse layers") as update:
        return analyse(fp32, ranges, truth, card.size, update)


def _refuse(fp32: Path, precision: str, verdict: Verdict, truth: Truth, card: ModelCard, recipe: Recipe) -> None:
    """Raise the error of a failed artefact, with a remedy."""
    message = (
        f"the {precision} file of {card.name} loses more than an AUROC of {verdict.tolerance:g} ({verdict}); nothing "
        "was written"
    )
    if precision == "int8":
        layers = worst(_costs(fp32, truth, card, recipe), recipe.keep_float + 3)
        message += (
            f". Most is lost in {', '.join(layers)}: try --keep-float {recipe.keep_float + 3}, or export without INT8 "
            "(--fp16)"
        )
    raise CheckFailed(f"{message}. To export it all the same, raise auroc_tolerance in a recipe (--recipe FILE)")


def _validation(prepared: Prepared) -> NDArray[np.intp]:
    """Return the rows of the validation images."""
    rows = prepared.rows(SPLIT)
    if len(rows) == 0:
        raise InputError(f"data set {prepared.name} has no validation images to check the export on", "dataset")
    return rows


def _some_images(prepared: Prepared, card: ModelCard) -> FloatArray:
    rows = _validation(prepared)
    # Spread the choice, since a split is often sorted by patient or class.
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), CHECKED_IMAGES)).astype(int))]
    return prepared.inputs(rows, card.size)


def _facts(file: Path, precision: str, common: dict[str, Any], parity: dict[str, Any]) -> dict[str, Any]:
    sizes = {"sha256": sha256_of(file), "bytes": file.stat().st_size}
    return {"precision": precision, **common, **sizes, "parity": parity}
