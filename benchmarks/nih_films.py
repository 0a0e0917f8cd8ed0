"""Joins two folders of NIH films for the plan kermany-then-nih: those of the second train, too.

    python benchmarks/nih_films.py DATA/nih_dev DATA/nih_more --out build/films/nih
    EDGECXR_RUNS=build/evidence/kermany-then-nih edgecxr prepare folder build/films/nih/labels.csv --name nih

Each folder holds labels.csv (columns `image`, `split`, `patient` ...) and its films. The first keeps its splits; films
of the second train, but for those of patients whom the first one validates or tests on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from edgecxr.data.adapters.keys import whole_number


def main() -> None:
    """Write the joint table, and links to both folders beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="folder whose splits stay")
    parser.add_argument("second", type=Path, help="folder whose films train")
    parser.add_argument("--out", type=Path, required=True, help="folder for labels.csv")
    args = parser.parse_args()
    names, rows = _rows(args.first)
    others, more = _rows(args.second)
    if missing := sorted(set(names) - set(others)):
        sys.exit(
            f"error: {args.second / 'labels.csv'} has no column {', '.join(missing)}: its films would have no labels"
        )
    held_out = {whole_number(row["patient"]) for row in rows if row["split"] != "train"}
    joined = rows + [row | {"split": "train"} for row in more if whole_number(row["patient"]) not in held_out]
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in (args.first, args.second):
        link = args.out / folder.name
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve())
    with (args.out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(joined)
    print(f"{len(joined)} films, {len(rows) + len(more) - len(joined)} left out: {args.out / 'labels.csv'}")


def _rows(folder: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns of a folder's table and its rows, their images relative to the folder's parent."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row | {"image": f"{folder.name}/{row['image']}"} for row in reader]
    return list(reader.fieldnames or []), rows


if __name__ == "__main__":
    main()
