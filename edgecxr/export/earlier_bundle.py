"""Files of an earlier bundle that need not be made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import edgecxr
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import ModelCard
from edgecxr.bundle.engine_record import FOLDER, EngineRecord
from edgecxr.bundle.signature import SIGNATURE
from edgecxr.data.prepared import Prepared
from edgecxr.engines.target import Target
from edgecxr.errors import ModelError, UsageError
from edgecxr.export.recipe import Recipe

MADE_FROM = "made_from"
"""Key of an artefact in a card: hash of everything that its file and its verdict follow from."""


def made_from(card: ModelCard, prepared: Prepared, recipe: Recipe, target: Target | None, precision: str) -> str:
    """Return a hash of what an artefact follows from.

    Args:
        card: card of the run.
        prepared: the data set that calibrates and judges.
        recipe: its settings for this precision count.
        target: the device.
        precision: of the artefact.
    """
    settings = asdict(recipe) | {"precisions": None, "auroc_tolerance": None}
    origin = {
        "version": edgecxr.__version__,
        "name": card.name,
        "weights": card.sha256,
        "data": prepared.hash,
        "target": target and [target.profile, target.engine, target.int8_float],
        "precision": precision,
        "logit_tolerance": recipe.logit_tolerance,
        "tolerance": None if precision == "fp32" else recipe.tolerance(precision),
        "settings": settings if precision == "int8" else None,
    }
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()


class EarlierBundle:
    """Bundle at the place of an export, if there is one.

    Args:
        dest: the place.
    """

    def __init__(self, dest: Path) -> None:
        self._bundle = None
        with suppress(ModelError):
            self._bundle = Bundle.open(dest)

    def unchanged(self, card: ModelCard, files: dict[str, str]) -> bool:
        """Return whether an export would make this very bundle.

        Args:
            card: card of the export, whose artefacts and gate do not count.
            files: name of each model file -> what it is made from.
        """
        if self._bundle is None:
            return False
        ours = self._bundle.card
        own = {name: facts.get(MADE_FROM) for name, facts in ours.artefacts.items()}
        plain: dict[str, Any] = {"artefacts": {}, "gate": {}}
        return own == files and asdict(ours) | plain == asdict(card) | plain

    def copy(self, name: str, origin: str, folder: Path) -> dict[str, Any] | None:
        """Copy a model file that would be made again into `folder`.

        Returns:
            Its facts for the card; None if there is no such file.
        """
        facts = self._bundle.card.artefacts.get(name) if self._bundle else None
        if facts is None or self._bundle is None or facts.get(MADE_FROM) != origin:
            return None
        shutil.copyfile(self._bundle.path / name, folder / name)
        return dict(facts)

    def copy_engines(self, artefacts: dict[str, dict[str, Any]], folder: Path) -> list[str]:
        """Copy the engines of model files that stay into `folder`.

        Args:
            artefacts: those of the new card.
            folder: folder of the new bundle.

        Returns:
            Names of the engines that are not copied, since their model file is another or is gone.
        """
        engines = self._bundle.path / FOLDER if self._bundle else None
        if engines is None or not engines.is_dir():
            return []
        lost = []
        for path in sorted(engines.glob("*.json")):
            with suppress(ModelError, UsageError):
                record, _ = EngineRecord.read(path)
                if artefacts.get(record.onnx, {}).get("sha256") != record.onnx_sha256:
                    lost.append(path.with_suffix(".engine").name)
                    continue
                (folder / FOLDER).mkdir(exist_ok=True)
                for file in (path, path.with_suffix(".engine")):
                    if file.is_file():
                        shutil.copy2(file, folder / FOLDER / file.name)
        if (folder / FOLDER).is_dir():
            for cache in engines.glob("*.cache"):
                shutil.copy2(cache, folder / FOLDER / cache.name)
        return lost

    def gone(self, artefacts: dict[str, dict[str, Any]]) -> list[str]:
        """Return the files that the new bundle does not have."""
        if self._bundle is None:
            return []
        signature = ["its signature"] if (self._bundle.path / SIGNATURE).exists() else []
        return [*sorted(set(self._bundle.card.artefacts) - set(artefacts)), *signature]
