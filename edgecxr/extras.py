"""Requirements from edgecxr's metadata, and the pip commands that install them."""

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
"""The base install, where the name of an extra is expected."""


def requirements() -> dict[str, list[Requirement]]:
    """Return the requirements of each extra and of the extras it includes.

    The key `BASE` has those of the base install. Requirements whose markers do not hold on this machine are left out.
    The result is empty if edgecxr runs without having been installed.
    """
    stated = _stated()
    return {extra: [r for name in _closure(extra, stated) for r in stated[name] if r.name != NAME] for extra in stated}


def extra_of(package: str) -> str | None:
    """Return the extra that lists a package as a requirement.

    Args:
        package: the package's name for pip, which is often also its name for Python's import.

    Returns:
        The name of the smallest such extra; `BASE` if the base install requires the package; None if nothing does.
    """
    from packaging.utils import canonicalize_name

    canonical = canonicalize_name(package)
    stated = _stated()
    bringing = [extra for extra, needs in stated.items() if canonical in {canonicalize_name(r.name) for r in needs}]
    return min(bringing, key=lambda extra: len(_closure(extra, stated)), default=None)


def command(extra: str) -> str:
    """Return the command that installs edgecxr with an extra (or `BASE`).

    It installs from the same source as the present installation.
    """
    suffix = f"[{extra}]" if extra else ""
    direct = _direct_url()
    folder = _checkout(direct)
    if folder is not None:
        place = "." if folder == Path.cwd() else str(folder)
        editable = "" if direct and not direct.get("dir_info", {}).get("editable") else "-e "
        return f"{pip()} install {editable}{_quoted(place + suffix)}"
    if direct and direct.get("url") and "dir_info" not in direct:
        vcs = direct.get("vcs_info", {})
        url = (
            f"{vcs['vcs']}+{direct['url']}@{vcs.get('requested_revision') or vcs['commit_id']}"
            if vcs
            else direct["url"]
        )
        return f"{pip()} install {_quoted(f'{NAME}{suffix} @ {url}')}"
    return f"{pip()} install {_quoted(NAME + suffix)}"


def pip() -> str:
    """Return the command that calls the pip of this interpreter.

    The pip on PATH may belong to another interpreter.
    """
    executable = shutil.which("pip")
    if executable and Path(executable).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"


def installed(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _quoted(text: str) -> str:
    # Brackets are wildcards to a shell; shlex.quote alone differs between Python versions.
    return shlex.quote(text) if set(text) - set("abcdefghijklmnopqrstuvwxyz.") else text


def _distributions() -> list[Distribution]:
    """Return all installed distributions of edgecxr.

    A checkout's egg-info can be found beside the real one.
    """
    return list(distributions(name=NAME))


def _stated() -> dict[str, list[Requirement]]:
    from packaging.requirements import Requirement

    for distribution in _distributions():
        needs = [Requirement(line) for line in distribution.requires or []]
        extras = distribution.metadata.get_all("Provides-Extra") or []
        base = [r for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
        return {BASE: base} | {
            extra: [r for r in needs if r not in base and r.marker and r.marker.evaluate({"extra": extra})]
            for extra in extras
        }
    return {}


def _closure(extra: str, stated: dict[str, list[Requirement]]) -> list[str]:
    """Return an extra and the extras that it includes.

    Example: all -> export -> train.
    """
    included, todo = [], [extra]
    while todo:
        name = todo.pop()
        if name in stated and name not in included:
            included.append(name)
            todo += [inner for r in stated[name] if r.name == NAME for inner in sorted(r.extras)]
    return included


def _direct_url() -> dict[str, Any] | None:
    for distribution in _distributions():
        text = distribution.read_text("direct_url.json")
        if text:
            try:
                content = json.loads(text)
            except ValueError:
                continue
            return content if isinstance(content, dict) else None
    return None


def _checkout(direct: dict[str, Any] | None) -> Path | None:
    """Return the source folder of edgecxr, or None.

    It was installed from there, or runs from there without having been installed.
    """
    if direct and "dir_info" in direct:
        folder = Path(unquote(urlsplit(str(direct.get("url"))).path))
        return folder if (folder / "pyproject.toml").is_file() else None
    root = Path(__file__).resolve().parents[1]
    return root if not direct and (root / "pyproject.toml").is_file() else None
