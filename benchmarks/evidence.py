"""Trains what a plan asks for while other work goes on, and says what came out.

    python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml --background
    python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml --status
    python benchmarks/evidence.py benchmarks/evidence/phantom10k.toml --stop

A plan lists trainings that differ by method, seed, teacher, start, stem ...; what has no record yet is trained, one
thread for each of --jobs, at the lowest priority. It may be killed at any moment: the same command goes on. The code
that trains is a clone of this repository at the commit of the plan's first start (--commit REV: of another one, for
runs of which no epoch is done), so that files here may change meanwhile; each run keeps the commit that made it.
Records (results, and what the model answers for the test films) are written into --records, one for each run, as soon
as it ends, and are worth committing at once; runs, data and clones lie in --folder and can be made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence_plan import DataSet, Plan, Run, read_plan
from evidence_records import check_records, data_hash, record_of, result, weights_of

from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.machine.cores import cores
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
        default = HERE / "benchmarks" / "results" / "evidence" / plan.name
        args.records = args.records or default
        args.folder = folder_of(plan, args.folder)
        if args.status:
            if not args.records.is_dir() and args.records != default:
                raise UsageError(f"there is no folder of records {args.records}: name one with --records")
            from evidence_status import status  # numpy, and a second of work

            print(status(plan, args.folder, args.records, args.replicates), flush=True)
            return 0
        if args.stop:
            return stop(args.folder)
        if args.background:
            return in_background(args)
        with locked(args.folder / "lock", f"is running these trainings in {args.folder}: wait, or end it with --stop"):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            return Runner(plan, args.folder.resolve(), args.records.resolve(), args.jobs, args.commit).run()
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:  # nobody reads on, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say("stopped: the same command goes on")
        return 130


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("plan", type=Path, help="TOML file")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--status", action="store_true", help="print what is done, and what came out")
    doing.add_argument("--background", action="store_true", help="train on after this command has ended")
    doing.add_argument("--stop", action="store_true", help="end the trainings; nothing that is done is lost")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at a time")
    parser.add_argument("--folder", type=Path, default=HERE / "build" / "evidence", help="of runs, data and clones")
    parser.add_argument("--records", type=Path, help="folder; benchmarks/results/evidence/PLAN by default")
    parser.add_argument("--commit", metavar="REV", help="train what has not begun with the code of this commit")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap of --status")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least 1")
    return args


def folder_of(plan: Plan, base: Path) -> Path:
    """Return the folder of a plan; data and clones are those of all plans in `base`.

    Raises:
        UsageError: it cannot be made.
    """
    folder = base / plan.name
    with writing(folder, "name another --folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for shared in ("data", "code"):
            (base / shared).mkdir(exist_ok=True)
            if not (folder / shared).exists():
                (folder / shared).symlink_to(Path("..", shared))
    return folder


def in_background(args: argparse.Namespace) -> int:
    """Start this command without --background, free of this terminal and this process."""
    log = args.folder / "log"
    with writing(log, "name another --folder"):
        output = log.open("ab")
    begins = output.tell()
    command = [sys.executable, __file__, *(word for word in sys.argv[1:] if word != "--background")]
    with output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, close_fds=True
        )
    with suppress(OSError):  # Linux may share time among sessions first, whatever the priority of their processes
        Path(f"/proc/{process.pid}/autogroup").write_text(str(NICE))
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
    """End the runner of a plan."""
    lock = folder / "lock"
    process = None
    for _ in range(100):
        if not lock.exists():
            break
        try:
            with locked(lock, "holds it"):  # left by a process that was killed
                break
        except UsageError:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                words = lock.read_text(errors="replace").split()
                if process is None and words[:1] == ["process"]:
                    process = int(words[1])
                    os.kill(process, signal.SIGTERM)
            time.sleep(0.1)
    else:
        raise UsageError(f"process {process} does not stop: kill -9 {process} ends it, and loses no more")
    say(f"process {process} was stopped: the same command goes on" if process else f"nothing trains in {folder}")
    return 0


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
        commit = self._commit()
        hashes = {name: self._data(entry) for name, entry in self.plan.data.items()}
        check_records(self.plan, self.records, hashes)
        left = [run for run in self.plan.runs if record_of(self.records, run.id) is None]
        for run in left:
            self._begun(run, hashes[run.data])
        say(f"{len(left)} of {len(self.plan.runs)} runs are left, {self.jobs} at a time")
        try:
            while left or self.at_work:
                for run in [run for run in left if self._can_begin(run)][: self.jobs - len(self.at_work)]:
                    left.remove(run)
                    try:
                        self._begin(run, hashes[run.data], commit)
                    except EdgeCxrError as error:
                        self._failed(run.id, str(error))
                if not self.at_work:
                    break
                time.sleep(0.2)
                left += self._ended()
        finally:
            for process in self.at_work.values():
                process.kill()
                process.wait()
        if left:
            say(f"not begun, since a run that they need failed: {', '.join(run.id for run in left)}")
        if self.failed:
            say(f"failed: {', '.join(self.failed)}; the same command tries again")
        return UsageError.exit_code if left or self.failed else 0

    def _commit(self) -> str:
        """Return the commit whose code trains what has not begun."""
        pinned = self.folder / "commit"
        head = git("rev-parse", "--verify", "HEAD^{commit}")
        if self.commit is None and self.plan.commit is None and pinned.exists():
            commit = pinned.read_text().strip()
        else:
            commit = git("rev-parse", "--verify", f"{self.commit or self.plan.commit or 'HEAD'}^{{commit}}")
            atomic_write(pinned, commit)
        other = "" if commit == head else f", not that of HEAD {head[:12]} (--commit HEAD takes it)"
        say(f"the code is that of commit {commit[:12]}{other}; what is not committed is not used")
        return commit

    def _data(self, entry: DataSet) -> str:
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
            words = ["prepare", *entry.prepare, "--name", entry.name]
            # By the code of now, whatever trains: the hash says whether the films are the plan's.
            process = self._start(words, git("rev-parse", "HEAD"), None, {"EDGECXR_RUNS": str(self.folder)})
            try:
                code = process.wait()
            finally:
                process.kill()
                process.wait()
            if code:
                raise InputError(f"edgecxr {' '.join(words)} ended with {code}", "dataset")
        return data_hash(entry, self.folder)

    def _can_begin(self, run: Run) -> bool:
        return all((record_of(self.records, name) or {}).get("status") == "done" for name in run.needs)

    def _begun(self, run: Run, data_hash: str) -> dict[str, Any] | None:
        """Return what a run began with, if an epoch of it is done.

        Raises:
            UsageError: that was something else than the plan says.
        """
        folder = self.folder / "work" / run.id
        if not list(folder.glob("*/last.pt")):
            return None
        before: dict[str, Any] = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        expected = run.spec, data_hash, weights_of(self.records, run.teacher)
        # The first plans did not say who teaches; the worker looks at the run itself, too.
        if (before["spec"], before["data_hash"], before.get("taught_by", expected[2])) != expected:
            raise UsageError(
                f"{run.id} in {folder} was begun with other settings, data or teacher: a changed protocol is a plan of "
                "another name; or remove that folder"
            )
        return before

    def _begin(self, run: Run, data_hash: str, commit: str) -> None:
        folder = self.folder / "work" / run.id
        before = self._begun(run, data_hash)
        commit = before["commit"] if before else commit
        spec: dict[str, Any] = {
            "id": run.id, "spec": run.spec, "data": run.data, "data_hash": data_hash, "teacher": run.teacher,
            "taught_by": weights_of(self.records, run.teacher), "commit": commit, "folder": str(self.folder),
            "records": str(self.records), "threads": 1,
        }  # fmt: skip
        atomic_write(folder / "spec.json", json.dumps(spec, indent=1), "name another --folder")
        self.at_work[run.id] = self._start([str(folder / "spec.json")], commit, folder / "log", ONE_THREAD)
        say(f"{time.strftime('%H:%M:%S')} {run.id} {'goes on' if before else 'begins'}, commit {commit[:12]}")

    def _start(self, words: list[str], commit: str, log: Path | None, more: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a worker of a commit; its standard input ends with this process, and then it ends."""
        code = clone(commit, self.folder / "code")
        paths = {"PYTHONPATH": os.pathsep.join([str(code), str(code / "benchmarks")]), "PYTHONSAFEPATH": "1"}
        with writing(log or self.folder, "name another --folder"), (log or Path(os.devnull)).open("ab") as file:
            return subprocess.Popen(
                [sys.executable, str(code / "benchmarks" / "evidence_work.py"), *words],
                env=os.environ | more | paths,
                stdin=subprocess.PIPE,
                stdout=file if log else None,
                stderr=file if log else None,
                preexec_fn=_at_lowest_priority,
            )

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
                self._failed(name, f"exit code {code}, {lines[-1].strip()} ({log})")
        return again

    def _failed(self, name: str, why: str) -> None:
        self.failed[name] = why
        say(f"{name} failed: {why}")


def _at_lowest_priority() -> None:
    os.nice(NICE)


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
        for left in parent.glob(f".{commit[:12]}-*"):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        making = parent / f".{commit[:12]}-{os.getpid()}"
        git("clone", "--quiet", "--no-checkout", str(HERE), str(making))
        git("-C", str(making), "checkout", "--quiet", "--detach", commit)
        making.rename(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
