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
from evidence_records import answers, check_answers, check_records, data_hash, record_of, result
from gap import Sample, over_seeds, paired, share

from edgecxr import NOTICE, metrics
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.errors import InputError
from edgecxr.evaluate import by_size
from edgecxr.metrics import Interval, with_interval
from edgecxr.terminal import aligned

SPLIT = "test"

HITS = "attention hits"
"""The measure that is no AUROC."""

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
    by_run = {run.id: record_of(records, run.id) for run in plan.runs}
    width = max(map(len, by_run))
    lines = [f"{run.id:{width}}  {_state(run, by_run[run.id], folder)}" for run in plan.runs]
    done = [run for run in plan.runs if (by_run[run.id] or {}).get("status") == "done"]
    commits = sorted({str(record["commit"])[:12] for record in by_run.values() if record})
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
        lines += ["", *_table(Prepared.open(folder / "data" / name), kinds, records, replicates, plan.fewest_positives)]
        lines += _other_code(kinds, by_run)
    return "\n".join([*lines, NOTICE])


def _state(run: Run, record: dict[str, Any] | None, folder: Path) -> str:
    if record:
        return result(record)
    epochs = sum(
        len(history.read_text().splitlines()) - 1 for history in (folder / "work" / run.id).glob("*/history.csv")
    )
    return f"epoch {epochs} of {run.settings.get('epochs', 100)}" if epochs else "-"


def scores_of(
    prepared: Prepared, kinds: dict[str, list[Run]], records: Path, replicates: int, fewest: int = 1
) -> dict[str, dict[int, Scores]]:
    """Return name of runs -> seed -> scores on the test split.

    Args:
        prepared: the data set.
        kinds: name -> runs that are done.
        records: where they are.
        replicates: of the bootstrap of patients.
        fewest: test films with a finding, and without it, that it needs to be among the scores and in their macro.

    Raises:
        InputError: a record is damaged, or its answers are another run's.
    """
    rows = prepared.rows(SPLIT)
    score = scorer(prepared, metrics.patient_weights(prepared.patients[rows], replicates), fewest)

    def of_run(run: Run) -> Scores:
        outputs = answers(records, run.id, len(rows), len(prepared.labels))
        whole = metrics.aurocs(prepared.targets[rows], outputs.findings, np.ones((1, len(rows)), np.float32))
        scores = score(outputs)
        check_answers(records, run.id, whole.macro.value, scores["normal/abnormal"].value)
        return scores

    return {name: {run.seed: of_run(run) for run in runs} for name, runs in kinds.items()}


def difference(
    run: Run, measure: str, kinds: dict[str, list[Run]], scored: dict[str, dict[int, Scores]]
) -> tuple[Sample, int] | None:
    """Return the mean paired difference of a run's kind to the one that it is against, and the number of pairs.

    Args:
        run: any run of the kind.
        measure: a row of the table.
        kinds: name -> runs that are done.
        scored: from `scores_of`.

    Returns:
        None where it is against none that is done, or no seed is in common.
    """
    if run.against is None or run.against not in scored:
        return None
    unlike = (run.method == "teacher") != (kinds[run.against][0].method == "teacher")
    pairs = paired(_by_seed(scored[run.name], measure), _by_seed(scored[run.against], measure), unlike)
    return (over_seeds(pairs, _draw(run, measure)), len(pairs)) if pairs else None


def closed(
    run: Run, measure: str, kinds: dict[str, list[Run]], scored: dict[str, dict[int, Scores]]
) -> Interval | None:
    """Return the share of the gap between teacher and undistilled student that a run's kind closes.

    Arguments are those of `difference`.

    Returns:
        None where there is none, see `gap.share`, and for what is no student of a teacher, compared with undistilled.
    """
    teacher = next((other for runs in kinds.values() for other in runs if other.id == run.teacher), None)
    if teacher is None or run.against not in kinds or kinds[run.against][0].method != "none":
        return None
    plain, taught = (_by_seed(scored[name], measure) for name in (run.against, run.name))
    return share(scored[teacher.name][teacher.seed][measure], plain, taught, _draw(run, measure))


def _by_seed(scores: dict[int, Scores], measure: str) -> dict[int, Sample]:
    return {seed: measures[measure] for seed, measures in scores.items()}


def _draw(run: Run, measure: str) -> int:
    return zlib.crc32(f"{run.name} {measure}".encode())


