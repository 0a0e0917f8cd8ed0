"""Draw the pictures of README and docs, and tell which of them are stale.

    python docs/images.py --work /tmp/walkthrough      # all of them; record.py has run the walkthrough in that folder
    python docs/images.py by-size report               # only these
    python docs/images.py --check                      # draw nothing, name the stale ones
    python docs/images.py --accept curves              # as it is: what has changed cannot be seen in it

docs/images/manifest.json has the SHA-256 of each picture and of what it was made from: records, the walkthrough's
commands, and the code that draws, without its comments, docstrings and empty lines. A picture is stale when one of
these has changed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = "docs/images"
MANIFEST = f"{IMAGES}/manifest.json"
WALKTHROUGH = "docs/walkthrough.md"
RECORDS = "benchmarks/results/cpu-2core"
REPORT_SIZE = "1085,985"
NODE_SIZE = "1200,1480"
NODE = "edgecxr/node/web"

Draw = Callable[[Path, Path], None]
"""Called with the folder of the walkthrough's run and the path of the PNG; raises `CannotDraw`."""


class CannotDraw(Exception):
    """Something that a picture is made from is not there; the message says what."""


@dataclass(frozen=True)
class Picture:
    """How one picture is made.

    Attributes:
        draw: writes it.
        code: Python files and folders of the code that decides what is seen.
        data: other files, hashed as they are.
        until: last command of the walkthrough that it depends on; "" if on none.
    """

    draw: Draw
    code: tuple[str, ...]
    data: tuple[str, ...] = ()
    until: str = ""


def copy_of(pattern: str) -> Draw:
    """Return a function that takes a picture from the folder in which the walkthrough was recorded."""

    def draw(work: Path, out: Path) -> None:
        matches = sorted(work.glob(pattern))
        if len(matches) != 1:
            raise CannotDraw(
                f"{work / pattern} is there {len(matches)} times: python docs/record.py {WALKTHROUGH} --work {work}"
            )
        shutil.copyfile(matches[0], out)

    return draw


def by_size(work: Path, out: Path) -> None:
    """Draw the results by size of finding from their record."""
    from edgecxr.plots.evaluations import by_size as plot

    plot(json.loads((ROOT / RECORDS / "by-size-phantom10k.json").read_text()), out)


def evidence(work: Path, out: Path) -> None:
    """Draw what distillation gave each finding; the films of the plan must have been prepared."""
    if not list((ROOT / "build" / "evidence" / "data").glob("*")):
        raise CannotDraw("its films are not there: python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml")
    script = ROOT / "benchmarks" / "evidence_figure.py"
    subprocess.run([sys.executable, script, "benchmarks/evidence/phantom10k.toml", "--out", out], cwd=ROOT, check=True)


def report(work: Path, out: Path) -> None:
    """Write the page of a benchmark's record, and take a picture of its beginning."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        record = ROOT / RECORDS / "benchmark-nih_dev-1thread.json"
        command = [sys.executable, "-m", "edgecxr", "report", record, "--html", page]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        photograph(page.as_uri(), REPORT_SIZE, out)


def node(work: Path, out: Path) -> None:
    """Let the node's demo read phantoms, and take a picture of the first one's page."""
    command = [sys.executable, "-m", "edgecxr", "serve", "--demo"]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    try:
        output = ""
        for line in demo.stderr:
            output += line
            url = re.search(r"the page is at (\S+)", output)
            film = re.search(r"infer: film (\d+) has results", output)
            if url and film:
                time.sleep(3)  # until the results are filed
                photograph(f"{url[1]}films/{film[1]}", NODE_SIZE, out)
                return
        raise CannotDraw("the demo has ended before it had read a film")
    finally:
        demo.terminate()
        demo.communicate()


def photograph(url: str, size: str, out: Path) -> None:
    """Take a picture of a page's beginning."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise CannotDraw("there is no chromium to show the page")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with tempfile.TemporaryDirectory() as folder:
        flags += [f"--user-data-dir={folder}", f"--window-size={size}", f"--screenshot={out.resolve()}"]
        subprocess.run([browser, *flags, url], check=True, capture_output=True, timeout=120)


