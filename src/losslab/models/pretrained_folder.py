"""The folder of a pretrained model of transformers: settings and tokenizer, read without running code out of it."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from losslab.errors import UserError

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
SAFE, PICKLED = "model*.safetensors", "pytorch_model*.bin"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_OF_OTHERS = frozenset(
    "architectures auto_map dtype torch_dtype transformers_version gradient_checkpointing use_cache id2label "
    "task_specific_params label2id problem_type quantization_config output_attentions output_hidden_states "
    "return_dict".split()
)
"""Keys of config.json that change nothing that a backbone computes, or that losslab decides or refuses."""


def need(package: str, why: str) -> Any:
    """Import a package of the extra `hf`.

    Raises:
        UserError: where it is missing.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UserError(f"{why} needs the package {package}: pip install 'losslab[hf]'") from None


def find_folder(name: str) -> tuple[Path, bool]:
    """The folder of a model, and whether the name was a path.

    Args:
        name: the path of a folder, or the name of a model on the hub of Hugging Face, whose files come from its cache,
            or else from the network.

    Raises:
        UserError: where there is neither.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.absolute(), True
    if path.exists() or not _HUB_NAME.fullmatch(name):
        raise UserError(
            f"model.name={name} is no folder: give the folder of a model of transformers ({CONFIG} and weights), or "
            "its name on the hub"
        )
    return _from_hub(name), False


def _from_hub(name: str) -> Path:
    hub = need("huggingface_hub", f"model.name={name}")
    small = [CONFIG, TOKENIZER]

    def fetch(*patterns: str, cached: bool) -> Path:
        found = hub.snapshot_download(name, allow_patterns=[*small, *patterns], local_files_only=cached)
        return Path(found)

    with quiet():
        try:
            folder = fetch(SAFE, f"{SAFE}.index.json", cached=True)
            if (folder / CONFIG).is_file() and weight_files(folder):
                return folder
        except Exception:  # nothing is cached: the library says so with errors of several kinds
            pass
        try:
            folder = fetch(SAFE, f"{SAFE}.index.json", cached=False)
            return folder if weight_files(folder) else fetch(PICKLED, f"{PICKLED}.index.json", cached=False)
        except Exception as error:  # no network, no such model, no right to read it, a full disk
            told = next(filter(None, map(str.strip, str(error).splitlines())), "")
            raise UserError(
                f"model.name={name} is no folder here, and the hub gave no model of that name "
                f"({type(error).__name__}: {told:.100}): download it where there is a network, and give its folder"
            ) from None


def weight_files(folder: Path) -> list[Path]:
    """Files of weights: those of safetensors, or else those of torch."""
    return sorted(folder.glob(SAFE)) or sorted(folder.glob(PICKLED))


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a config.json that decides what the model computes.

    Raises:
        UserError: where it is none of transformers', or names code or weights that losslab does not read.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "adapters of peft alone: merge them into their model first" if _is_adapter(folder) else f"no {CONFIG}"
        raise UserError(f"model.name={folder} is no folder of a model of transformers: it has {what}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        hint = "; weights of a losslab run are taken with init_from" if "losslab" in str(content)[:200] else ""
        raise UserError(f"{path} names no model_type: it is no model of transformers{hint}")
    if content.get("auto_map"):
        raise UserError(
            f"{path} names code of its own (auto_map), and losslab runs no code out of a model's folder: choose one "
            "that transformers itself has"
        )
    if content.get("quantization_config"):
        raise UserError(f"{path} is of quantized weights (quantization_config), which cannot be trained: give others")
    kept: dict[str, Any] = cleaned(content)
    if strangers := [key for key in _keys(kept) if key.startswith("_") and key.endswith("_")]:
        raise UserError(f"{path} holds the key {strangers[0]}, which no model of transformers has")
    return kept


def cleaned(content: Any) -> Any:
    """The content of a config.json without keys that change nothing that a backbone computes, or that choose code: an
    `attn_implementation` may name kernels on the hub."""
    if isinstance(content, list):
        return [cleaned(value) for value in content]
    if not isinstance(content, dict):
        return content
    return {
        key: cleaned(value)
        for key, value in content.items()
        if key not in _OF_OTHERS and not key.endswith("_implementation") and not (key[:1] == "_" and key[-1:] != "_")
    }


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from _keys(value)


def tokenizer_file(folder: Path) -> Path:
    """Its tokenizer.json. Raises UserError where there is none."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise UserError(
            f"data.tokenizer=pretrained: {folder} has no {TOKENIZER}; transformers writes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return path


def count_tokens(folder: Path) -> int | None:
    """The number of ids of its tokenizer.json; None without a file that can be read."""
    from tokenizers import Tokenizer

    try:
        vocabulary = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab(with_added_tokens=True)
    except Exception:  # the library raises nothing narrower; whoever reads its texts names the fault
        return None
    return max(vocabulary.values(), default=-1) + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out bars and warnings of transformers, peft and the hub: what matters in them is checked and said here."""
    names = ("transformers", "huggingface_hub", "peft")
    levels = {name: logging.getLogger(name).level for name in names}
    bars = import_module("transformers").utils.logging if _there("transformers") else None
    shown = bars.is_progress_bar_enabled() if bars is not None else False
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if bars is not None:
            bars.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars is not None and shown:
            bars.enable_progress_bar()


def _there(package: str) -> bool:
    try:
        import_module(package)
    except ModuleNotFoundError:
        return False
    return True
