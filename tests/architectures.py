"""A tiny random model of every causal language model that transformers knows, and what the package makes of each.

`python -m tests.architectures` prints the table of docs/models.md.
"""

import inspect
import sys
import warnings
from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tp_retrieval import UnsupportedModelError
from tp_retrieval.embedding.forward.forward import caches_prefix, check_causal
from tp_retrieval.embedding.model.backbone import Backbone

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
TABLE = Path(__file__).parents[1] / "docs" / "models.md"
VOCABULARY = 300

_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim", "dim_model"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "dense_intermediate_size"), 64),
    **dict.fromkeys(("intermediate_size_mlp", "decoder_ffn_dim", "encoder_ffn_dim", "dim_ff", "mamba_d_ssm"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("expert_ffn_hidden_size", "attention_hidden_size", "lru_width"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "mamba_n_heads", "n_mamba_heads", "mamba_num_heads", "num_ssm_heads"), 4),
    **dict.fromkeys(("encoder_layers",), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_key_value_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "index_topk"), 256),
    **dict.fromkeys(("head_dim", "dim_head", "d_kv", "qk_nope_head_dim", "v_head_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_headdim", "mamba_head_dim", "kv_lora_rank", "q_lora_rank", "block_size"), 16),
    **dict.fromkeys(("mamba_d_conv", "conv_kernel", "linear_conv_kernel_dim", "mamba_dt_rank", "time_step_rank"), 4),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim", "linear_num_value_heads"), 4),
    **dict.fromkeys(("mamba_expand", "expand", "linear_num_key_heads", "full_attention_interval", "index_n_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank"), 8),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups"), 1),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("sliding_window", "attention_window_size"), 12),
    **{"num_kv_shared_layers": 0, "altup_num_inputs": 2, "attention_chunk_size": 16, "partial_rotary_factor": 0.5},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    **{"initializer_range": 0.1, "use_mamba_kernels": False, "qk_head_dim": 12},
}
_LATENT = {"num_key_value_heads": 4, "head_dim": 4, "partial_rotary_factor": 1.0}
_OF_KIND = {
    **dict.fromkeys(
        ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"), _LATENT
    ),
    **dict.fromkeys(("longcat_flash", "minicpm3", "youtu", "dots3_note_text"), _LATENT),
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4, "window_size": 12},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "nemotron_h": {"hybrid_override_pattern": "M*M-", "n_groups": 1, "ssm_state_size": 8},
    **{kind: {"layer_types": ["conv", "full_attention"] * 2} for kind in ("lfm2", "lfm2_moe")},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": (16, 16),
        "axial_pos_embds_dim": (16, 16),
        "attention_head_size": 8,
        "feed_forward_size": 64,
        "attn_layers": ["local"] * 4,
        "local_attn_chunk_length": 8,
    },
}
_LARGEST = 20_000_000  # parameters


class NotBuiltError(Exception):
    """No tiny model of a kind can be built."""


def configuration(kind):
    """Return the smallest configuration of a kind that its known names allow."""
    return _small(CONFIG_MAPPING[kind], _OF_KIND.get(kind, {}))


def _small(config_class, values=()):
    names = set(inspect.signature(config_class.__init__).parameters) | set(getattr(config_class, "__annotations__", {}))
    names |= set(getattr(config_class, "__dataclass_fields__", {}))
    sizes = {name: value for name, value in _SIZES.items() if name in names}
    for name, part in (getattr(config_class, "sub_configs", None) or {}).items():
        kind = part if part.__name__ != "AutoConfig" else type(getattr(config_class(), name))
        if kind is not type(None):
            sizes[name] = _small(kind).to_dict()
    return config_class(**(sizes | dict(values)))


def model(kind):
    """Return a tiny random model of a kind; raise `NotBuiltError` if this installation can't build one."""
    transformers.logging.set_verbosity_error()
    try:
        config = configuration(kind)
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > _LARGEST:
            raise MemoryError(f"{size / 1e6:.0f} million parameters")
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    except Exception as error:
        raise NotBuiltError(f"{type(error).__name__}: {str(error).splitlines()[0][:80]}") from error


@cache
def tokenizer():
    """Return a tokenizer with a token for every byte and a BOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {letter: i for i, letter in enumerate(alphabet, 3)}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def outcome(given):
    """Return what the package makes of a model, in the words of the table."""
    try:
        backbone = Backbone.wrap(given, tokenizer())
        check_causal(backbone)
        cached = caches_prefix(backbone)
    except UnsupportedModelError as error:
        return f"refused: {str(error).partition(' ')[2]}"
    try:
        backbone.language_model()
    except UnsupportedModelError:
        return ("works" if cached else "works without prefix cache") + ", no reranking by likelihood"
    return "works" if cached else "works without prefix cache"


def recorded():
    """Return the outcome of each kind by the table of docs/models.md."""
    table = TABLE.read_text(encoding="utf-8").split("| kind | |\n")[1]
    rows = [line.strip("| \n").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {kind.strip("`"): said for kind, said in rows}


def main():
    warnings.filterwarnings("ignore")
    sys.stdout.write("| kind | |\n|---|---|\n")
    for kind in KINDS:
        try:
            said = outcome(model(kind))
        except NotBuiltError as error:
            said = f"not tried: {error}"
        sys.stdout.write(f"| `{kind}` | {said} |\n")


if __name__ == "__main__":
    main()
