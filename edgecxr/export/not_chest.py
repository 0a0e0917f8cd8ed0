"""Reader of a user's images that are no frontal chest films.

They serve to count how many of them the quality gate of a bundle refuses.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgecxr.errors import InputError, UsageError
from edgecxr.films.find import find_inputs
from edgecxr.films.radiograph import FilmRead
from edgecxr.films.resize import BASE_SIZE
from edgecxr.infer.film_readers import Readers
from edgecxr.machine.cores import cores
from edgecxr.terminal import progress, say


def read_not_chest(folder: Path) -> list[FilmRead]:
    """Read a folder's images at 224 px.

    Call it before anything starts threads, torch in particular. Files that cannot be read are left out.

    Raises:
        UsageError: there is no such folder.
        InputError: none of its files can be read; reason "not-found".
    """
    if not os.path.isdir(folder):
        problem = "is a file" if os.path.exists(folder) else "does not exist"
        raise UsageError(f"--not-chest {folder} {problem}: give a folder with films of other things")
    paths = find_inputs([folder])
    films: list[FilmRead] = []
    with Readers(cores()) as readers, progress("not chest") as update:
        done = 0
        for part in readers.read(paths, BASE_SIZE):
            films += [film for film in part if isinstance(film, FilmRead)]
            done += len(part)
            update(done, len(paths))
    if not films:
        raise InputError(
            f"{folder} holds no film that can be read: --not-chest takes films of other things", "not-found"
        )
    if len(films) < len(paths):
        say(f"{len(paths) - len(films)} of {len(paths)} files in {folder} cannot be read and do not count")
    return films
