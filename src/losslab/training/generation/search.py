"""Greedy and beam search for many inputs at once, over a function that predicts the next token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from losslab.errors import UserError


class Step(Protocol):
    """Predictions of the next token, for hypotheses that grow by one token a call."""

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Log-probabilities float [N, V] of the token after each hypothesis.

        Args:
            tokens: int64 [N], the last token of each.
            rows: int64 [N], the row of the call before that each continues; at the first call the number of its input.
                A row may be continued several times, or not at all.
        """
        ...


class Hypothesis(NamedTuple):
    """One output of a search."""

    tokens: list[int]
    """Without the begin and end tokens."""
    score: float
    """log p / n^length_penalty, where n counts the tokens and the end token."""
    log_prob: float
    """log p: the sum over the tokens, and over the end token where there is one."""
    ended: bool
    """False: cut at the longest length."""


@torch.no_grad()
def search(
    step: Step,
    begin: Tensor,
    end: int,
    *,
    longest: Tensor,
    beams: int = 1,
    length_penalty: float = 1.0,
    nbest: int = 1,
    exact: bool = True,
    agree: Callable[[bool], bool] = lambda more: more,
) -> list[list[Hypothesis]]:
    """The `nbest` hypotheses of each input, best first. No input's hypotheses depend on the other inputs.

    A hypothesis of n tokens, the end token included, scores log p / n^α. This is the length penalty of fairseq and of
    Hugging Face's `generate`, not ((5 + n) / 6)^α of Wu et al. 2016 (arXiv:1609.08144). At each step the 2k best
    continuations of an input's k running hypotheses are looked at: those of the first k that end are finished, and the
    first k that do not end run on. At the longest length all of the first k are finished.

    An input is done when its running hypotheses can no longer change the result. With one beam that is the first end
    token: greedy search.

    Args:
        begin: int64 [B], the token before the first of each input.
        longest: int64 [B], 1 or above: the most tokens of each output, the end token included.
        beams: k, 1 or above.
        length_penalty: α. Above 0 it favours long outputs; 0 compares log p.
        exact: whether an input is done only when no running hypothesis can reach the `nbest` best ones, however likely
            its further tokens are (`early_stopping="never"` of Hugging Face's generate). False: as soon as there are k
            finished hypotheses, and the best running one scores no more than the worst of them at its present length
            (`early_stopping=False`). Both are the same where α is at most 0 and nbest is k.
        agree: called before each step with whether there is more to do; the step is made where it returns True. For
            ranks that must make the same number of steps.

    Raises:
        UserError: for settings out of range, and where predictions are not finite.
    """
    if beams < 1:
        raise UserError(f"beams must be 1 or more, not {beams}")
    if not 1 <= nbest <= beams:
        raise UserError(f"nbest must be from 1 to beams={beams}, not {nbest}")
    if len(longest) and int(longest.min()) < 1:
        raise UserError("the longest output must have room for 1 token or more")
    found: list[list[Hypothesis]] = [[]] * len(begin)
    running = _Running(begin, longest, beams)
    while agree(len(running.inputs) > 0):
        log_probs = step(running.tokens, running.rows)
        if not len(running.inputs):
            continue
        running.grow(log_probs, end, length_penalty)
        done = running.done(length_penalty, nbest, exact=exact)
        for place in done.nonzero().flatten().tolist():
            found[int(running.inputs[place])] = running.finished(place, nbest, end)
        running.keep((~done).nonzero().flatten())
    return found


