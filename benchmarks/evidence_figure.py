"""Draws what distillation gave each finding, from the records of a plan: docs/images/evidence.png.

    python benchmarks/evidence_figure.py benchmarks/evidence/phantom10k.toml --out docs/images/evidence.png

It needs the plan's films (`evidence.py` prepares them), since intervals come from a bootstrap of their patients.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evidence import HERE, folder_of
from evidence_plan import Plan, read_plan
from evidence_records import check_records, data_hash, record_of
from evidence_status import HITS, SPLIT, difference, scores_of
from gap import Sample
from matplotlib.figure import Figure

from edgecxr import NOTICE
from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError, UsageError
from edgecxr.plots.figure import save
from edgecxr.terminal import say

COLORS = ("#444444", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
"""Okabe and Ito's, which people with any colour vision can tell apart."""

NO_ROW = (HITS, "all sizes")
"""Measures of the table that are no AUROC, or that of the findings again."""


def differences(plan: Plan, prepared: Prepared, records: Path, replicates: int) -> dict[str, dict[str, Sample]]:
    """Return what a legend calls runs -> row of the table -> their AUROC minus that of what they are compared with.

    Raises:
        UsageError: no runs of this data set are done with those that they are compared with.
    """
    done = [run for run in plan.runs if (record_of(records, run.id) or {}).get("status") == "done"]
    kinds = {run.name: [other for other in done if other.name == run.name] for run in done if run.data == prepared.name}
    scored = scores_of(prepared, kinds, records, replicates, plan.fewest_positives)
    rows: dict[str, dict[str, Sample]] = {}
    for name, (run, *_) in kinds.items():
        for row in next(iter(scored[name].values())):
            compared = difference(run, row, kinds, scored)
            if compared is not None and row not in NO_ROW:
                sample, pairs = compared
                title = f"{name} - {run.against} ({pairs} seed{'s' if pairs > 1 else ''})"
                rows.setdefault(title, {})[row] = sample
    if not rows:
        raise UsageError(f"no runs of {plan.name} on {prepared.name} are done with those that they are compared with")
    return rows


def picture(samples: dict[str, dict[str, Sample]], title: str) -> Figure:
    """Return the figure: a row for each measure, in it a point with its interval for each name."""
    rows = list(next(iter(samples.values())))
    figure = Figure(figsize=(8, 0.55 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for place, (name, values) in enumerate(samples.items()):
        color = COLORS[place % len(COLORS)]
        for line, row in enumerate(rows):
            interval = values[row].interval
            height = line + (place - (len(samples) - 1) / 2) * 0.8 / len(samples)
            axes.plot([interval.low, interval.high], [height, height], color=color, linewidth=2)
            axes.plot(interval.value, height, "o", color=color, markersize=5, label=None if line else name)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("difference of AUROC, with 95 % interval (one seed: the chance of the test films alone)")
    figure.suptitle(title, fontsize=9)
    figure.legend(loc="outside lower center", ncols=min(len(samples), 3), frameon=False)
    return figure


def main() -> int:
    """Draw what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", help="which of the plan's data sets; needed where it has several")
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    parser.add_argument("--folder", type=Path, default=HERE / "build" / "evidence")
    parser.add_argument("--records", type=Path, help="benchmarks/results/evidence/PLAN by default")
    parser.add_argument("--replicates", type=int, default=1000)
    args = parser.parse_args()
    try:
        plan = read_plan(args.plan)
        records = args.records or HERE / "benchmarks" / "results" / "evidence" / plan.name
        folder = folder_of(plan, args.folder)
        data = args.data or (next(iter(plan.data)) if len(plan.data) == 1 else None)
        if data not in plan.data:
            raise UsageError(f"name one of the plan's data sets: --data {' or --data '.join(plan.data)}")
        check_records(plan, records, {data: data_hash(plan.data[data], folder)})
        prepared = Prepared.open(folder / "data" / data)
        samples = differences(plan, prepared, records, args.replicates)
        made_up = "synthetic films" if prepared.phantom else "films"
        title = f"{prepared.name}: {len(prepared.rows(SPLIT))} {made_up} of the test split\n{NOTICE}"
        save(picture(samples, title), args.out)
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
