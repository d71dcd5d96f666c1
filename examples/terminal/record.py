"""Record the README's picture of a terminal: run the commands and write docs/terminal.svg from what they print.

Run: python examples/terminal/record.py
"""

import io
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS = 92
COMMANDS = (
    "tp-retrieval index faq --into my-index --recipe retrieval-fast",
    'tp-retrieval search my-index "How do I copy an object?" -k 1 --rerank query-likelihood',
    'tp-retrieval ask my-index "Why does Python use indentation?" -k 1',
)


def run(command: str, folder: Path) -> str:
    """Return what a command prints on a terminal, without the progress that goes to standard error."""
    leader, follower = pty.openpty()
    os.set_inheritable(follower, True)
    words = shlex.split(command)
    words[0] = str(Path(sys.executable).with_name(words[0]))
    environment = os.environ | {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=follower, stderr=subprocess.DEVNULL) as process:
        os.close(follower)
        printed = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the end of a terminal, on Linux
                break
            if not piece:
                break
            printed += piece
    os.close(leader)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return printed.decode().replace("\r\n", "\n").strip("\n")


def record() -> list[tuple[str, str]]:
    """Return each command with what it prints, in a fresh folder with the Python FAQ."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples" / "data" / "python-faq", Path(folder, "faq"))
        return [(command, run(command, Path(folder)).replace(str(folder), "~")) for command in COMMANDS]


def drawn(session: list[tuple[str, str]]) -> str:
    """Return a session as an SVG picture that refers to no font and nothing else from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for number, (command, printed) in enumerate(session):
        if number:
            console.print()
        console.print(Text("$ ", style="green") + Text(command, style="bold"))
        console.print(Text.from_ansi(printed))
    template = re.sub(r"@font-face \{\{.*?\}\}\n?", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("font-family: Fira Code, monospace", "font-family: ui-monospace, monospace")
    title = "One frozen language model indexes, finds and answers"
    return console.export_svg(title=title, theme=MONOKAI, code_format=template, unique_id="terminal")


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(drawn(record()), encoding="utf-8")


if __name__ == "__main__":
    main()
