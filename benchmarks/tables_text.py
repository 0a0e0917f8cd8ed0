"""The grid of students as markdown, CSV, JSON and a plot."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paper
from gap import Sample, gap, over_seeds, paired, share
from ratios import machine

from edgecxr import NOTICE
from edgecxr.data.prepared import Prepared
from edgecxr.metrics import Interval, with_interval
from edgecxr.plots.figure import save
from edgecxr.storage.atomic import atomic_write

_TASKS = {"findings": "findings (macro)", "abnormal": "normal/abnormal"}

Scored = dict[str, Sample]
"""Task -> AUROC with replicates."""


@dataclass
class Grid:
    """What is there so far.

    Attributes:
        prepared: the data set.
        settings: of the trainings, for the record.
        teachers: model -> its scores.
        students: (model, method, px) -> seed -> scores.
    """

    prepared: Prepared
    settings: dict[str, Any]
    teachers: dict[str, Scored] = field(default_factory=dict)
    students: dict[tuple[str, str, int], dict[int, Scored]] = field(default_factory=dict)

    def student(self, arch: str, method: str, size: int, task: str) -> Sample | None:
        """Return the mean over the seeds that are there."""
        seeds = self.by_seed(arch, method, size, task)
        return over_seeds(list(seeds.values()), _draw(method, size)) if seeds else None

    def by_seed(self, arch: str, method: str, size: int, task: str) -> dict[int, Sample]:
        """Return seed -> score of the students that are there."""
        return {seed: scored[task] for seed, scored in self.students.get((arch, method, size), {}).items()}

    def against_none(self, arch: str, method: str, size: int, task: str) -> tuple[Interval, int] | None:
        """Return the method minus the undistilled student, paired by seed, and the number of pairs."""
        pairs = paired(self.by_seed(arch, method, size, task), self.by_seed(arch, "none", size, task))
        return (over_seeds(pairs, _draw(method, size)).interval, len(pairs)) if pairs else None


def _draw(method: str, size: int) -> int:
    """Return the seed of the draws of t: each kind of student was trained apart, and has its own."""
    return paper.METHODS.index(method) * 10_000 + size


def rows(grid: Grid) -> Iterator[dict[str, Any]]:
    """Yield one line for each model, task, resolution and method, with the paper's number and the share of the gap."""
    for arch, teacher in grid.teachers.items():
        for task in paper.TASKS:
            yield _row(arch, task, 224, "teacher", teacher[task], 1) | {"paper": paper.TEACHER.get((arch, task))}
            for size in paper.RESOLUTIONS:
                plain = grid.by_seed(arch, "none", size, task)
                for method in paper.METHODS:
                    taught = grid.student(arch, method, size, task)
                    if taught is None:
                        continue
                    seeds = len(grid.students[arch, method, size])
                    row = _row(arch, task, size, method, taught, seeds)
                    row["paper"] = paper.student(arch, task, method, size)
                    if plain:
                        row |= _spread("gap", gap(teacher[task], plain, _draw("none", size)))
                        if method != "none":
                            row["paper_share"] = paper.share(arch, task, method, size)
                            ours = grid.by_seed(arch, method, size, task)
                            row |= _spread("share", share(teacher[task], plain, ours, _draw(method, size)))
                            difference = grid.against_none(arch, method, size, task)
                            if difference is not None:
                                row |= _spread("minus_none", difference[0]) | {"pairs": difference[1]}
                    yield row


def _row(arch: str, task: str, size: int, method: str, sample: Sample, seeds: int) -> dict[str, Any]:
    row = {"model": arch, "task": task, "px": size, "method": method, "seeds": seeds}
    return row | _spread("auroc", sample.interval)


def _spread(name: str, interval: Interval | None) -> dict[str, Any]:
    ends = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
    keys = (name, f"{name}_low", f"{name}_high")
    return {key: None if end is None or math.isnan(end) else end for key, end in zip(keys, ends, strict=True)}


