"""Run the commands that a page shows and write what they print into the page.

    python docs/record.py docs/walkthrough.md --work /tmp/walkthrough

A block that begins with "```console" holds commands, each on a line that begins with "$ "; what stands below a command
is replaced by what it prints now, standard error included. The commands of a page run in order, in the folder `--work`.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Record the pages that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder to run the commands in; kept between calls")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for page in args.pages:
        text = page.read_text()
        page.write_text(BLOCK.sub(lambda block: f"```console\n{recorded(block[1], args.work)}```", text))


def recorded(block: str, work: Path) -> str:
    """Return the commands of a block, each with what it prints now."""
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"{command}\n{output(command[2:], work)}" for command in commands)


def output(command: str, work: Path) -> str:
    """Run a command in `work` with the edgecxr of this Python, and return what it prints, nothing of this machine."""
    print(f"$ {command}", file=sys.stderr, flush=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Pages are 120 columns wide at most.
    environment = os.environ | {"PATH": path, "COLUMNS": "110"}
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    machine = {
        f"{work.resolve()}/": "",
        str(Path(__file__).resolve().parents[1]): "~/edgecxr",
        str(Path.home()): "~",
        platform.release(): platform.release().partition("-")[0],
    }
    return reduce(lambda text, of_here: text.replace(*of_here), machine.items(), ended.stdout)


if __name__ == "__main__":
    main()
