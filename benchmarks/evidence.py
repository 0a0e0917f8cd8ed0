"""Trains what a plan asks for while other work goes on, and says what came out.

    python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml --background
    python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml --status
    python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml --stop

A plan lists trainings that differ by method, seed, teacher, start, stem ...; what has no record yet is trained, one
thread for each of --jobs, at the lowest priority. It may be killed at any moment: the same command goes on. The code
that trains is a clone of this repository at the commit of the first start (--commit REV: of another one, for runs that
have not begun), so that files here may change meanwhile; each run keeps the commit that made it. Records (results, and
what the model answers for the test films) are written beside the plan's name into --records, one for each run, as soon
as it ends, and are worth committing at once; runs, data and clones lie in --folder and can be made again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence_plan import DataSet, Plan, Run, read_plan

from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.locks import locked
from edgecxr.terminal import say

HERE = Path(__file__).resolve().parents[1]
TRIES = 3
"""Times that a run is begun again whose process was killed."""

NICE = 19
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def main() -> int:
    """Do what was asked for; return the exit code."""
    args = options()
    try:
        plan = read_plan(args.plan)
        args.records = args.records or HERE / "benchmarks" / "results" / "evidence" / plan.name
        if args.status:
            from evidence_status import status  # numpy, and a second of work

            print(status(plan, args.folder, args.records, args.replicates))
            return 0
        if args.stop:
            return stop(args.folder)
        if args.background:
            return in_background(args)
        with writing(args.folder):
            args.folder.mkdir(parents=True, exist_ok=True)
        with locked(args.folder / "lock", f"is running trainings in {args.folder}: wait for it, or end it with --stop"):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            atomic_write(args.folder / "process", str(os.getpid()))
            return Runner(plan, args.folder.resolve(), args.records.resolve(), args.jobs, args.commit).run()
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped: the same command goes on")
        return 130


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="TOML file")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--status", action="store_true", help="print what is done, and what came out")
    doing.add_argument("--background", action="store_true", help="train on after this command has ended")
    doing.add_argument("--stop", action="store_true", help="end what trains in --folder; nothing that is done is lost")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="trainings at a time")
    parser.add_argument("--folder", type=Path, default=HERE / "build" / "evidence", help="of runs, data and clones")
    parser.add_argument("--records", type=Path, help="folder; benchmarks/results/evidence/PLAN by default")
    parser.add_argument("--commit", metavar="REV", help="train what has not begun with the code of this commit")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap of --status")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    return args


def in_background(args: argparse.Namespace) -> int:
    """Start this command without --background, free of this terminal and this process."""
    log = args.folder / "log"
    with writing(log):
        args.folder.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    begins = output.tell()
    command = [sys.executable, __file__, *(word for word in sys.argv[1:] if word != "--background")]
    with output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, close_fds=True
        )
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        say(f"process {process.pid} trains in the background; {log} says how far it is, --stop ends it")
        return 0
    with log.open("rb") as file:
        file.seek(begins)
        say(file.read().decode(errors="replace").strip())
    return code


def stop(folder: Path) -> int:
    """End the runner of a folder."""
    if not (folder / "lock").exists():
        say(f"nothing trains in {folder}")
        return 0
    try:
        with locked(folder / "lock", "holds it"):  # left by a process that was killed
            say(f"nothing trains in {folder}")
            return 0
    except UsageError:
        process = int((folder / "process").read_text())
        os.kill(process, signal.SIGTERM)
    for _ in range(100):
        time.sleep(0.1)
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            say(f"process {process} was stopped: the same command goes on")
            return 0
    raise UsageError(f"process {process} does not stop: kill -9 {process} ends it, and loses no more")


@dataclass
class Runner:
    """Trains what a plan asks for.

    Attributes:
        plan: the runs.
        folder: of "data", "code" (clones) and "work" (one folder for each run).
        records: where records are.
        jobs: trainings at a time.
        commit: of the code of runs that have not begun; None takes that of the first start.
    """

    plan: Plan
    folder: Path
    records: Path
    jobs: int
    commit: str | None
    at_work: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> int:
        """Train until nothing is left that can be; return the exit code."""
        code = self._code()
        hashes = {name: self._data(entry, code) for name, entry in self.plan.data.items()}
        check_records(self.plan, self.records, hashes)
        left = [run for run in self.plan.runs if record_of(self.records, run.id) is None]
        say(f"{len(left)} of {len(self.plan.runs)} runs are left, {self.jobs} at a time")
        try:
            while left or self.at_work:
                for run in [run for run in left if len(self.at_work) < self.jobs and self._can_begin(run)]:
                    if len(self.at_work) < self.jobs:
                        left.remove(run)
                        self._begin(run, hashes[run.data], code)
                if not self.at_work:
                    break
                time.sleep(0.2)
                left += self._ended()
        finally:
            for process in self.at_work.values():
                process.kill()
        for name, why in self.failed.items():
            say(f"{name} failed: {why}")
        if left:
            say(f"not begun, since their teacher is missing: {', '.join(run.id for run in left)}")
        return UsageError.exit_code if self.failed else 0

    def _code(self) -> str:
        """Return the commit whose code trains, and clone it."""
        pinned = self.folder / "commit"
        if self.commit is None and pinned.exists():
            commit = pinned.read_text().strip()
        else:
            commit = git("rev-parse", "--verify", f"{self.commit or 'HEAD'}^{{commit}}")
            atomic_write(pinned, commit)
            if git("status", "--porcelain", "--", "edgecxr", "benchmarks/*.py"):
                say(f"what is not committed is not used: the code is that of {commit[:12]}")
        clone(commit, self.folder / "code")
        return commit

    def _data(self, entry: DataSet, commit: str) -> str:
        """Return the hash of a data set, which is prepared if it is not there.

        Raises:
            InputError: it is another one than the plan says.
        """
        path = self.folder / "data" / entry.name
        if not (path / "dataset.json").exists():
            if not entry.prepare:
                raise InputError(
                    f"there is no data set {entry.name} in {path.parent}: EDGECXR_RUNS={self.folder} edgecxr prepare "
                    f"... --name {entry.name} makes it",
                    "dataset",
                )
            say(f"preparing {entry.name}")
            command = [sys.executable, "-m", "edgecxr", "prepare", *entry.prepare, "--name", entry.name]
            done = subprocess.run(
                command, env=self._environment(commit) | {"EDGECXR_RUNS": str(self.folder)}, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                raise InputError(f"{' '.join(command[2:])} ended with {done.returncode}", "dataset")
        found = Prepared.open(path).hash
        if entry.hash not in (None, found):
            raise InputError(
                f"{path} is not the data set of the plan (its hash is {found}): prepare it again, or give a plan of "
                "other data another name",
                "dataset",
            )
        return found

    def _can_begin(self, run: Run) -> bool:
        return run.teacher is None or (record_of(self.records, run.teacher) or {}).get("status") == "done"

    def _begin(self, run: Run, data_hash: str, commit: str) -> None:
        folder = self.folder / "work" / run.id
        begun = folder / "spec.json"
        if begun.exists():
            before = json.loads(begun.read_text(encoding="utf-8"))
            if (before["spec"], before["data_hash"]) != (run.spec, data_hash):
                raise UsageError(
                    f"{run.id} in {folder} was begun with other settings or data: a changed protocol is a plan of "
                    f"another name; or remove that folder"
                )
            commit = before["commit"]
        spec: dict[str, Any] = {
            "id": run.id, "spec": run.spec, "data": run.data, "data_hash": data_hash, "teacher": run.teacher,
            "commit": commit, "folder": str(self.folder), "records": str(self.records), "threads": 1,
        }  # fmt: skip
        atomic_write(begun, json.dumps(spec, indent=1))
        code = clone(commit, self.folder / "code")
        with writing(folder / "log"), (folder / "log").open("ab") as log:
            # Its standard input ends with this process, and then it ends.
            self.at_work[run.id] = subprocess.Popen(
                [sys.executable, str(code / "benchmarks" / "evidence_work.py"), str(begun)],
                env=self._environment(commit), stdin=subprocess.PIPE, stdout=log, stderr=log,
                preexec_fn=_at_lowest_priority,
            )  # fmt: skip
        say(f"{time.strftime('%H:%M:%S')} {run.id} begins, or goes on")

    def _environment(self, commit: str) -> dict[str, str]:
        code = self.folder / "code" / commit[:12]
        paths = {"PYTHONPATH": os.pathsep.join([str(code), str(code / "benchmarks")]), "PYTHONSAFEPATH": "1"}
        return os.environ | ONE_THREAD | paths

    def _ended(self) -> list[Run]:
        """Take note of the processes that have ended; return the runs that are to be begun again."""
        again = []
        for name, process in list(self.at_work.items()):
            code = process.poll()
            if code is None:
                continue
            del self.at_work[name]
            record = record_of(self.records, name)
            if code == 0 and record:
                say(f"{time.strftime('%H:%M:%S')} {name}: {result(record)}")
            elif code < 0 and self.killed.get(name, 0) < TRIES:
                self.killed[name] = self.killed.get(name, 0) + 1
                say(f"{name} was ended by signal {-code}: it goes on")
                again += [run for run in self.plan.runs if run.id == name]
            else:
                log = self.folder / "work" / name / "log"
                lines = log.read_text(errors="replace").splitlines() or [""]
                self.failed[name] = f"exit code {code}, {lines[-1].strip()} ({log})"
                say(f"{name} failed: {self.failed[name]}")
        return again


def _at_lowest_priority() -> None:
    os.nice(NICE)


def result(record: dict[str, Any]) -> str:
    """Return a record in a few words."""
    if record["status"] != "done":
        return f"{record['status']}: {record['message']}"
    test = record["test"]
    scores = " / ".join("-" if test[task] is None else f"{test[task]:.3f}" for task in ("findings", "abnormal"))
    return f"test AUROC findings / abnormal {scores}, best epoch {record['best_epoch']}, {record['minutes']} min"


def record_of(records: Path, name: str) -> dict[str, Any] | None:
    """Return the record of a run; None where there is none yet.

    Raises:
        InputError: it is damaged.
    """
    path = records / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["run"] == name and record["status"] in ("done", "diverged")
        return dict(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(
            f"{path} is no record of a training ({type(error).__name__}): restore it", "malformed"
        ) from error


def check_records(plan: Plan, records: Path, hashes: dict[str, str]) -> None:
    """Refuse to go on where the records are of other settings, data or teachers than the plan's.

    Args:
        plan: what is asked for.
        records: folder of the records that there are.
        hashes: of the plan's data sets.

    Raises:
        UsageError: names the run and what differs.
    """
    for run in plan.runs:
        record = record_of(records, run.id)
        if record is None:
            continue
        differs = [key for key, value in run.spec.items() if record["spec"].get(key) != value]
        if record["data"]["hash"] != hashes[run.data]:
            differs.append(f"data set {run.data}")
        if run.teacher and record["teacher"] != {"run": run.teacher, "sha256": _weights(records, run.teacher)}:
            differs.append(f"weights of {run.teacher}")
        if differs:
            raise UsageError(
                f"{records / run.id}.json was made with another {', another '.join(differs)}: a changed protocol is a "
                "plan of another name"
            )


def _weights(records: Path, name: str) -> str | None:
    record = record_of(records, name) or {}
    return record.get("weights", {}).get("sha256")


def git(*words: str) -> str:
    """Return what git says of this repository.

    Raises:
        UsageError: it fails, or this is no repository.
    """
    try:
        done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True)
    except OSError as error:
        raise UsageError(f"git cannot be started ({error.strerror}): trainings run from a clone of {HERE}") from error
    if done.returncode:
        raise UsageError(f"git {' '.join(words)} in {HERE}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def clone(commit: str, parent: Path) -> Path:
    """Return a clone of this repository at a commit, made if need be."""
    path = parent / commit[:12]
    if not path.exists():
        making = parent / f".{commit[:12]}-{os.getpid()}"
        git("clone", "--quiet", "--no-checkout", str(HERE), str(making))
        git("-C", str(making), "checkout", "--quiet", "--detach", commit)
        making.rename(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
