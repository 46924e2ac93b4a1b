"""Folders of tiny models of transformers with random weights, each with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from losslab.models.pretrained_folder import quiet

LONGEST = 48


def save_bert(folder: Path, *, body_only: bool = False, **settings: Any) -> Path:
    """BERT of 59 tokens that begin with [CLS]."""
    from transformers import BertConfig, BertForMaskedLM, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(words[:5])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LONGEST, **settings,
    )  # fmt: skip
    return _save((BertModel if body_only else BertForMaskedLM)(config), tokenizer, folder)


def save_gpt2(folder: Path, **settings: Any) -> Path:
    """GPT-2 of bytes, its projection tied to the embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=257, n_embd=16, n_layer=2, n_head=2, n_positions=LONGEST, bos_token_id=256, eos_token_id=256,
        **settings,
    )  # fmt: skip
    return _save(GPT2LMHeadModel(config), _bytes(), folder)


def save_llama(folder: Path, **settings: Any) -> Path:
    """Llama of bytes, whose vocabulary has rows that stand for no token, and whose projection is its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=264, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LONGEST, **settings,
    )  # fmt: skip
    return _save(LlamaForCausalLM(config), _bytes(), folder)


def _bytes() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def _save(model: Any, tokenizer: Tokenizer, folder: Path) -> Path:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad(), quiet():
        for parameter in model.parameters():  # biases begin at 0, which hides them
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=noise))
        model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
