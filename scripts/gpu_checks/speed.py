"""Tokens a second and model FLOPs utilisation of a GPT-2-sized decoder, beside a plain PyTorch loop."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from gpu_checks.tools import Sizes, Table, losslab, write_text
from losslab.models.decoder import Decoder
from losslab.records import read

LARGEST = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""bf16 FLOP a second without sparsity, from the vendor's data sheets (SXM where there are several)."""
_WARM = 5


def throughput(sizes: Sizes) -> list[Table]:
    """The same model, batch and precision (bf16-mixed), eager and compiled."""
    peak = _product_speed(sizes)
    sheet = next((flops for name, flops in LARGEST.items() if name in _name(sizes)), None)
    table = Table(["loop", "tokens/s", "of the plain loop", "of a bf16 product here", "of the data sheet"])
    modes = ["eager", "compiled"] if sizes.device == "cuda" else ["eager"]
    for mode in modes:
        plain, flops = _plain(sizes, compiled=mode == "compiled")
        ours = _ours(sizes, compiled=mode == "compiled")
        for name, speed in {f"plain PyTorch, {mode}": plain, f"losslab, {mode}": ours}.items():
            used = speed * flops
            table.rows.append([name, speed, speed / plain, used / peak, "–" if sheet is None else used / sheet])
    table.note = (
        f"{sizes.batch_size} × {sizes.context} tokens a step, {sizes.vocab_size:,} outputs, AdamW, {sizes.steps} "
        "steps; model FLOPs are 6 for each weight that multiplies and the causal half of attention; a square bf16 "
        f"product ran at {peak / 1e12:.1f} TFLOP/s here. losslab clips and logs; the plain loop clips."
    )
    return [table]


def _name(sizes: Sizes) -> str:
    return torch.cuda.get_device_name() if sizes.device == "cuda" else "CPU"


def _product_speed(sizes: Sizes) -> float:
    size = 8192 if sizes.device == "cuda" else 512
    a, b = (torch.randn(size, size, device=sizes.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: a @ b, 10, sizes.device)


def _seconds(work: object, times: int, device: str) -> float:
    """Seconds of one call, after three to warm up."""
    assert callable(work)
    for _ in range(3):
        work()
    _synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    _synchronize(device)
    return (time.perf_counter() - began) / times


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _plain(sizes: Sizes, *, compiled: bool) -> tuple[float, int]:
    """Tokens a second of the loop that one would write by hand, and the model's FLOPs a token."""
    settings = dict(option.removeprefix("model.").split("=") for option in sizes.model)
    model = Decoder(
        **{key: int(value) for key, value in settings.items()},  # type: ignore[arg-type]
        context=sizes.context,
        vocab_size=sizes.vocab_size,
    ).to(sizes.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    forward = torch.compile(model) if compiled else model
    tokens = torch.randint(sizes.vocab_size, (sizes.batch_size, sizes.context + 1), device=sizes.device)

    def step() -> None:
        with torch.autocast(sizes.device, dtype=torch.bfloat16):
            logits = F.linear(forward({"tokens": tokens[:, :-1]}), model.embedding.weight)
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = _seconds(step, sizes.steps - _WARM, sizes.device)
    flops = model.flops_per_sample() // sizes.context + 6 * model.embedding.weight.numel()
    return sizes.batch_size * sizes.context / seconds, flops


def _ours(sizes: Sizes, *, compiled: bool) -> float:
    """Tokens a second of `losslab train`, from the record."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        needed = (sizes.steps + 4) * sizes.batch_size * sizes.context
        write_text(folder / "book.txt", words=min(needed, 1_500_000), vocabulary=sizes.vocab_size - 2)
        _write_tokenizer(folder / "tokenizer.json", sizes.vocab_size)
        losslab(
            "train",
            "data=text",
            "data.path=book.txt",
            "data.tokenizer=tokenizer.json",
            f"data.batch_size={sizes.batch_size}",
            f"model.context={sizes.context}",
            *sizes.model,
            "trainer.precision=bf16-mixed",
            f"trainer.max_steps={sizes.steps}",
            f"trainer.val_check_interval={sizes.steps}",
            f"trainer.compile={str(compiled).lower()}",
            *sizes.trainer,
            cwd=folder,
        )
        (found,) = (folder / "outputs/runs").glob("*/run.json")
        return float(read(found.parent).throughput["tokens_per_second"])


def _write_tokenizer(path: Path, size: int) -> None:
    """A word for each of `size` tokens: a vocabulary as large as wanted, without the time to train one."""
    vocabulary = {"<unk>": 0, "<|endoftext|>": 1} | {f"w{i}": i + 2 for i in range(size - 2)}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 1,
                "content": "<|endoftext|>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
