"""What edgecxr's own metadata says of the packages it needs, and the pip command that brings them here."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAME = "edgecxr"
BASE = ""
"""Stands for the base install where the name of an extra is expected."""


def requirements() -> dict[str, list[Requirement]]:
    """Return each extra's requirements, those of the extras that it includes too; `BASE` has the base install's.

    Markers that do not hold on this machine are left out. Empty where edgecxr runs without having been installed.
    """
    stated = _stated()
    return {extra: [r for name in _closure(extra, stated) for r in stated[name] if r.name != NAME] for extra in stated}


def extra_of(package: str) -> str | None:
    """Return the extra that states a package, `BASE` if the base install does, None if none does.

    Args:
        package: the name of the package, as pip or as Python's import has it; where they differ, as pip has it.
    """
    from packaging.utils import canonicalize_name

    wanted = canonicalize_name(package)
    stated = _stated()
    bringing = [extra for extra, needs in stated.items() if wanted in {canonicalize_name(r.name) for r in needs}]
    return min(bringing, key=lambda extra: len(_closure(extra, stated)), default=None)


def command(extra: str) -> str:
    """Return the command that installs edgecxr with an extra (or `BASE`), from where this one was installed."""
    what = f"[{extra}]" if extra else ""
    direct = _direct_url()
    folder = _checkout(direct)
    if folder is not None:
        place = "." if folder == Path.cwd() else str(folder)
        editable = "" if direct and not direct.get("dir_info", {}).get("editable") else "-e "
        return f"{pip()} install {editable}{_quoted(place + what)}"
    if direct and direct.get("url") and "dir_info" not in direct:
        vcs = direct.get("vcs_info", {})
        url = (
            f"{vcs['vcs']}+{direct['url']}@{vcs.get('requested_revision') or vcs['commit_id']}"
            if vcs
            else direct["url"]
        )
        return f"{pip()} install {_quoted(f'{NAME}{what} @ {url}')}"
    return f"{pip()} install {_quoted(NAME + what)}"


def pip() -> str:
    """Return how to call the pip of this interpreter: the one on PATH may be another's."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"


def installed(package: str) -> str | None:
    """Return the version of an installed package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _quoted(text: str) -> str:
    # Brackets are wildcards to a shell. shlex.quote quotes them too, but not alike in every Python.
    return shlex.quote(text) if set(text) - set("abcdefghijklmnopqrstuvwxyz.") else text


def _distributions() -> list[Distribution]:
    """Return what is installed as edgecxr; a checkout's egg-info can stand beside the real one."""
    return list(distributions(name=NAME))


def _stated() -> dict[str, list[Requirement]]:
    from packaging.requirements import Requirement

    for found in _distributions():
        needs = [Requirement(line) for line in found.requires or []]
        extras = found.metadata.get_all("Provides-Extra") or []
        base = [r for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
        return {BASE: base} | {
            extra: [r for r in needs if r not in base and r.marker and r.marker.evaluate({"extra": extra})]
            for extra in extras
        }
    return {}


def _closure(extra: str, stated: dict[str, list[Requirement]]) -> list[str]:
    """Return an extra and those that it includes, such as all -> export -> train."""
    found, todo = [], [extra]
    while todo:
        name = todo.pop()
        if name in stated and name not in found:
            found.append(name)
            todo += [inner for r in stated[name] if r.name == NAME for inner in sorted(r.extras)]
    return found


def _direct_url() -> dict[str, Any] | None:
    for found in _distributions():
        text = found.read_text("direct_url.json")
        if text:
            try:
                content = json.loads(text)
            except ValueError:
                continue
            return content if isinstance(content, dict) else None
    return None


def _checkout(direct: dict[str, Any] | None) -> Path | None:
    """Return the folder that edgecxr was installed from, or runs from without having been installed."""
    if direct and "dir_info" in direct:
        folder = Path(unquote(urlsplit(str(direct.get("url"))).path))
        return folder if (folder / "pyproject.toml").is_file() else None
    above = Path(__file__).resolve().parents[1]
    return above if not direct and (above / "pyproject.toml").is_file() else None
