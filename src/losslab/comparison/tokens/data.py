"""Read the token scores of paired runs, and pack what the program of the page shows of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.comparison.tokens.groups import Differences
from losslab.comparison.tokens.text import END, visible
from losslab.errors import UserError
from losslab.metrics.token_scores import TokenScores

SHOWN = 1500
"""Tokens of text on the page, about: whole documents, where their end is no more than half of that away."""
_TOP = 5


@dataclass(frozen=True)
class Pairs:
    """Tokens on which all runs of both losses were scored, and their scores."""

    names: tuple[str, str]
    seeds: tuple[int, ...]
    runs: list[tuple[TokenScores, TokenScores]]
    """(A, B) of each seed."""

    @property
    def first(self) -> TokenScores:
        return self.runs[0][0]

    def nll(self, loss: int, count: int | None = None) -> NDArray[np.float64]:
        """[S, N], or of the first `count` targets."""
        return np.stack([pair[loss].nll[:count] for pair in self.runs]).astype(np.float64)

    def words(self) -> dict[int, str]:
        """Token → how it is shown, of all that occur in any run."""
        found: dict[int, str] = {}
        for pair in self.runs:
            for scores in pair:
                for token, text in zip(scores.vocabulary.tolist(), scores.texts, strict=True):
                    found[token] = END if token == scores.end else visible(text)
        return found


def read_pairs(pairs: Sequence[tuple[Path, Path]], names: tuple[str, str], seeds: tuple[int, ...]) -> Pairs:
    """The scores of each seed. Raises UserError where a file is damaged, or the runs do not belong together."""
    if not pairs:
        raise UserError(f"{names[0]} and {names[1]} have no seed in common: there is nothing to compare")
    found = Pairs(names, seeds, [(TokenScores.read(a), TokenScores.read(b)) for a, b in pairs])
    for paths, scores in zip(pairs, found.runs, strict=True):
        for path, own in zip(paths, scores, strict=True):
            for name in ("tokens", "documents", "position"):
                if not np.array_equal(getattr(own, name), getattr(found.first, name)):
                    raise UserError(f"{path} and {pairs[0][0]} are not of the same test tokens (their {name} differ)")
            if (own.layer, own.attention.shape) != (found.first.layer, found.first.attention.shape):
                raise UserError(
                    f"{path} and {pairs[0][0]} hold the attention of different layers or models: choose runs of one "
                    "model, and one --layer"
                )
    return found


def count_shown(scores: TokenScores) -> tuple[int, bool]:
    """The number of targets that the page shows, and whether that cuts the last document."""
    ends = scores.documents.cumsum() - 1
    near = ends[np.abs(ends - SHOWN) <= SHOWN // 2]
    count = int(near[np.abs(near - SHOWN).argmin()]) if len(near) else min(SHOWN, len(scores.nll))
    return count, count not in ends


def pack(runs: Pairs, found: Differences, count: int) -> str:
    """Pack the data of the page's program as JSON that can stand inside a script element."""
    first = runs.first
    words = runs.words()
    tops = [[_mean_top(runs, loss, i) for i in range(count)] for loss in (0, 1)]
    targets = first.tokens[1 : count + 1].tolist()
    window = first.tokens[: len(first.attention[0])].tolist()
    used = sorted({*targets, *window, *(token for top in tops for row in top for token, _, _ in row)})
    place = {token: k for k, token in enumerate(used)}
    means = [runs.nll(loss, count).mean(axis=0) for loss in (0, 1)]
    content: dict[str, Any] = {
        "names": runs.names,
        "words": [words[token] for token in used],
        "target": [place[token] for token in targets],
        "position": first.position[:count].tolist(),
        "train": first.train_counts[first.rows(first.tokens[1 : count + 1])].tolist(),
        "nll": [_rounded(values) for values in means],
        "mean": _rounded(found.mean),
        "interval": [_rounded(found.low), _rounded(found.high)] if len(runs.seeds) > 1 else None,
        "state": found.state.tolist(),
        "says": ["may be chance", "its interval leaves 0 out, but it does not survive", "survives"]
        if len(runs.seeds) > 1
        else ["one seed cannot say whether this is chance"],
        "top": [[[[place[token], p, whole] for token, p, whole in row] for row in top] for top in tops],
        "window": [place[token] for token in window],
        "heads": len(first.attention),
        "attention": [_packed(scores.attention) for scores in runs.runs[0]],
    }
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _mean_top(runs: Pairs, loss: int, i: int) -> list[tuple[int, float, int]]:
    """(token, its probability, mean over seeds, whether that is known of every seed), likeliest first.

    A run keeps its five likeliest tokens only: elsewhere a probability counts as 0, and the mean is a lower bound.
    """
    found: dict[int, list[float]] = {}
    for pair in runs.runs:
        for token, p in zip(pair[loss].top_tokens[i].tolist(), pair[loss].top_probabilities[i].tolist(), strict=True):
            found.setdefault(token, []).append(p)
    n = len(runs.runs)
    means = [(token, round(sum(p) / n, 4), int(len(p) == n)) for token, p in found.items()]
    return sorted(means, key=lambda row: (-row[1], row[0]))[:_TOP]


def _packed(attention: NDArray[np.float16]) -> str:
    """[H, P, P] → Base64 of bytes 255 · √weight: each head's lower triangle, row after row."""
    rows, columns = np.tril_indices(attention.shape[-1])
    triangles = attention[:, rows, columns].astype(np.float64)
    return base64.b64encode(np.rint(255 * np.sqrt(triangles)).astype(np.uint8).tobytes()).decode()


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
