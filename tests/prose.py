"""The sentences that users read, collected from the package: `python -m tests.prose` renews tests/prose.txt.

A sentence is a string of four words or more that is no docstring; {} stands for what is put into it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import edgecxr

PACKAGE = Path(edgecxr.__file__).parent
GOLDEN = Path(__file__).with_name("prose.txt")
FEWEST = 4


def sentences(code: str) -> list[str]:
    """Return the sentences of a module, in its order, each once."""
    tree = ast.parse(code)
    left_out = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    collected: dict[str, None] = {}
    _collect(tree, left_out, collected)
    return list(collected)


def _collect(node: ast.AST, left_out: set[int], collected: dict[str, None]) -> None:
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        for part in node.values:  # a sentence may stand inside another
            if isinstance(part, ast.FormattedValue):
                _collect(part.value, left_out, collected)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
        text = node.value
    else:
        for child in ast.iter_child_nodes(node):
            _collect(child, left_out, collected)
        return
    if len([word for word in text.split() if any(map(str.isalpha, word))]) >= FEWEST:
        collected[" ".join(text.split())] = None


def text() -> str:
    """Return the golden file of the package as it is."""
    parts = []
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = sentences(path.read_text(encoding="utf-8"))
        if lines:
            parts.append("\n".join([f"## {path.relative_to(PACKAGE).as_posix()}", *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    GOLDEN.write_text(text(), encoding="utf-8")
