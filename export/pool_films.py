"""Tables of several folders of films -> one table for `edgecxr prepare folder`.

    python export/pool_films.py kermany=films/a nih=films/b nih=films/c --label Pneumonia --label Effusion > pooled.csv

Each folder has a labels.csv with "image", "patient", "split" (train, val, test), "normal" (1 or 0), and a column for
each finding that its readers looked for. A finding that a folder has no column for is not known of its films, unless a
film is normal, which has none. Patients of two sources may have the same number, so they are named after their source
as well; what is known to be one source, such as `nih` above, is given one name.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

COLUMNS = ("image", "patient", "split", "abnormal")


def pooled(folders: Iterable[tuple[str, Path]], labels: list[str]) -> Iterator[dict[str, str]]:
    """Yield a row for each film, with COLUMNS and `labels`.

    Raises:
        ValueError: a labels.csv lacks a column, or a patient of a source is in two splits.
    """
    splits: dict[str, str] = {}
    for source, folder in folders:
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"image", "patient", "split", "normal"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"{folder / 'labels.csv'} has no column {', '.join(sorted(missing))}")
            for row in rows:
                normal = row["normal"] == "1"
                patient = f"{source}-{row['patient']}"
                if splits.setdefault(patient, row["split"]) != row["split"]:
                    raise ValueError(f"patient {patient} is in {splits[patient]} and in {row['split']}")
                yield {
                    "image": str((folder / row["image"]).resolve()),
                    "patient": patient,
                    "split": row["split"],
                    "abnormal": "0" if normal else "1",
                } | {label: row.get(label, "0" if normal else "") for label in labels}


def main() -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="SOURCE=FOLDER")
    parser.add_argument("--label", action="append", required=True, help="a finding; give it once for each")
    args = parser.parse_args()
    try:
        pairs = [word.partition("=") for word in args.folders]
        if not all(source and folder for source, _, folder in pairs):
            parser.error("give each folder as SOURCE=FOLDER")
        rows = list(pooled([(source, Path(folder)) for source, _, folder in pairs], args.label))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    writer = csv.DictWriter(sys.stdout, [*COLUMNS, *args.label], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
