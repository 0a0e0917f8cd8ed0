"""How fast a node receives films, and in which memory, beside a plain pynetdicom listener and DCMTK's storescp.

    python benchmarks/receive.py --out benchmarks/results/cpu-2core/receive.json

Synthetic films of --mib MiB, uncompressed, sent by DCMTK's dcmsend: by one sender, then by --senders at one time. The
receivers take turns. The node answers when a film is on the disk (fsync) with its row in a database; the others when it
is written. Seconds of one of them over those of the plain listener, medians of the rounds; the memory is the receiving
process's largest resident size. All of it runs in a network of its own (unshare), since storescp listens on all
addresses. Ends with 6 if a limit is exceeded. Needs edgecxr[node], and DCMTK and util-linux of the system.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratios import finish, judged, record, spread

HERE = Path(__file__).resolve().parent
# Durable, and yet no slower than the plain listener; with several senders in a third of its memory.
LIMITS = {"one": 1.0, "many": 1.0, "memory": 0.34}
INSIDE = "EDGECXR_RECEIVE_INSIDE"
PORT = 11112

NODE = """
port = {port}
state = "{folder}/state"
[[peer]]
ae_title = "SENDER"
address = "127.0.0.1"
[limits]
free_mib = 0
free_percent = 0.0
"""


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--films", type=int, default=16, help="of each sender")
    parser.add_argument("--mib", type=float, default=15.0, help="of a film")
    parser.add_argument("--senders", type=int, default=8, help="at one time, in the second part")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each receiver")
    args = parser.parse_args()
    inside()
    with tempfile.TemporaryDirectory(prefix="edgecxr-receive-") as scratch:
        place = Path(scratch)
        folders = [make(place / f"from-{sender}", sender, args.films, args.mib) for sender in range(args.senders)]
        results = []
        for name, senders in (("one", folders[:1]), ("many", folders)):
            runs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in RECEIVERS}
            for _ in range(args.rounds):
                for kind in RECEIVERS:
                    runs[kind].append(measured(place, kind, senders))
            results.append(summary(name, runs, len(senders) * args.films))
    settings = {key: getattr(args, key) for key in ("films", "mib", "senders", "rounds")}
    return finish(record("receive", settings, results), args.out)


def inside() -> None:
    """Run this program again in a network of its own with nothing but loopback, unless it is there."""
    if not os.environ.get(INSIDE):
        unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
        command = [*unshare, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode)
    loopback()


def loopback() -> None:
    """Bring up the loopback device of this network (SIOCSIFFLAGS: up, loopback, running)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x49))


def make(folder: Path, sender: int, count: int, mib: float, picture: Any = None) -> Path:
    """Write films of noise, or of a picture of 12 bits, each with a UID of its own."""
    import numpy as np
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    folder.mkdir()
    side = int((mib * (1 << 20) / 2) ** 0.5)
    noise = np.random.default_rng(sender).integers(0, 4096, (side, side), np.uint16)
    pixels = (noise if picture is None else picture).tobytes()
    for number in range(count):
        film = Dataset()
        film.file_meta = FileMetaDataset()
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.SOPClassUID, film.SOPInstanceUID = DigitalXRayImageStorageForPresentation, f"1.2.{sender}.{number + 1}"
        film.StudyInstanceUID, film.SeriesInstanceUID = f"1.3.{sender}", f"1.4.{sender}"
        film.Modality, film.PatientID = "DX", f"BENCH-{sender}"
        film.Rows = film.Columns = side
        film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
        film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
        film.PixelData = pixels
        film["PixelData"].VR = "OW"
        film.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def node(folder: Path) -> list[str]:
    """Return the command of the node's receiving process."""
    from edgecxr.workers.new_python import command

    (folder / "node.toml").write_text(NODE.format(port=PORT, folder=folder))
    return command("edgecxr.node.receiving.receive:main", str(folder / "node.toml"))


def plain(folder: Path) -> list[str]:
    """Return the command of the plain listener."""
    return [sys.executable, str(HERE / "bare_receive.py"), str(folder), str(PORT)]


def storescp(folder: Path) -> list[str]:
    """Return the command of DCMTK's receiver."""
    return ["/usr/bin/storescp", "--fork", "-aet", "EDGECXR", "-od", str(folder), "+uf", str(PORT)]


RECEIVERS: dict[str, Callable[[Path], list[str]]] = {"node": node, "plain": plain, "storescp": storescp}


def measured(place: Path, kind: str, senders: list[Path]) -> tuple[float, float]:
    """Return the seconds for all films, and the receiver's largest size in MiB."""
    folder = place / "received"
    folder.mkdir()
    receiver = subprocess.Popen(RECEIVERS[kind](folder), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        wait_for(PORT)
        send = ["/usr/bin/dcmsend", "-aet", "SENDER", "-aec", "EDGECXR", "127.0.0.1", str(PORT), "+sd"]
        start = time.perf_counter()
        running = [subprocess.Popen([*send, str(sender)]) for sender in senders]
        codes = [sender.wait() for sender in running]
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{receiver.pid}/status").read_text()
        kept = sum(
            path.stat().st_size > 1 << 16 for path in folder.rglob("*") if path.suffix == ".dcm" or kind == "storescp"
        )
        expected = sum(len(list(sender.iterdir())) for sender in senders)
        if any(codes) or kept != expected:
            sys.exit(f"{kind} kept {kept} of {expected} films; dcmsend ended with {codes}")
    finally:
        receiver.kill()
        receiver.wait()
        shutil.rmtree(folder)
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def wait_for(port: int) -> None:
    """Wait until something listens on a port."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def summary(name: str, runs: dict[str, list[tuple[float, float]]], films: int) -> dict[str, Any]:
    """Return one part of the record."""
    result: dict[str, Any] = {"name": name, "films": films}
    for kind, measurements in runs.items():
        result[kind] = {
            "films_per_s": spread([films / seconds for seconds, _ in measurements], 2),
            "mib": spread([mib for _, mib in measurements], 1),
        }
    ratios = [ours[0] / plain[0] for ours, plain in zip(runs["node"], runs["plain"], strict=True)]
    result["checks"] = [judged(name, statistics.median(ratios), LIMITS[name])]
    if name == "many":
        sizes = [ours[1] / plain[1] for ours, plain in zip(runs["node"], runs["plain"], strict=True)]
        result["checks"].append(judged("memory", statistics.median(sizes), LIMITS["memory"]))
    return result


if __name__ == "__main__":
    sys.exit(main())
