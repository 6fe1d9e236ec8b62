"""Make a model small enough to serve on any CPU: `python tiny_model.py DIRECTORY`, with the vLLM environment's Python.

A Qwen2 of 2 layers and about 100,000 random weights in four safetensors shards, so that vLLM prints its checkpoint
progress as for a real model, and a byte-level tokenizer with a one-line chat template. The same seed makes the same
bytes. The directory appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
SPECIAL_TOKENS = ("<|begin|>", "<|end|>", "<|pad|>")
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
SHARDS = 4


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint by its name in the Qwen2 layout."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (CONFIG["vocab_size"], hidden)}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for side in ("q", "k", "v"):
            shapes[f"{at}.self_attn.{side}_proj.weight"] = (hidden, hidden)
            shapes[f"{at}.self_attn.{side}_proj.bias"] = (hidden,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{at}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{at}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{at}.input_layernorm.weight"] = (hidden,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    return shapes


def write_weights(directory: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(20)
    names = list(weight_shapes())
    where: dict[str, str] = {}
    size = 0
    for shard in range(SHARDS):
        tensors = {}
        file = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        for name in names[shard::SHARDS]:
            shape = weight_shapes()[name]
            tensor = torch.ones(shape) if "norm" in name else torch.randn(shape, generator=generator) * 0.05
            tensors[name] = tensor.contiguous()
            where[name] = file
            size += tensor.numel() * tensor.element_size()
        save_file(tensors, directory / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin, end, pad = SPECIAL_TOKENS
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad, model_max_length=8192
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)


def make_model(directory: Path) -> None:
    """Write the model into `directory`, which is replaced if it exists."""
    unfinished = directory.with_name(f"{directory.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        (unfinished / "config.json").write_text(json.dumps(CONFIG, indent=1))
        write_weights(unfinished)
        write_tokenizer(unfinished)
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    make_model(Path(sys.argv[1]))