def _table(prepared: Prepared, kinds: dict[str, list[Run]], records: Path, replicates: int, fewest: int) -> list[str]:
    rows = prepared.rows(SPLIT)
    scored = scores_of(prepared, kinds, records, replicates, fewest)
    made_up = " (synthetic phantom films)" if prepared.phantom else ""
    measures = list(next(iter(next(iter(scored.values())).values())))
    positives = dict(zip(prepared.labels, _positives(prepared), strict=True))
    names = [f"{measure} ({positives[measure]})" if measure in positives else measure for measure in measures]
    table = [["", *(f"{name} ({len(seeds)})" for name, seeds in scored.items())]]
    for name, measure in zip(names, measures, strict=True):
        table.append([name, *(_cell(runs[0], measure, kinds, scored) for runs in kinds.values())])
    counted = [label for label in prepared.labels if label in measures]
    rare = [f"{label} ({count})" for label, count in positives.items() if label not in measures]
    lines = [
        f"{prepared.name}{made_up}, {SPLIT} split, {len(rows)} films: AUROC with 95 % interval, and as [name] the "
        "paired difference to that name; in brackets seeds (one seed: the chance of the test films alone) and positive "
        "films",
        *([f"macro: of {len(counted)} findings, without those of fewer films: {', '.join(rare)}"] if rare else []),
        *aligned(table),
    ]
    students = [
        runs[0] for runs in kinds.values() if any(closed(runs[0], measure, kinds, scored) for measure in measures)
    ]
    if students:
        shares = [["", *(run.name for run in students)]]
        for name, measure in zip(names, measures, strict=True):
            if measure != HITS:
                shares.append([name, *(_percent(closed(run, measure, kinds, scored)) for run in students)])
        lines += [
            "",
            "share of the gap to the teacher that is closed; - where the gap is not above 0",
            *aligned(shares),
        ]
    return lines


def _cell(run: Run, measure: str, kinds: dict[str, list[Run]], scored: dict[str, dict[int, Scores]]) -> str:
    if run.against is None or run.against not in scored:
        alone = over_seeds(list(_by_seed(scored[run.name], measure).values()), _draw(run, measure)).interval
        return with_interval(alone.value, max(alone.low, 0.0), min(alone.high, 1.0))
    compared = difference(run, measure, kinds, scored)
    if compared is None:
        return f"- [{run.against}, no seed in common]"
    sample, count = compared
    interval = sample.interval
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    return f"{with_interval(interval.value, interval.low, interval.high, '+.3f')} [{run.against}, {seeds}]"


def _percent(part: Interval | None) -> str:
    return "-" if part is None else with_interval(part.value, part.low, part.high, ".0%")


def _other_code(kinds: dict[str, list[Run]], records: dict[str, dict[str, Any] | None]) -> list[str]:
    """Return a line for each pair of runs that were trained by unlike code or products of unlike kind."""
    lines = []
    for runs in kinds.values():
        for run in runs:
            ours = records[run.id]
            for other in kinds.get(str(run.against), ()):
                theirs = records[other.id]
                if ours and theirs and other.seed == run.seed and _made_by(ours) != _made_by(theirs):
                    lines.append(f"{run.id} is by {_made_by(ours)}, {other.id} by {_made_by(theirs)}")
    return ["", "compared, but not made by the same code:", *lines] if lines else []


def _made_by(record: dict[str, Any]) -> str:
    return f"{str(record['commit'])[:12]} ({record.get('products', 'products not recorded')})"


def scorer(prepared: Prepared, weights: metrics.Array, fewest: int = 1) -> Callable[[Outputs], Scores]:
    """Return what scores a run: tasks, findings, and where there are boxes sizes and hits of the attention.

    Args:
        prepared: the data set.
        weights: (R, N) of the bootstrap.
        fewest: see `scores_of`.

    Raises:
        InputError: no finding has so many films.
    """
    cases = by_size.cases_of(prepared, SPLIT) if _has_boxes(prepared) else None
    rows = prepared.rows(SPLIT)
    present = _positives(prepared)
    absent = (prepared.targets[rows] < 0.5).sum(axis=0)
    columns = np.flatnonzero((present >= fewest) & (absent >= fewest))
    if not len(columns):
        raise InputError(
            f"no finding of {prepared.name} has {fewest} {SPLIT} films with and without it: lower fewest_positives",
            "dataset",
        )

    def score(outputs: Outputs) -> Scores:
        findings = metrics.aurocs(prepared.targets[rows][:, columns], outputs.findings[:, columns], weights)
        abnormal = metrics.aurocs(prepared.abnormal[rows, None], outputs.abnormal[:, None], weights)
        scores = {"findings (macro)": _macro(findings), "normal/abnormal": _macro(abnormal)}
        for place, column in enumerate(columns):
            scores[prepared.labels[column]] = Sample(float(findings.labels[place]), findings.replicates[:, place])
        if cases is None:
            return scores
        for name, chosen in by_size.groups_of(cases).items():
            targets, of_size = by_size.targets_of(prepared, SPLIT, cases, chosen)
            if of_size:
                scores[name] = _macro(metrics.aurocs(targets[:, of_size], outputs.findings[:, of_size], weights))
        hit = by_size.hits(cases, outputs.attention)
        counted = weights[:, cases.image]
        with np.errstate(invalid="ignore"):  # a replicate of a small set may have no case
            scores[HITS] = Sample(float(hit.mean()), counted @ hit.astype(np.float32) / counted.sum(axis=1))
        return scores

    return score


def _positives(prepared: Prepared) -> metrics.Array:
    """Return the number of test films with each finding, (L,)."""
    return np.asarray((prepared.targets[prepared.rows(SPLIT)] >= 0.5).sum(axis=0))


def _has_boxes(prepared: Prepared) -> bool:
    return bool(np.isin(prepared.boxes.image, prepared.rows(SPLIT)).any())


def _macro(scored: metrics.Aurocs) -> Sample:
    return Sample(scored.macro.value, scored.macro_replicates)
