"""Facts of the data that a checkpoint or an export holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from losslab.contracts import DataInfo
from losslab.data.tokenizer import FileTokenizer, artifacts_of, restore_tokenizer
from losslab.errors import UserError

TOKENIZER = "tokenizer.json"
"""The file of an export."""


def stored_info(content: dict[str, Any]) -> DataInfo | None:
    """Facts of the data in a checkpoint's content; older ones have a vocabulary and a tokenizer instead.

    Raises:
        UserError: where it holds something else.
    """
    try:
        if "data" in content:
            return DataInfo.restored(content["data"])
        if "vocab_size" not in content or "tokenizer" not in content:
            return None
        artifacts = artifacts_of(restore_tokenizer(content["tokenizer"]))
        return DataInfo(splits={}, mean_positions=1, vocab_size=content["vocab_size"], artifacts=artifacts)
    except (TypeError, KeyError) as error:
        raise UserError(f"a checkpoint holds no sizes of its data ({error}): it is damaged") from None


def exported_info(folder: Path, about: dict[str, Any]) -> DataInfo:
    """Raises one of the errors of a damaged file."""
    if "data" not in about:  # format 1 had tokens alone
        content = None if about["bytes"] else FileTokenizer.read(str(folder / TOKENIZER)).content
        artifacts = artifacts_of(restore_tokenizer(content))
        return DataInfo(splits={}, mean_positions=1, vocab_size=about["vocab_size"], artifacts=artifacts)
    files = {
        name: (folder / name).read_text(encoding="utf-8") for name in about["artifacts"] if name not in about["empty"]
    }
    return DataInfo.restored({**about["data"], "artifacts": files | dict.fromkeys(about["empty"], "")})
