"""The weights of a GGUF file as safetensors, a part at a time: the embeddings, each block, the LM head.

parts = GgufParts(file, config, torch.bfloat16)
parts.write(GgufParts.names_for(config, head=False), folder)
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from tp_retrieval.errors import ModelNotFoundError
from tp_retrieval.sqlite.atomic import atomic_write

INDEX = "model.safetensors.index.json"
EMBEDDINGS, HEAD, BLOCK = "embeddings.safetensors", "head.safetensors", "block-{:05d}.safetensors"
_MATRICES_OF_TOKENS = ("token_embd.weight", "output.weight")
"""The largest tensors; they are converted a few rows at a time, and need nothing but that."""
_CHUNK = 1 << 21  # numbers converted together


class GgufParts:
    """The parts of a GGUF file that hold the weights of a configuration, in one type.

    Names and values are those that transformers gives them; it can't unpack less than the whole, and takes memory for it
    twice. `file` is the GGUF file, `config` may have fewer blocks than that. Raises `ModelNotFoundError` for one file of
    several.
    """

    def __init__(self, file: Path, config: Any, dtype: torch.dtype) -> None:
        self.file = file
        self._config = config
        self._dtype = dtype
        self._reader = GGUFReader(file)
        count = self._reader.fields.get("split.count")
        if count is not None and int(count.contents()) > 1:
            raise ModelNotFoundError(
                f"{file} is one of {int(count.contents())} files of a model; merge them with `llama-gguf-split --merge`"
            )

    @staticmethod
    def names_for(config: Any, *, head: bool) -> set[str]:
        """Return the names of the parts that hold a configuration's weights, with or without an LM head of its own."""
        text = config.get_text_config()
        names = {EMBEDDINGS, *(BLOCK.format(i) for i in range(text.num_hidden_layers))}
        return names | {HEAD} if head and not text.tie_word_embeddings else names

    def size_of(self, names: Collection[str]) -> int:
        """Return the bytes that parts take on disk and in memory."""
        return self._dtype.itemsize * self._numbers_of(names)

    def seconds_for(self, names: Collection[str]) -> float:
        """Return about how long parts take, from how long a few of their numbers took."""
        sample = max((tensor for name in names for tensor in self._tensors[name]), key=lambda t: t.n_elements)
        rows = sample.data[: max(1, _CHUNK * len(sample.data) // sample.n_elements)]
        begin = time.perf_counter()
        converted = torch.tensor(dequantize(rows, sample.tensor_type)).to(self._dtype)
        return (time.perf_counter() - begin) * self._numbers_of(names) / converted.numel()

    def write(self, names: Collection[str], folder: Path, *, beside: Collection[str] = ()) -> None:
        """Write parts, and the index of these and of others `beside` them in the folder; on a terminal with a bar.

        At no time more than one part is in memory, beside a few rows of what it is made of.
        """
        with tqdm(
            total=self.size_of(names), desc="unpacking the model once", unit="B", unit_scale=True, disable=None
        ) as bar:
            for name in sorted(names):
                tensors = self._read(name)
                with atomic_write(folder / name) as scratch:
                    save_file(tensors, scratch, metadata={"format": "pt"})
                bar.update(self.size_of([name]))
        _write_index(folder, sorted({*names, *beside}))

    def _numbers_of(self, names: Collection[str]) -> int:
        return sum(int(tensor.n_elements) for name in names for tensor in self._tensors[name])

    @cached_property
    def _tensors(self) -> dict[str, list[Any]]:
        """The file's tensors by the part that they go into."""
        text = self._config.get_text_config()
        parts: dict[str, list[Any]] = {EMBEDDINGS: [], HEAD: []}
        parts |= {BLOCK.format(i): [] for i in range(text.num_hidden_layers)}
        for tensor in self._reader.tensors:
            block = re.match(r"blk\.(\d+)\.", tensor.name)
            name = BLOCK.format(int(block[1])) if block else HEAD if tensor.name.startswith("output.") else EMBEDDINGS
            if name in parts:
                parts[name].append(tensor)
        return parts

    @cached_property
    def _names(self) -> dict[str, str]:
        """The names of the weights in transformers by their names in the file."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self._config)
        names: dict[str, str] = get_gguf_hf_weights_map(model, self._processor)
        return names

    @cached_property
    def _processor(self) -> TensorProcessor:
        """What undoes the changes that the file's format makes to some weights."""
        architecture = self._reader.fields["general.architecture"].contents()
        kind = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
        return kind(config=self._config.get_text_config().to_dict())  # type: ignore[no-untyped-call]

    @cached_property
    def _loaded(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights by part as transformers loads them, all at once."""
        from transformers import GgufConfig

        model = AutoModelForCausalLM.from_pretrained(
            self.file.parent,
            gguf_file=self.file.name,
            config=self._config,
            dtype=self._dtype,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
        )
        parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in self._tensors}
        tied = self._config.get_text_config().tie_word_embeddings
        for key, weights in model.state_dict().items():
            block = re.search(r"\.layers\.(\d+)\.", key)
            if block:
                parts[BLOCK.format(int(block[1]))][key] = weights
            elif not key.startswith("lm_head."):
                parts[EMBEDDINGS][key] = weights
            elif not tied:
                parts[HEAD][key] = weights
        return parts

    def _read(self, name: str) -> dict[str, torch.Tensor]:
        """Return the weights of a part by their names in transformers."""
        try:
            names = self._names
        except NotImplementedError:  # transformers' table of names lacks architectures that it loads
            return self._loaded[name]
        read: dict[str, torch.Tensor] = {}
        for tensor in self._tensors[name]:
            if tensor.name in _MATRICES_OF_TOKENS:
                read[names[tensor.name]] = self._by_rows(tensor)
                continue
            result = self._processor.process(
                weights=dequantize(tensor.data, tensor.tensor_type),
                name=tensor.name,
                tensor_key_mapping=names,
                parsed_parameters={"tensors": read},  # where some put the weights of several experts together
            )
            if result.name in names:
                read[names[result.name]] = torch.from_numpy(np.copy(result.weights)).to(self._dtype)
        return {key: weights.to(self._dtype) for key, weights in read.items()}

    def _by_rows(self, tensor: Any) -> torch.Tensor:
        rows = len(tensor.data)
        at_once = max(1, _CHUNK * rows // tensor.n_elements)
        weights = torch.empty(rows, tensor.n_elements // rows, dtype=self._dtype)
        for begin in range(0, rows, at_once):
            part = tensor.data[begin : begin + at_once]
            weights[begin : begin + len(part)] = torch.from_numpy(np.array(dequantize(part, tensor.tensor_type)))
        return weights


def _write_index(folder: Path, names: Collection[str]) -> None:
    """Write which part of a folder holds which weights, for transformers, and how large each is."""
    weight_map: dict[str, str] = {}
    for name in names:
        with safe_open(folder / name, framework="pt") as weights:
            weight_map |= dict.fromkeys(weights.keys(), name)
    sizes = {name: (folder / name).stat().st_size for name in names}
    index = {"metadata": {"total_size": sum(sizes.values()), "sizes": sizes}, "weight_map": weight_map}
    with atomic_write(folder / INDEX) as scratch:
        scratch.write_text(json.dumps(index, indent=1), encoding="utf-8")
