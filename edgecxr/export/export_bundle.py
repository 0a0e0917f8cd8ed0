"""A finished run -> a bundle of artefacts, each compared with the checkpoint on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.bundle.bundle import Bundle, seal, sha256_of
from edgecxr.bundle.card import ModelCard
from edgecxr.data.prepared import Prepared
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.engines.target import Target
from edgecxr.errors import CheckFailed, InputError
from edgecxr.export.calibration_images import choose
from edgecxr.export.choose_calibration import quantise, ranges_of
from edgecxr.export.fit_gate import add_gate
from edgecxr.export.lower_precision import to_fp16
from edgecxr.export.onnx import OPSETS, export_fp32
from edgecxr.export.parity import FAIL, Truth, Verdict, check_parity, compare, logits_of, same_auroc
from edgecxr.export.recipe import Recipe
from edgecxr.export.sensitivity import Cost, analyse, worst
from edgecxr.films.radiograph import FilmRead
from edgecxr.films.resize import BASE_SIZE, source_size
from edgecxr.storage.folders import atomic_folder
from edgecxr.terminal import progress
from edgecxr.train.checkpoint import load_run
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.vocabulary import FloatArray

FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}

SPLIT = "val"
"""Whose images artefacts are chosen and judged by; the test split is for who evaluates what came out."""

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
) -> Bundle:
    """Export a finished run; a bundle that was at `dest` stays as it was unless no artefact fails.

    Args:
        run: of a teacher or student.
        prepared: the data set: its training images calibrate, its validation images judge.
        dest: folder of the bundle.
        recipe: what to make and how much it may lose; by default FP32, FP16 and INT8.
        target: the device, which decides the profile of the ONNX and the float part of the INT8 file. Without one they
            are for any recent engine, and INT8 for CPUs.
        note: is told what each artefact came to.
        not_chest: files that are no frontal chest films, to count how many of them the quality gate finds.

    Raises:
        ModelError: the run is not finished or damaged, or the exporter failed.
        InputError: the data set has no validation images, or too few training images to calibrate on.
        CheckFailed: an artefact differs from the checkpoint.
        UsageError: `dest` cannot be written, another process is writing it, or the recipe is for another model.
    """
    recipe = recipe or Recipe()
    model, card = load_run(run)
    recipe.check(card)
    images = _some_images(prepared, card)
    reference = TorchBackend(model)
    profile = target.profile if target else "modern"
    with atomic_folder(dest) as folder:
        fp32 = folder / FILES["fp32"]
        export_fp32(model, card, fp32, profile)
        parity = compare(reference, OnnxRuntimeBackend(fp32), images)
        check_parity(parity, card.name, recipe.logit_tolerance)
        note(
            f"fp32: pass, logits within {parity['max_logit_difference']:.1e} of the checkpoint on {len(images)} images"
        )
        common = {"profile": profile, "opset": OPSETS[profile]}
        artefacts = {fp32.name: _facts(fp32, "fp32", common, parity | {"data": prepared.name})}
        lower = [precision for precision in FILES if precision in recipe.precisions and precision != "fp32"]
        if lower:
            truth = Truth.of(reference, prepared, SPLIT, card.size)
        for precision in lower:
            file = folder / FILES[precision]
            if precision == "fp16":
                made = to_fp16(fp32, file)
            else:
                float_part = target.int8_float if target else "fp32"
                made = _int8(fp32, file, truth, card, recipe, float_part)
            backend = OnnxRuntimeBackend(file)
            verdict = same_auroc(truth, logits_of(backend, prepared, SPLIT, card.size), recipe.tolerance(precision))
            note(f"{precision}: {verdict}")
            if verdict.status == FAIL:
                _refuse(fp32, precision, verdict, truth, card, recipe)
            facts = _facts(file, precision, common, compare(reference, backend, images) | {"data": prepared.name})
            artefacts[file.name] = facts | made | {"verdict": verdict.to_dict()}
        paths = {facts["precision"]: folder / name for name, facts in artefacts.items()}
        gate = add_gate(folder, paths, prepared, card, not_chest)
        if not_chest and source_size(card.size) != BASE_SIZE:
            note(f"--not-chest: left out for {card.name}, since the files are read at {BASE_SIZE} px")
        note(_of_gate(gate))
        card = replace(card, artefacts=artefacts, target=asdict(target) if target else {}, gate=gate)
        seal(folder, card)
    return Bundle(dest, card)


def _of_gate(gate: dict[str, Any]) -> str:
    """Return a line about the quality gate: its rates with the FP32 file."""
    if not gate:
        return "quality gate: none, there are too few training or validation films"
    rates = dict(gate["rates"]["fp32"])
    films = rates.pop("films", None)
    found = ", ".join(f"{kind} {rate['refused']}/{rate['images']}" for kind, rate in rates.items())
    own = (
        f"{films['refused']} of {films['images']} test films"
        if films
        else "an unknown share of films, without a test split"
    )
    meant = f"about {gate['false_rejection']:.0%} are meant"
    return f"quality gate: refuses {own} ({meant}); of what is no chest film: {found}"


def layer_costs(run: Path, prepared: Prepared, recipe: Recipe, scratch: Path) -> list[Cost]:
    """Return what INT8 costs layer by layer, the worst first.

    Args:
        run: of a teacher or student.
        prepared: as `export_bundle` takes it.
        recipe: the first of its numbers of images and of its methods calibrate.
        scratch: an existing folder for temporary files.
    """
    model, card = load_run(run)
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
    """Say that an artefact failed, and what to do."""
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
    raise CheckFailed(message)


def _some_images(prepared: Prepared, card: ModelCard) -> FloatArray:
    rows = prepared.rows(SPLIT)
    if len(rows) == 0:
        raise InputError(f"data set {prepared.name} has no validation images to check the export on", "dataset")
    # Spread over the split, which is often sorted by patient or class.
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), CHECKED_IMAGES)).astype(int))]
    return prepared.inputs(rows, card.size)


def _facts(file: Path, precision: str, common: dict[str, Any], parity: dict[str, Any]) -> dict[str, Any]:
    sizes = {"sha256": sha256_of(file), "bytes": file.stat().st_size}
    return {"precision": precision, **common, **sizes, "parity": parity}
