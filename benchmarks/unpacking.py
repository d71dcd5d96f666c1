"""Memory and time of unpacking a GGUF file and loading the model, and both of transformers' own loader.

python benchmarks/unpacking.py                      # the embedded model
python benchmarks/unpacking.py --billion            # a file of random weights in the shape of a 1B Llama
python benchmarks/unpacking.py --file llama-8b.gguf --blocks 1

A row is a process of its own; its peak is what it needs beyond what it had with everything imported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

from tp_retrieval.embedding.model.backbone import shortened
from tp_retrieval.embedding.model.gguf import CACHE_VARIABLE, described, embedded_model, unpacked

_SHAPE = {"width": 2048, "inner": 8192, "blocks": 16, "heads": 32, "kv_heads": 8}  # of Llama 3.2 1B
_WAYS = ("transformers, whole", "unpacked and loaded, whole", "unpacked and loaded, {blocks} blocks", "loaded again")


def main() -> None:
    """Measure every way in a process of its own, on an empty cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=embedded_model())
    parser.add_argument("--billion", action="store_true")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--way", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(measured(options.file, options.way, options.blocks, getattr(torch, options.dtype))))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = synthetic(Path(folder) / "synthetic-1b.gguf") if options.billion else options.file
        for i, way in enumerate(_WAYS):
            cache = Path(folder) / ("cache-1" if i == 3 else f"cache-{i}")  # the last one loads what the second unpacked
            command = [sys.executable, __file__, "--way", str(i), "--file", file, "--blocks", str(options.blocks)]
            ran = subprocess.run(
                [*map(str, command), "--dtype", options.dtype],
                env=os.environ | {CACHE_VARIABLE: str(cache)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
                text=True,
            )
            row = json.loads(ran.stdout)
            share = row["peak"] / row["result"]
            print(
                f"{way.format(blocks=options.blocks):32} {row['result']:7.0f} MB, peak {row['peak']:7.0f} MB beyond "
                f"{row['before']:.0f} MB ({share:.2f} of the result), {row['seconds']:.1f} s"
            )


def measured(file: Path, way: int, blocks: int, dtype: torch.dtype) -> dict[str, float]:
    """Load a file in one way; return megabytes before, of the result and of the peak between, and seconds."""
    folder = described(file)  # which parses the vocabulary, for every way alike
    config = AutoConfig.from_pretrained(folder)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    begin = time.perf_counter()
    if way == 0:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
        )
    else:
        config = shortened(config, blocks) if way == 2 else config
        model = AutoModelForCausalLM.from_pretrained(unpacked(file, config, dtype), config=config, dtype=dtype)
    total = sum(float(weights.float().sum()) for weights in model.parameters())  # every page is read
    seconds = time.perf_counter() - begin
    result = sum(weights.numel() * weights.element_size() for weights in model.parameters()) / 1e6
    return {"before": before, "peak": resident("VmHWM") - before, "result": result, "seconds": seconds, "sum": total}


def resident(name: str) -> float:
    """Return a figure of this process's memory in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6


def synthetic(file: Path) -> Path:
    """Write a Q4_0 file of random weights in the shape of Llama 3.2 1B, with the embedded model's vocabulary."""
    source = embedded_model()
    if source is None:
        raise SystemExit("the embedded model is missing")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(_SHAPE["width"])
    writer.add_feed_forward_length(_SHAPE["inner"])
    writer.add_block_count(_SHAPE["blocks"])
    writer.add_head_count(_SHAPE["heads"])
    writer.add_head_count_kv(_SHAPE["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_SHAPE["width"] // _SHAPE["heads"])
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    width, kv = _SHAPE["width"], _SHAPE["width"] // _SHAPE["heads"] * _SHAPE["kv_heads"]
    shapes = {"token_embd.weight": (49152, width), "output_norm.weight": (width,)}
    for i in range(_SHAPE["blocks"]):
        shapes |= {f"blk.{i}.attn_{name}.weight": (rows, width) for name, rows in (("q", width), ("k", kv), ("v", kv))}
        shapes |= {f"blk.{i}.ffn_{name}.weight": (_SHAPE["inner"], width) for name in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down.weight": (width, _SHAPE["inner"]), f"blk.{i}.attn_output.weight": (width, width)}
        shapes |= {f"blk.{i}.{name}_norm.weight": (width,) for name in ("attn", "ffn")}
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        weights = (0.02 * generator.standard_normal(shape)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q4_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


if __name__ == "__main__":
    main()
