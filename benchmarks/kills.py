"""Kills each process of a node so many times while films come, and counts what was acknowledged and what is lost.

    python benchmarks/kills.py --kills 200 --out benchmarks/results/cpu-2core/kills.json

`edgecxr serve` with the bundle that comes with edgecxr gets small films by C-STORE and STOW-RS, each with UIDs of its
own; a sender tries a film again until it is acknowledged. Each role is killed by SIGKILL at a random moment of its
first --life seconds, again and again, all roles at one time. Then the senders stop, and the node may finish. A film
is lost if it was acknowledged and the stand-in for the PACS has not got both of its results. No result may come twice
with other bytes. All runs in a network of its own (unshare). Ends with 6 if anything is lost. Needs edgecxr[node],
and DCMTK and util-linux of the system.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import http.client
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from ratios import finish, judged, record
from receive import PORT, inside, make
from running_node import Node, archive, picture, running

BY_STORE, BY_STOW = 4, 2  # senders
STOW_PORT = 11114
MORE = f"[stow]\nport = {STOW_PORT}\n"
_PATIENCE = 1800.0  # seconds until what is not filed by then counts as lost
_PAUSE = 0.8  # seconds between two films of a sender, so that the queue does not only grow


def main() -> int:
    """Kill, count and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--kills", type=int, default=200, help="of each process")
    parser.add_argument("--life", type=float, default=6.0, help="longest seconds that a process lives")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    inside()
    results = Results()
    with tempfile.TemporaryDirectory(prefix="edgecxr-kills-") as scratch, archive("stow", results.look):
        result = killed(Path(scratch), args.kills, args.life, args.seed, results)
    settings = {"kills": args.kills, "life": args.life, "seed": args.seed, "by_store": BY_STORE, "by_stow": BY_STOW}
    return finish(record("kills", settings, [result]), args.out)


class Results:
    """What the stand-in for the PACS has got.

    Attributes:
        of_film: SOP instance UID of a film -> modalities of its results.
        again: number of results that came again as they were.
        changed: number of results that came again with other bytes.
    """

    def __init__(self) -> None:
        self.of_film: defaultdict[str, set[str]] = defaultdict(set)
        self.again = self.changed = 0
        self._digests: dict[tuple[str, str], str] = {}  # of the first result of a film and a modality
        self._lock = threading.Lock()

    def look(self, content: bytes) -> None:
        """Note a result."""
        from pydicom import dcmread

        result, digest = dcmread(io.BytesIO(content)), hashlib.sha256(content).hexdigest()
        (film,) = (
            result.get("SourceImageSequence")
            or result.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        )
        of = str(film.ReferencedSOPInstanceUID), str(result.Modality)
        with self._lock:
            if of in self._digests:
                self.again += self._digests[of] == digest
                self.changed += self._digests[of] != digest
            self._digests.setdefault(of, digest)
            self.of_film[of[0]].add(of[1])


class Sender(threading.Thread):
    """A modality that sends films one after the other, each again until it is acknowledged."""

    def __init__(self, template: Any, number: int, by_stow: bool) -> None:
        super().__init__(daemon=True)
        self.film, self.root, self.by_stow = copy.deepcopy(template), f"1.2.{800 + number}", by_stow
        self.acknowledged: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Send until `ended`."""
        while not self.ended.is_set():
            uid = f"{self.root}.{len(self.acknowledged)}"
            self.film.SOPInstanceUID = uid
            self.film.file_meta.MediaStorageSOPInstanceUID = uid
            with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError, ValueError):
                if self.posted() if self.by_stow else self.stored():
                    self.acknowledged.append(uid)
            self.ended.wait(_PAUSE)

    def stored(self) -> bool:
        """Send the film by C-STORE; return whether it is acknowledged."""
        from pynetdicom import AE

        entity = AE("SENDER")
        entity.add_requested_context(self.film.SOPClassUID, self.film.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", PORT, ae_title="EDGECXR")
        if not association.is_established:
            return False
        answer: Any = association.send_c_store(self.film)
        association.release()
        return bool(answer.get("Status") == 0)

    def posted(self) -> bool:
        """Send the film by STOW-RS; return whether it is acknowledged."""
        file = io.BytesIO()
        self.film.save_as(file, enforce_file_format=True)
        body = b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + file.getvalue() + b"\r\n--XX--\r\n"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=XX'}
        connection = http.client.HTTPConnection("127.0.0.1", STOW_PORT, timeout=30)
        try:
            connection.request("POST", "/dicomweb/studies", body, headers | {"Accept": "application/dicom+json"})
            response = connection.getresponse()
            response.read()
            return response.status == 200
        finally:
            connection.close()


def killed(scratch: Path, kills: int, life: float, seed: int, results: Results) -> dict[str, Any]:
    """Kill the roles of a node while senders send, and count."""
    from pydicom import dcmread

    from edgecxr.node.supervisor import ROLES

    (path,) = make(scratch / "film", 800, 1, 0.05, picture(0.05)).iterdir()
    senders = [Sender(dcmread(path), number, number >= BY_STORE) for number in range(BY_STORE + BY_STOW)]
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with running(scratch, "stow", MORE) as node:
        killers = [
            threading.Thread(target=kill, args=(node, role, kills, life, random.Random(f"{seed} {role}"), counts))
            for role in ROLES
        ]
        for thread in (*senders, *killers):
            thread.start()
        for killer in killers:
            while killer.is_alive():
                killer.join(60)
                print(f"{time.monotonic() - began:.0f} s: {dict(counts)}", file=sys.stderr, flush=True)
        killing = time.monotonic() - began
        for sender in senders:
            sender.ended.set()
        for sender in senders:
            sender.join()
        acknowledged = {uid for sender in senders for uid in sender.acknowledged}
        until = time.monotonic() + _PATIENCE
        while node.films("state NOT IN ('filed', 'refused', 'rejected')") and time.monotonic() < until:
            time.sleep(0.2)
        states = Counter(dict(node.rows("SELECT state, count(*) FROM film GROUP BY state")))
        filed = {uid for uid, _, _ in node.films("state = 'filed'")}
    both = {uid for uid, kinds in results.of_film.items() if len(kinds) == 2}
    checks = [
        judged("kills that are lacking", sum(kills - counts[role] for role in ROLES), 0),
        judged("acknowledged and lost", len(acknowledged - (filed & both)), 0),
        judged("results of one film and kind with other bytes", results.changed, 0),
    ]
    return {
        "name": "kills",
        "seconds": {"of kills": round(killing), "until all were filed": round(time.monotonic() - began)},
        "kills": dict(counts),
        "acknowledged": {
            "C-STORE": sum(len(sender.acknowledged) for sender in senders if not sender.by_stow),
            "STOW-RS": sum(len(sender.acknowledged) for sender in senders if sender.by_stow),
        },
        "states": dict(states),
        "results that came again as they were": results.again,
        "checks": checks,
    }


def kill(node: Node, role: str, kills: int, life: float, chance: random.Random, counts: Counter[str]) -> None:
    """Kill the process of a role `kills` times, each time that the supervisor has started it."""
    while counts[role] < kills and node.process.poll() is None:
        pid = node.pid_of(role)
        if pid is None:
            time.sleep(0.05)
            continue
        time.sleep(chance.uniform(0, life))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            counts[role] += 1
        while node.pid_of(role) == pid:
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
