"""Runs a notebook from a clean kernel in an empty folder. As a script it writes the outputs back: `python -m
tests.notebooks.run` after a change of what notebooks show.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_HIDDEN = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b[0-9a-f]{24,32}\b"), "<id>"),
    (re.compile(r"0x[0-9a-f]+"), "<address>"),
    (re.compile(r'src="data:[^"]*"'), 'src="<picture>"'),
)


def executed(file: Path) -> Any:
    """The notebook *file* with the outputs of a run that began with nothing."""
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    nbformat: Any = import_module("nbformat")  # which has no types
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as folder:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, km=kernel, timeout=300, resources=place).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def outputs(notebook: Any) -> list[list[tuple[str, str]]]:
    """What each code cell shows, as kind and text: ids, addresses and pixels left out."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [_joined([shown for output in cell.outputs for shown in _shown(output)]) for cell in cells]


def _joined(shown: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What one stream printed may come in pieces."""
    found: list[tuple[str, str]] = []
    for kind, text in shown:
        if found and found[-1][0] == kind == "stdout":
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


def _shown(output: Any) -> list[tuple[str, str]]:
    if output.output_type == "stream":
        return [(output.name, _plain(output.text))]
    if output.output_type == "error":
        return [("error", output.ename)]
    data = output.data
    found = [("text/html", _plain(data["text/html"]))] if "text/html" in data else []
    if "image/png" in data:
        return [*found, ("image/png", "a picture")]
    return found or [("text/plain", _plain(data["text/plain"]))]


def _plain(text: str) -> str:
    for pattern, word in _HIDDEN:
        text = pattern.sub(word, text)
    return text


def main() -> None:
    """`run` keeps what all notebooks show; `run NOTEBOOK TARGET` writes one with what it shows to another file."""
    nbformat: Any = import_module("nbformat")  # which has no types
    named = [Path(name) for name in sys.argv[1:]]
    for file, target in (
        [(named[0], named[1])] if named else [(file, file) for file in sorted(NOTEBOOKS.glob("*.ipynb"))]
    ):
        nbformat.write(executed(file), target)


if __name__ == "__main__":
    main()