class _Running:
    """The hypotheses of the A inputs that are not done: R that run, R at most k, and the k best finished ones.

    `tokens` and `rows` are the arguments of the next step.
    """

    def __init__(self, begin: Tensor, longest: Tensor, beams: int) -> None:
        device, count = begin.device, len(begin)
        self.beams = beams
        self.tokens, self.rows = begin, torch.arange(count, device=device)
        self.inputs = self.rows
        """int64 [A]: their numbers."""
        self.longest = longest.to(device)
        """int64 [A]."""
        self.length = 0
        """n, tokens of each running hypothesis."""
        self.totals = torch.zeros(count, 1, device=device)
        """[A, R]: log p, best first; −∞ of one that cannot be."""
        self.history = begin.new_empty(count, 1, 0)
        """int64 [A, R, n]."""
        self.scores = torch.full((count, beams), -torch.inf, device=device)
        """[A, k]: of the finished ones, best first; −∞ where there are fewer."""
        self.sums = self.scores
        """[A, k]: log p of the finished ones."""
        self.texts = begin.new_empty(count, beams, 0)
        """int64 [A, k, n]: the finished ones, filled up with −1."""

    def grow(self, log_probs: Tensor, end: int, length_penalty: float) -> None:
        """Continue each running hypothesis by one token. log_probs: [A · R, V]."""
        count, beams = self.totals.shape
        vocab_size = log_probs.shape[-1]
        every = (self.totals[:, :, None] + log_probs.view(count, beams, vocab_size)).flatten(1)
        best, place = every.topk(min(2 * self.beams, every.shape[1]))
        parents, token = place // vocab_size, place % vocab_size
        texts = torch.cat([_rows(self.history, parents), token[:, :, None]], dim=2)
        self.length += 1
        leaves = (token == end) | (self.length >= self.longest)[:, None]
        self._finish(best[:, : self.beams], leaves[:, : self.beams], texts[:, : self.beams], length_penalty)
        self.totals, order = best.masked_fill(leaves, -torch.inf).topk(min(self.beams, best.shape[1]))
        self.history = _rows(texts, order)
        before = torch.arange(count, device=place.device)[:, None] * beams
        self.rows = (before + parents.gather(1, order)).flatten()
        self.tokens = self.history[:, :, -1].flatten()

    def _finish(self, sums: Tensor, leaves: Tensor, texts: Tensor, length_penalty: float) -> None:
        """Take in those that leave, and keep the k best. NaN and −∞ are no hypotheses."""
        sums = sums.masked_fill(~(leaves & sums.isfinite()), -torch.inf)
        scores = torch.cat([self.scores, sums / self.length**length_penalty], dim=1)
        self.scores, order = scores.topk(self.beams)
        self.sums = torch.cat([self.sums, sums], dim=1).gather(1, order)
        self.texts = _rows(torch.cat([F.pad(self.texts, (0, 1), value=-1), texts], dim=1), order)

    def done(self, length_penalty: float, nbest: int, *, exact: bool) -> Tensor:
        """bool [A]: whether no running hypothesis changes the result."""
        if self.beams == 1:
            return self.scores[:, 0].isfinite() | ~self.totals[:, 0].isfinite()
        length = self.longest if exact and length_penalty > 0 else torch.full_like(self.longest, self.length)
        most = self.totals[:, 0] / length.to(self.totals.dtype) ** length_penalty
        return (most <= self.scores[:, nbest - 1 if exact else -1]) | ~self.totals[:, 0].isfinite()

    def finished(self, place: int, nbest: int, end: int) -> list[Hypothesis]:
        """The best finished hypotheses of one input, by its place among the A."""
        found = []
        values = (part[place, :nbest].tolist() for part in (self.scores, self.sums, self.texts))
        for score, log_prob, text in zip(*values, strict=True):
            if score == -torch.inf:
                break
            tokens = [token for token in text if token >= 0]
            ended = tokens[-1] == end
            found.append(Hypothesis(tokens[:-1] if ended else tokens, score, log_prob, ended))
        if not found:
            raise UserError("nothing can be written: the predictions of the next token are not finite numbers")
        return found

    def keep(self, places: Tensor) -> None:
        """Go on with these of the A inputs alone."""
        if len(places) == len(self.inputs):
            return
        beams = self.totals.shape[1]
        rows = (places[:, None] * beams + torch.arange(beams, device=places.device)).flatten()
        if len(rows):
            self.tokens, self.rows = self.tokens[rows], self.rows[rows]
        else:  # steps that are made for other ranks alone
            self.tokens, self.rows = self.tokens[:1], torch.zeros_like(self.rows[:1])
        for name in ("inputs", "longest", "totals", "history", "scores", "sums", "texts"):
            setattr(self, name, getattr(self, name)[places])


def _rows(values: Tensor, places: Tensor) -> Tensor:
    """values [A, R, n] at places [A, R'] → [A, R', n]."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))
