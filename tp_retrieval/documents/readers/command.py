"""Any other format, by a command that is given a file's path and writes its text, as Markdown."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator

from tp_retrieval.documents.encodings import decoded
from tp_retrieval.documents.formats import SourceFile, suffix_of
from tp_retrieval.documents.readers.html import of_markdown
from tp_retrieval.documents.section import Section
from tp_retrieval.errors import InputError

_SECONDS = 120.0


def sections(file: SourceFile) -> Iterator[Section]:
    """Yield the sections of what the command for a file's suffix writes; raise `InputError` if it fails."""
    command = file.options.loaders[suffix_of(file.path)]
    try:
        done = subprocess.run(
            [*shlex.split(command), str(file.path.absolute())], capture_output=True, check=True, timeout=_SECONDS
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(
            f"{file.path}: {command!r} ended with {error.returncode} ({said[-1] if said else 'silent'})"
        ) from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{file.path}: {command!r} can't read it ({error})") from error
    text = decoded(done.stdout, file.path).replace("\r\n", "\n")
    return of_markdown(text)
