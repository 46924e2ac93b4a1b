"""The token that a pretrained model wants before a text, as the post-processor of its tokenizer.json has it."""

from __future__ import annotations

import json
from typing import Any


def begin_of(content: str) -> int | None:
    """The id of the special token before a text ([CLS], <s>); None where the post-processor puts none there.

    Args:
        content: a tokenizer.json.
    """
    return _begin(json.loads(content).get("post_processor"))


def _begin(processor: Any) -> int | None:
    kind = processor.get("type") if isinstance(processor, dict) else None
    if kind == "Sequence":
        found = (_begin(part) for part in processor.get("processors", []))
        return next((token for token in found if token is not None), None)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return int(processor["cls"][1])
    if kind == "TemplateProcessing" and processor["single"]:
        first = processor["single"][0].get("SpecialToken")
        return None if first is None else int(processor["special_tokens"][first["id"]]["ids"][0])
    return None
