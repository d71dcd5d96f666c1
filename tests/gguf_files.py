"""Tiny GGUF files of random weights, with a vocabulary of bytes."""

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

WIDTH, INNER, BLOCKS, HEADS, KV_HEADS = 64, 128, 3, 4, 2
EXPERT = 768  # the inner size of an expert: transformers reads none from a file of Qwen 3


def write(file, architecture, *, experts=0, tied=True, quantized=True, files=1, seed=0):
    """Write a model of an architecture of llama.cpp; return the file."""
    writer = gguf.GGUFWriter(file, architecture)
    for name, value in {
        "context_length": 512,
        "embedding_length": WIDTH,
        "block_count": BLOCKS,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": head_size(architecture),
        "attention.value_length": head_size(architecture),
        "rope.dimension_count": head_size(architecture),
    }.items():
        writer.add_uint32(f"{architecture}.{name}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{architecture}.rope.freq_base", 10000.0)
    if files > 1:
        writer.add_uint16("split.count", files)
    if experts:
        writer.add_uint32(f"{architecture}.expert_count", experts)
        writer.add_uint32(f"{architecture}.expert_used_count", 2)
    tokens = ["<s>", "</s>", *sorted(ByteLevel.alphabet()), "Ġt", "he"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["Ġ t", "h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    generator = np.random.default_rng(seed)
    for name, shape in shapes(architecture, len(tokens), experts, tied).items():
        kind = gguf.GGMLQuantizationType.Q8_0 if quantized and len(shape) > 1 else gguf.GGMLQuantizationType.F32
        weights = generator.standard_normal(shape).astype(np.float32) * 0.2 + (1 if "norm" in name else 0)
        writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def head_size(architecture):
    """Return the size of a head: transformers reads none from a file of Qwen 3, and takes 128."""
    return 128 if architecture.startswith("qwen3") else WIDTH // HEADS


def shapes(architecture, vocabulary, experts, tied):
    """Return the shapes of a model's weights by their names in the file."""
    head = head_size(architecture)
    found = {"token_embd.weight": (vocabulary, WIDTH), "output_norm.weight": (WIDTH,)}
    if not tied:
        found["output.weight"] = (vocabulary, WIDTH)
    for i in range(BLOCKS):
        of_block = {
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
            "attn_q": (HEADS * head, WIDTH),
            "attn_k": (KV_HEADS * head, WIDTH),
            "attn_v": (KV_HEADS * head, WIDTH),
            "attn_output": (WIDTH, HEADS * head),
        }
        if "3" in architecture:
            of_block |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
        if architecture.startswith("gemma"):
            of_block |= {"post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
        if experts:
            of_block |= {f"ffn_{name}_exps": (experts, EXPERT, WIDTH) for name in ("gate", "up")}
            of_block |= {"ffn_down_exps": (experts, WIDTH, EXPERT), "ffn_gate_inp": (experts, WIDTH)}
        else:
            of_block |= {f"ffn_{name}": (INNER, WIDTH) for name in ("gate", "up")}
            of_block |= {"ffn_down": (WIDTH, INNER)}
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in of_block.items()}
    return found
