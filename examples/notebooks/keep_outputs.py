"""Run the notebooks of this folder and keep their outputs, without what differs from one machine to the next.

Run: python examples/notebooks/keep_outputs.py [NAME.ipynb ...]
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
SECONDS = 1200  # of a cell


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run in a folder, which is a copy, beside a copy of the data."""
    shutil.copytree(FOLDER.parent / "data", folder / "data")
    (folder / "notebooks").mkdir()
    notebook = nbformat.read(path, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))  # no network
    where = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(
        notebook, km=manager, timeout=SECONDS, resources=where, record_timing=False, coalesce_streams=True
    ).execute()
    return stripped(notebook)


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook without progress and warnings, states of widgets and the version of Python."""
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Run each notebook and write it back."""
    for path in [FOLDER / name for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
        print(path.name)


if __name__ == "__main__":
    main()