FILMS = ("edgecxr/phantom",)
PICTURES = {
    "contact_sheet": Picture(
        copy_of("runs/data/phantom/contact_sheet.png"), (*FILMS, "edgecxr/data/sheet.py"), until="edgecxr prepare"
    ),
    "curves": Picture(
        copy_of("runs/student-tiny-28-mlcak-phantom/curves.png"),
        ("edgecxr/plots/curves.py", "edgecxr/plots/figure.py"),
        until="edgecxr distill",
    ),
    "overlay": Picture(
        copy_of("pictures/scan.dcm.png"),
        (*FILMS, "edgecxr/infer/overlay.py"),
        until="edgecxr infer scan.dcm --overlay",
    ),
    "explain": Picture(
        copy_of("runs/explain-phantom-test.png"), (*FILMS, "edgecxr/evaluate/explain.py"), until="edgecxr explain"
    ),
    "by-size": Picture(
        by_size, ("edgecxr/plots/evaluations.py", "edgecxr/plots/figure.py"), (f"{RECORDS}/by-size-phantom10k.json",)
    ),
    "evidence": Picture(
        evidence,
        (
            "benchmarks/evidence_figure.py",
            "benchmarks/evidence_status.py",
            "benchmarks/gap.py",
            "edgecxr/plots/figure.py",
        ),
        ("benchmarks/results/evidence/phantom10k",),
    ),
    "node": Picture(
        node,
        FILMS,
        (
            f"{NODE}/static",
            f"{NODE}/templates/base.html",
            f"{NODE}/templates/film.html",
            f"{NODE}/templates/film_state.html",
        ),
    ),
    "report": Picture(
        report,
        (
            "edgecxr/benchmark/report.py",
            "edgecxr/benchmark/tables.py",
            "edgecxr/benchmark/recommend.py",
            "edgecxr/plots/records.py",
            "edgecxr/plots/figure.py",
        ),
        (f"{RECORDS}/benchmark-nih_dev-1thread.json",),
    ),
}


def main() -> int:
    """Draw, check or accept what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PICTURE", help=f"of {', '.join(PICTURES)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("walkthrough"), help="where record.py ran the walkthrough")
    parser.add_argument("--check", action="store_true", help="draw nothing, name the stale ones (exit code 1)")
    parser.add_argument("--accept", action="store_true", help="draw nothing, take the pictures as they are")
    args = parser.parse_args()
    names = args.names or list(PICTURES)
    if wrong := [name for name in names if name not in PICTURES]:
        parser.error(f"no such picture: {', '.join(wrong)}; there are {', '.join(PICTURES)}")
    if args.check:
        stale_pictures = stale(ROOT, names)
        print("\n".join(stale_pictures) or "all pictures are up to date")
        return 1 if stale_pictures else 0
    failed = 0
    for name in names:
        try:
            if not args.accept:
                PICTURES[name].draw(args.work, ROOT / IMAGES / f"{name}.png")
            keep(ROOT, name)
            print(f"{IMAGES}/{name}.png: {'accepted as it is' if args.accept else 'drawn'}")
        except CannotDraw as error:
            failed += 1
            print(f"{IMAGES}/{name}.png: not drawn, {error}")
    return 1 if failed else 0


def stale(root: Path, names: Iterable[str] = PICTURES) -> list[str]:
    """Return a line for each picture that is not made from what there is now."""
    kept = json.loads((root / MANIFEST).read_text())
    lines = []
    for name in names:
        entry = kept.get(name, {})
        now = state(root, name)
        changed = [key for key in now | entry if now.get(key) != entry.get(key)]
        if changed:
            lines.append(f"{IMAGES}/{name}.png is stale: {', '.join(changed)} changed (docs/images.py: how)")
    return lines


def keep(root: Path, name: str) -> None:
    """Write down what a picture is made from now."""
    path = root / MANIFEST
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[name] = state(root, name)
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def state(root: Path, name: str) -> dict[str, str]:
    """Return what a picture is made from -> its SHA-256, the picture itself among it."""
    picture = PICTURES[name]
    image = f"{IMAGES}/{name}.png"
    hashes = {image: sha256((root / image).read_bytes())}
    for path in picture.data:
        files = files_of(root / path, "*")
        hashes[path] = sha256(b"".join(file.name.encode() + sha256(file.read_bytes()).encode() for file in files))
    for path in picture.code:
        files = files_of(root / path, "*.py")
        hashes[path] = sha256("\n".join(f"{file.name}\n{bare(file.read_text())}" for file in files).encode())
    if picture.until:
        hashes[WALKTHROUGH] = sha256("\n".join(commands(root, picture.until)).encode())
    return hashes


def files_of(path: Path, pattern: str) -> list[Path]:
    """Return a file, or the files of a folder, by name."""
    return sorted(path.glob(pattern)) if path.is_dir() else [path]


def sha256(content: bytes) -> str:
    """Return the SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def bare(code: str) -> str:
    """Return Python code without comment lines, docstrings and empty lines."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(code.splitlines(), 1)
    kept = [line.rstrip() for number, line in lines if number not in left_out and not line.lstrip().startswith("#")]
    return "\n".join(line for line in kept if line)


def commands(root: Path, last: str) -> list[str]:
    """Return the walkthrough's commands that make something, up to the last one that begins with `last`."""
    lines = [line[2:] for line in (root / WALKTHROUGH).read_text().splitlines() if line.startswith("$ ")]
    ends = [number for number, line in enumerate(lines) if line.startswith(last)]
    makers = ("edgecxr prepare", "edgecxr train", "edgecxr distill", "edgecxr export", "cp ", last)
    return [line for line in lines[: ends[-1] + 1] if line.startswith(makers)]


if __name__ == "__main__":
    sys.exit(main())
