"""What `evidence.py --status` prints: what is done of a plan, and differences with intervals. numpy only.

A difference is that of the test AUROC, on the same bootstrap replicates of whole patients, between runs of the same
seed, which share initial weights, order of films and augmentation, as far as both are done; a teacher shares nothing
with its students and is compared with each of them. The chance of the training enters by Student's t over the seeds
(gap.py); with one seed an interval holds the chance of the test films alone, and says so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from evidence_plan import Plan, Run
from evidence_records import check_records, data_hash, record_of, result
from gap import Sample, over_seeds, paired

from edgecxr import NOTICE, metrics
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.evaluate import by_size
from edgecxr.evaluate.comparison import aurocs
from edgecxr.metrics import with_interval

SPLIT = "test"

Scores = dict[str, Sample]
"""Row of the table -> the value of one run on the test split, with its replicates."""


def status(plan: Plan, folder: Path, records: Path, replicates: int = 1000) -> str:
    """Return the runs with their results, and for each data set the table of differences.

    Args:
        plan: the runs.
        folder: of unfinished runs and data sets.
        records: of finished runs.
        replicates: of the bootstrap.

    Raises:
        InputError: a record is damaged, or a data set is not that of the plan or of the records.
        UsageError: a record is of other settings than the plan's, or of another teacher.
    """
    hashes = {
        name: data_hash(entry, folder)
        for name, entry in plan.data.items()
        if (folder / "data" / name / "dataset.json").exists()
    }
    check_records(plan, records, hashes)
    found = {run.id: record_of(records, run.id) for run in plan.runs}
    width = max(map(len, found))
    lines = [f"{run.id:{width}}  {_state(run, found[run.id], folder)}" for run in plan.runs]
    done = [run for run in plan.runs if (found[run.id] or {}).get("status") == "done"]
    commits = sorted({str(record["commit"])[:12] for record in found.values() if record})
    lines.append(f"{len(done)} of {len(plan.runs)} done, by the code of {', '.join(commits) or 'no commit yet'}")
    for name in plan.data:
        kinds = {run.name: [other for other in done if other.name == run.name] for run in done if run.data == name}
        if not kinds:
            continue
        if name not in hashes:
            words = " ".join(plan.data[name].prepare) or "folder TABLE"
            lines += [
                "",
                f"tables of {name} need its films: EDGECXR_RUNS={folder} edgecxr prepare {words} --name {name}",
            ]
            continue
        lines += ["", *_table(Prepared.open(folder / "data" / name), kinds, records, replicates)]
    return "\n".join([*lines, NOTICE])


def _state(run: Run, record: dict[str, Any] | None, folder: Path) -> str:
    if record:
        return result(record)
    epochs = sum(
        len(history.read_text().splitlines()) - 1 for history in (folder / "work" / run.id).glob("*/history.csv")
    )
    return f"epoch {epochs} of {run.settings.get('epochs', 100)}" if epochs else "-"


def scores_of(
    prepared: Prepared, kinds: dict[str, list[Run]], records: Path, replicates: int
) -> dict[str, dict[int, Scores]]:
    """Return name of runs -> seed -> scores on the test split.

    Args:
        prepared: the data set.
        kinds: name -> runs that are done.
        records: where they are.
        replicates: of the bootstrap of patients.
    """
    score = scorer(prepared, metrics.patient_weights(prepared.patients[prepared.rows(SPLIT)], replicates))
    return {name: {run.seed: score(answers(records, run.id)) for run in runs} for name, runs in kinds.items()}


def difference(run: Run, measure: str, scored: dict[str, dict[int, Scores]], unlike: bool) -> tuple[Sample, int] | None:
    """Return the mean paired difference of a run's kind to the one that it is against, and the number of pairs.

    Args:
        run: any run of the kind.
        measure: a row of the table.
        scored: from `scores_of`.
        unlike: one of both is a teacher, the other is not.

    Returns:
        None where it is against none that is done, or no seed is in common.
    """
    if run.against is None or run.against not in scored:
        return None
    ours, theirs = (
        {seed: scores[measure] for seed, scores in scored[name].items()} for name in (run.name, run.against)
    )
    pairs = paired(ours, theirs, unlike)
    return (over_seeds(pairs, zlib.crc32(f"{run.name} {measure}".encode())), len(pairs)) if pairs else None


def _table(prepared: Prepared, kinds: dict[str, list[Run]], records: Path, replicates: int) -> list[str]:
    rows = prepared.rows(SPLIT)
    scored = scores_of(prepared, kinds, records, replicates)
    made_up = " (synthetic phantom films)" if prepared.phantom else ""
    measures = list(next(iter(next(iter(scored.values())).values())))
    teachers = {name for name, runs in kinds.items() if runs[0].method == "teacher"}
    head = [f"{name} ({len(seeds)})" for name, seeds in scored.items()]
    cells = {name: [_cell(kinds[name][0], measure, scored, teachers) for measure in measures] for name in scored}
    widths = [max(len(title), *map(len, cells[name])) for title, name in zip(head, cells, strict=True)]
    first = max(map(len, measures))
    lines = [
        f"{prepared.name}{made_up}, {SPLIT} split, {len(rows)} films: AUROC with 95 % interval, and as [name] the "
        "paired difference to that name; seeds in brackets (one seed: the chance of the test films alone)",
        "  ".join([" " * first, *(f"{title:{w}}" for title, w in zip(head, widths, strict=True))]).rstrip(),
    ]
    for place, measure in enumerate(measures):
        row = [f"{cells[name][place]:{w}}" for name, w in zip(cells, widths, strict=True)]
        lines.append("  ".join([f"{measure:{first}}", *row]).rstrip())
    return lines


def _cell(run: Run, measure: str, scored: dict[str, dict[int, Scores]], teachers: set[str]) -> str:
    if run.against is None or run.against not in scored:
        ours = [scores[measure] for scores in scored[run.name].values()]
        return str(over_seeds(ours, zlib.crc32(f"{run.name} {measure}".encode())).interval)
    found = difference(run, measure, scored, (run.name in teachers) != (run.against in teachers))
    if found is None:
        return f"- [{run.against}, no seed in common]"
    sample, count = found
    interval = sample.interval
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    return f"{with_interval(interval.value, interval.low, interval.high, '+.3f')} [{run.against}, {seeds}]"


def scorer(prepared: Prepared, weights: metrics.Array) -> Callable[[Outputs], Scores]:
    """Return what scores a run: tasks, findings, and where there are boxes sizes and hits of the attention."""
    cases = by_size.cases_of(prepared, SPLIT) if _has_boxes(prepared) else None

    def score(outputs: Outputs) -> Scores:
        both = aurocs(prepared, SPLIT, outputs.logits, weights)
        found = {"findings (macro)": _macro(both["findings"]), "normal/abnormal": _macro(both["abnormal"])}
        for column, label in enumerate(prepared.labels):
            one = both["findings"]
            if not np.isnan(one.labels[column]):
                found[label] = Sample(float(one.labels[column]), one.replicates[:, column])
        if cases is None:
            return found
        for name, chosen in by_size.groups_of(cases).items():
            targets, columns = by_size.targets_of(prepared, SPLIT, cases, chosen)
            if columns:
                found[name] = _macro(metrics.aurocs(targets[:, columns], outputs.findings[:, columns], weights))
        hit = by_size.hits(cases, outputs.attention)
        counted = weights[:, cases.image]
        with np.errstate(invalid="ignore"):  # a replicate of a small set may have no case
            found["attention hits"] = Sample(float(hit.mean()), counted @ hit.astype(np.float32) / counted.sum(axis=1))
        return found

    return score


def _has_boxes(prepared: Prepared) -> bool:
    return bool(np.isin(prepared.boxes.image, prepared.rows(SPLIT)).any())


def _macro(found: metrics.Aurocs) -> Sample:
    return Sample(found.macro.value, found.macro_replicates)


def answers(records: Path, name: str) -> Outputs:
    """Return what a finished run answers for the test films; its attention is 1 where it is strongest, else 0."""
    with np.load(records / f"{name}.npz", allow_pickle=False) as file:
        grid = int(file["grid"])
        strongest = file["strongest"][:, None] == np.arange(grid * grid)
        return Outputs(file["findings"], file["abnormal"], strongest.reshape(-1, grid, grid).astype(np.float32))