def write(grid: Grid, out: Path) -> str:
    """Write all files of the grid; returns the markdown."""
    lines = list(rows(grid))
    text = markdown(grid, lines)
    atomic_write(out / "tables.md", text + "\n")
    table = io.StringIO()
    names = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(table, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    atomic_write(out / "tables.csv", table.getvalue())
    record = {
        "benchmark": "tables",
        "machine": machine(),
        "data": grid.prepared.summary(),
        "settings": grid.settings,
        "rows": lines,
        "notice": NOTICE,
    }
    atomic_write(out / "tables.json", json.dumps(record, indent=1) + "\n")
    plot(grid, out / "tables.png")
    return text


def markdown(grid: Grid, lines: list[dict[str, Any]]) -> str:
    """Return Table 1, Table 2 and the shares of the gap."""
    prepared, settings = grid.prepared, grid.settings
    test = prepared.rows("test")
    made_up = " (synthetic phantom films)" if prepared.phantom else ""
    seeds = {len(scored) for scored in grid.students.values()}
    shown = sorted({line["px"] for line in lines if line["method"] != "teacher"}, reverse=True)
    chosen = (
        f"{settings['tokens']} tokens, init {settings['init']}, {settings['epochs']} epochs; teacher: patch "
        f"{settings['patch']}, init {settings['teacher_init']}, {settings['teacher_epochs']} epochs"
    )
    patients = len(set(prepared.patients[test].tolist()))
    counted = "-".join(map(str, sorted({min(seeds), max(seeds)})))
    trained = ", and the students' seeds by Student's t" if max(seeds) > 1 else ""
    intro = (
        f"{prepared.name}{made_up}, test split: {len(test)} films of {patients} patients. AUROC with 95 % interval "
        f"(bootstrap by patient{trained}; seeds: {counted}; one teacher, taken as fixed), the paper's number on "
        f"VinDr-CXR in brackets. Students: {chosen}."
    )
    blocks = [
        intro,
        _table("Table 1: without distillation", lines, ["teacher", "none"], [224, *shown], _auroc),
        _table("Table 2: distilled", lines, [m for m in paper.METHODS if m != "none"], shown, _auroc),
        _table(
            "Method minus none, paired by seed (same initial weights, order and augmentation)",
            lines, [m for m in paper.METHODS if m != "none"], shown, _difference,
        ),
        _table(
            "Share of the gap between teacher and undistilled student that is closed",
            lines, [m for m in paper.METHODS if m != "none"], shown, _share,
        ),
        NOTICE,
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block)


def _table(title: str, lines: list[dict[str, Any]], methods: list[str], sizes: list[int], cell: Any) -> str:
    """Return one row for each model, task and method; teacher and undistilled students share one."""
    body = []
    for arch in dict.fromkeys(line["model"] for line in lines):
        for task in paper.TASKS:
            for group in [methods] if "teacher" in methods else [[method] for method in methods]:
                cells = {
                    line["px"]: cell(line)
                    for line in lines
                    if line["model"] == arch and line["task"] == task and line["method"] in group
                }
                if cells:
                    name = "" if "teacher" in methods else f" {group[0]} |"
                    body.append(
                        f"| {arch} | {_TASKS[task]} |{name} " + " | ".join(cells.get(px, "") for px in sizes) + " |"
                    )
    if not body:
        return ""
    names = ["model", "task", *([] if "teacher" in methods else ["method"])]
    head = [*names, *(f"teacher, {px} px" if px == 224 else f"{px} px" for px in sizes)]
    return "\n".join([f"### {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body])


def _auroc(line: dict[str, Any]) -> str:
    if line["auroc"] is None:
        return "-"
    theirs = f" [{line['paper']:.3f}]" if line.get("paper") is not None else ""
    return with_interval(line["auroc"], line["auroc_low"], line["auroc_high"]) + theirs


def _difference(line: dict[str, Any]) -> str:
    if line.get("minus_none") is None:
        return "-"
    spread = with_interval(line["minus_none"], line["minus_none_low"], line["minus_none_high"], "+.3f")
    return f"{spread} ({line['pairs']} seed{'s' if line['pairs'] > 1 else ''})"


def _share(line: dict[str, Any]) -> str:
    if line.get("gap") is None:
        return "-"
    theirs = f" [{line['paper_share']:.0%}]" if line.get("paper_share") is not None else ""
    if line.get("share") is None:
        spread = with_interval(line["gap"], line["gap_low"], line["gap_high"], "+.3f")
        return f"gap not resolved: {spread}{theirs}"
    return with_interval(line["share"], line["share_low"], line["share_high"], ".0%") + theirs


def plot(grid: Grid, path: Path) -> None:
    """Draw AUROC by resolution, a curve for each method, the teacher as a line with its interval."""
    from matplotlib.figure import Figure

    archs = list(grid.teachers)
    figure = Figure(figsize=(11, 4.2 * len(archs)), layout="constrained")
    panels = figure.subplots(len(archs), len(paper.TASKS), squeeze=False)
    for line_of_panels, arch in zip(panels, archs, strict=True):
        for axes, task in zip(line_of_panels, paper.TASKS, strict=True):
            teacher = grid.teachers[arch][task].interval
            axes.axhline(teacher.value, color="0.3", label="teacher, 224 px")
            axes.axhspan(teacher.low, teacher.high, color="0.3", alpha=0.12)
            for number, method in enumerate(paper.METHODS):
                points = []
                for place, size in enumerate(paper.RESOLUTIONS):
                    sample = grid.student(arch, method, size, task)
                    if sample is not None:
                        points.append((place + 0.07 * (number - 2), sample.interval))
                if points:
                    x, spans = zip(*points, strict=True)
                    values = [span.value for span in spans]
                    ends = [[max(0, s.value - s.low) for s in spans], [max(0, s.high - s.value) for s in spans]]
                    axes.errorbar(x, values, ends, marker="o", capsize=3, label=method)
            axes.set_xticks(range(len(paper.RESOLUTIONS)), [f"{size} px" for size in paper.RESOLUTIONS])
            axes.set(title=f"{arch}, {_TASKS[task]}", ylabel="AUROC, test")
            axes.grid(alpha=0.3)
    panels[0][0].legend(fontsize="small")
    synthetic = ", synthetic films" if grid.prepared.phantom else ""
    figure.suptitle(f"{grid.prepared.name}{synthetic}: 95 % intervals")
    save(figure, path)
