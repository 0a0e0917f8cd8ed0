"""The rules of the house, see CONTRIBUTING.md; import-linter holds the walls between its wings."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import edgecxr
from edgecxr.cli import COMMANDS

PACKAGE = Path(edgecxr.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
INSIDE = [path for path in MODULES if path.parent.name != "cli"]

LARGEST_FILE, LARGEST_FOLDER, LONGEST_SUMMARY = 350, 14, 12
HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "matplotlib", "lightning_fabric")
WORKSTATION = {"models", "distill", "train", "export", "plots"}


def named(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_no_module_name_stands_twice_and_none_is_the_standard_library_s():
    counts = Counter(path.stem for path in INSIDE)
    assert {name for name, count in counts.items() if count > 1} == set()
    assert {path.stem for path in INSIDE} & set(sys.stdlib_module_names) == set()


def test_the_files_of_cli_are_the_commands():
    files = {path.stem for path in MODULES if path.parent.name == "cli"}
    assert files == {*COMMANDS, "app", "options"}


def test_folders_and_files_stay_small():
    folders = Counter(path.parent for path in INSIDE)
    assert {named(folder): count for folder, count in folders.items() if count > LARGEST_FOLDER} == {}
    lengths = {named(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, lines in lengths.items() if lines > LARGEST_FILE} == set()


def test_heavy_libraries_are_imported_in_the_workstation_s_wings_only():
    importers = {
        named(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imported(node)
        if module.partition(".")[0] in HEAVY
    }
    assert {name.partition("/")[0] for name in importers} == WORKSTATION


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_processes_are_forked_and_bound_to_their_parent_in_one_place():
    words = {"os.fork(": {"template", "confine"}, "forkserver": set(), "prctl": {"template", "confine"}}
    for word, places in words.items():
        assert {named(path) for path in MODULES if word in path.read_text()} == {f"workers/{x}.py" for x in places}


# What is read elsewhere than in storage/: the kernel's own files, what pip, edgecxr or TensorRT say of themselves, the
# work that a parent hands its child, a folder, and libraries whose files storage/ has opened or looked through before.
READS_ITSELF = {
    "benchmark/energy.py": {"read_text"}, "benchmark/model_process.py": {"read_text"},
    "benchmark/record.py": {"read_text"}, "engines/tensorrt/layers.py": {"json.loads"},
    "extras.py": {"read_text", "json.loads"}, "machine/system.py": {"read_text"}, "models/weights.py": {"load_file"},
    "streams.py": {"os.open"}, "train/checkpoint.py": {"torch.load"}, "workers/cluster.py": {"os.open"},
    "workers/template.py": {"read_text", "pickle.loads"},
}  # fmt: skip
READERS = {
    "json": {"load", "loads"}, "np": {"load", "fromfile", "memmap", "loadtxt", "genfromtxt", "open_memmap"},
    "tomllib": {"load", "loads"}, "pickle": {"load", "loads"}, "torch": {"load"}, "Image": {"open"},
    "zipfile": {"ZipFile"}, "tarfile": {"open", "TarFile"}, "gzip": {"open"}, "io": {"open"},
    "shutil": {"unpack_archive"},
}  # fmt: skip


def test_what_may_come_from_strangers_is_read_in_storage() -> None:
    readers: dict[str, set[str]] = {}
    for path in MODULES:
        if path.parent.name != "storage":
            for node in ast.walk(ast.parse(path.read_text())):
                reader = read_by(node) if isinstance(node, ast.Call) else ""
                if reader and not (reader == "Image.open" and named(path).startswith("films/")):
                    readers.setdefault(named(path), set()).add(reader)
    assert readers == READS_ITSELF


def read_by(call: ast.Call) -> str:
    """Return the function that reads a file or parses its content, "" for any other call."""
    function = call.func
    modes = [
        value.value for value in (*call.args[:2], *(k.value for k in call.keywords)) if isinstance(value, ast.Constant)
    ]
    reading = not any(
        isinstance(mode, str) and re.fullmatch("[rwax]b?[+]?b?", mode) and mode not in ("r", "rb") for mode in modes
    )
    if isinstance(function, ast.Name):
        return function.id if function.id in ("load_file", "safe_open") or (function.id == "open" and reading) else ""
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in READERS.get(owner, ()):
        return f"{owner}.{function.attr}"
    if owner == "os" and function.attr == "open":
        return "os.open" if "O_RDONLY" in ast.unparse(call) else ""
    # A path's methods; `open` of one has nothing but a mode.
    if function.attr in ("read_text", "read_bytes") and owner != "reading":
        return function.attr
    of_path = function.attr == "open" and reading and all(isinstance(argument, ast.Constant) for argument in call.args)
    return "open" if of_path else ""


PRINTS = {"print", "echo", "secho", "print_exc", "print_exception", "print_stack", "print_json"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}


def prints(node: ast.AST) -> bool:
    """Return whether a call prints, or writes to a standard stream."""
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    stream = getattr(getattr(node.func, "value", None), "attr", "")
    return name in PRINTS or (name in ("write", "writelines") and stream in STREAMS)


def test_nothing_is_printed_but_by_the_terminal_s_module():
    """Text of strangers may stand in whatever is printed; there it is escaped."""
    trees = {named(path): [*ast.walk(ast.parse(path.read_text()))] for path in PACKAGE.rglob("*.py")}
    assert {name for name, nodes in trees.items() if any(map(prints, nodes))} == {"terminal.py"}
    rich = {name for name, nodes in trees.items() for node in nodes for of in imported(node) if of.startswith("rich")}
    assert rich == {"terminal.py"}


def test_the_dicom_network_is_the_node_s_alone():
    importers = {
        named(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imported(node)
        if module.partition(".")[0] == "pynetdicom"
    }
    assert {name.partition("/")[0] for name in importers} == {"node"}


def test_csv_is_written_in_one_place():
    """Spreadsheets compute cells that others may have written; there they are made text."""
    writers = {named(path) for path in MODULES if re.search(r"csv\.(Dict)?[wW]riter", path.read_text())}
    assert writers == {"storage/spreadsheet.py"}


@pytest.mark.parametrize(
    ("code", "printing"),
    [("print(1)", True), ("typer.echo(1)", True), ("traceback.print_exc()", True), ("console.print(1)", True),
     ("sys.stderr.write(1)", True), ("file.write(1)", False), ("printable(1)", False)],
)  # fmt: skip
def test_calls_that_print_are_found(code: str, printing: bool):
    assert any(map(prints, ast.walk(ast.parse(code)))) == printing


@pytest.mark.parametrize("wing", sorted({path.parent for path in INSIDE} - {PACKAGE}), ids=named)
def test_every_wing_says_what_it_is(wing: Path):
    assert ast.get_docstring(ast.parse((wing / "__init__.py").read_text()))


@pytest.mark.parametrize("page", ["film-to-result.md", "data-to-bundle.md"])
def test_the_pages_that_lead_through_the_rooms_name_rooms_that_are_there(page: str):
    named_there = re.findall(r"`([a-z_/0-9]+(?:\.py|/))`", (Path(__file__).parents[1] / "docs" / page).read_text())
    assert len(named_there) > 20
    # Beside a folder, the files that follow are in it.
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
    assert [name for name in named_there if not any((folder / name).exists() for folder in folders)] == []


def test_the_first_line_of_a_docstring_has_few_words():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{named(path)}: {summary}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
        for summary in [(ast.get_docstring(node) or "").partition("\n\n")[0]]
        if len(summary.split()) > LONGEST_SUMMARY
    ]
    assert long == []
