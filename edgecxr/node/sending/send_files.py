"""Results of `edgecxr infer --dicom`, sent to a destination."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgecxr.errors import UsageError, brief
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending.association import quiet
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Refused, Unreachable
from edgecxr.node.sending.send import LARGEST, connection_to
from edgecxr.storage.reading import BadFile, read_bytes
from edgecxr.terminal import printable, say, show


def send_files(paths: Iterable[Path], destination: Destination, config: NodeConfig) -> int:
    """Send each file, and print a line for it.

    Args:
        paths: files, and folders whose *.dcm files are sent.
        destination: who gets them.
        config: of the node, whose AE title is used.

    Returns:
        The number of files that were not sent.

    Raises:
        UsageError: a folder has none.
    """
    quiet()
    connection, sent, failed = connection_to(destination, config), 0, 0
    try:
        for path in _files(paths):
            name = printable(str(path))
            try:
                remark = connection.store(read_bytes(path, LARGEST))
            except (OSError, BadFile) as error:
                say(f"not sent: {name} cannot be read: {brief(error)}")
                failed += 1
            except (Refused, Unreachable) as error:
                say(f"not sent: {name}: {destination.name}: {error}")
                failed += 1
            else:
                show(f"sent: {name}{f' ({remark})' if remark else ''}")
                sent += 1
    finally:
        connection.release()
    say(f"{sent} files sent to {destination.name}{f', {failed} not sent' if failed else ''}")
    return failed


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        inside = sorted(path.glob("*.dcm"))
        if not inside:
            raise UsageError(f"{path} has no *.dcm files: give the folder of `edgecxr infer --dicom`")
        yield from inside
