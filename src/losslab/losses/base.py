"""The contract of a final loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from losslab.contracts import Features, LossSum, OutputSpec, Projection, TargetKind, Values
from losslab.errors import UserError
from losslab.losses.chunked_gradients import run_features, run_logits, run_softmax, sum_scores
from losslab.losses.softmax_stats import SoftmaxStats


class Loss(nn.Module):
    """A final loss: from hidden states and the output projection to sums.

    The author of an ordinary loss writes one of these, and inherits chunked execution, masking and precision:
        `from_log_prob`: a function of log p_y alone; the quickest.
        `from_statistics`: of z_y, logsumexp z and a linear function of z; as quick.
        `position_loss`: any function of a position's logits and target.
        `from_logits`: of its extras, too.
        `values`: of hidden states and weights.
    A sampled or logit-free loss overrides `forward` and reads `projection.weight`; nothing outside asks which kind it
    is.

    Constructors are keyword-only and typed: the signature is the schema of the yaml in conf/loss.
    """

    target_kind: TargetKind = TargetKind.CLASSES
    cost_class: str = "F3"
    """The part of the logits that it needs, F1 (z_y and logsumexp) … F6 (a sampled subset); F3 is any sum over them."""
    position_wise: bool = True
    """No position's loss depends on another position; else it sees the whole batch at once, and all its logits."""
    per_class: bool = False
    """It has something for each class, such as a weight, a frequency or a vector, so that every position must have the
    same classes: a task whose classes are the places of a sample (`Task.points`) refuses it."""
    shift_invariant: bool = False
    """Adding a constant to all logits of a position changes nothing."""
    is_proper: bool = False
    """The expected loss is smallest where the prediction is the data's distribution."""
    has_detached: bool = False
    """Part of the formula is meant to have no gradient, so that the gradient is not that of the value."""
    exact_products: bool = False
    """Its products are float32 whatever the precision is."""
    temperature: float = 1.0
    """The divisor of the logits in the statistics and their softmax."""
    terms: tuple[str, ...] = ()
    """Parts to be logged apart: the author's function then returns them by name, and the loss is their sum."""
    forward_sums_scores: bool = True
    """A class that overrides `forward` says True in its own body where `forward` only is a quicker way to the sum of
    `from_logits` over `scores`; else an evaluation calls it, beside the scores that it makes for the predictions."""
    needs: Mapping[str, int] = MappingProxyType({})
    """Entries of `features.extras` that it reads beyond those of the data, by name, with a size: `previous`: how many
    of the tokens up to each position; `next`: how many of the targets of the positions after it. A task that does not
    provide it is refused before any data is read."""

    reads_step: bool = False
    """Whether it needs the targets and weights of all positions of an optimizer step before that step; see
    `prepare_step`."""

    agrees: bool = True
    """`predict_log_probs` is finite, has a gradient, and stays the same function whatever an evaluation fits: two
    predictions of a position can be drawn towards each other (R-Drop)."""

    draws: bool = False
    """It draws at random in training; see `draw`."""
    trains_otherwise: bool = False
    """In training it computes what an evaluation cannot, or should not, such as a sum over some classes drawn at random
    or a comparison of the positions of a batch; `forward` looks at `self.training`, and val/objective is another."""

    reads_teacher: bool = False
    """It learns from a trained run: `teacher` names its folder, `features.extras["teacher_hidden"]` [N, D'] holds that
    run's hidden states, and `teacher_log_probs` turns those into its predictions [N, V]."""
    levels: tuple[float, ...] = ()
    """The quantiles that it predicts and no others, as rising numbers in (0, 1); empty: none, or any."""
    teacher: str | None = None
    teacher_log_probs: Callable[[Tensor], Tensor] | None = None

    def bind(self, spec: OutputSpec) -> None:
        """Receive the sizes, once they are known; create parameters here. The default needs nothing."""

    def num_outputs(self, size: int) -> int:
        """The number of outputs of the projection, for `size` classes, or values a position. Default: as many."""
        return size

    def further_flops(self, num_outputs: int, width: int) -> int:
        """Floating-point operations of a position in training, forward and backward, beside those of the one product of
        a hidden state [D] with the projection [V, D]. Default: none worth counting."""
        return 0

    def num_classes(self, num_outputs: int) -> int:
        """The number of classes that a projection of `num_outputs` rows serves, once the loss is bound: V, the width of
        `scores`. Default: as many."""
        return num_outputs

    def teach(self, log_probs: Callable[[Tensor], Tensor]) -> None:
        """Receive what turns a teacher's hidden states [N, D'] into its predictions [N, V]."""
        self.teacher_log_probs = log_probs

    def prepare_step(self, target: Tensor, weight: Tensor) -> None:
        """Receive target [N] and weight [N] of the next optimizer step's positions, of every micro-batch and rank."""

    def begin_step(self, step: int, max_steps: int) -> None:
        """Receive the number of the next optimizer step, from 0, of so many in all, for a loss that changes over
        training. It comes before the first micro-batch, and holds for all of them and on every rank."""

    def draw(self, generator: torch.Generator) -> None:
        """Receive the stream of the next optimizer step, a pure function of seed and step. It comes before the first
        micro-batch, and what is drawn from it holds for all of them and on every rank."""

    def from_log_prob(self, log_prob: Tensor) -> Values:
        """The loss [N] of positions whose target has log-probability `log_prob` [N] under softmax."""
        raise UserError(f"{type(self).__name__} says nowhere what it computes: give it position_loss or from_log_prob")

    def from_statistics(self, statistics: SoftmaxStats) -> Values:
        """The loss [N] of positions with these statistics of their logits, each [N]."""
        return self.from_log_prob(statistics.log_prob)

    def linear_weights(self, num_outputs: int) -> Tensor | None:
        """u, float64 [V], of `SoftmaxStats.linear`, u · z; None where the loss does not use it."""
        return None

    def position_loss(self, logits: Tensor, target: Tensor) -> Values:
        """The loss of each position, unreduced. Default: from its statistics.

        Args:
            logits: float32 [N, V].
            target: [N] classes (or what `target_kind` says).

        Returns:
            float32 [N].
        """
        logits = logits if self.temperature == 1 else logits / self.temperature
        return self.from_statistics(SoftmaxStats.of(logits, target, self.linear_weights(logits.shape[-1])))

    def from_logits(self, logits: Tensor, features: Features) -> Values:
        """The loss [N] of positions, from their logits [N, V] and all that `features` hold. Default: from targets."""
        return self.position_loss(logits, features.target)

    def values(self, features: Features, projection: Projection) -> Values:
        """The loss [N] of positions, from hidden states and weights. Default: from their scores."""
        return self.from_logits(self.scores(features.hidden, projection), features)

    def select(self, features: Features) -> Features:
        """The positions that count, and how much: a loss that ignores more than the data does sets weights to 0."""
        return features

    def adapt(self, hidden: Tensor, projection: Projection) -> tuple[Tensor, Projection]:
        """The factors of the product. Default: hidden states [N, D] and projection as they are."""
        return hidden, projection

    def map_logits(self, logits: Tensor) -> Tensor:
        """Transform the product [N, V] before anything else reads it: a soft-cap, a distance."""
        return logits

    def position_weight(self, features: Features) -> Tensor | None:
        """[N]: each position's share in the denominator, on top of `features.weight`; None is 1."""
        return None

    def forward(self, features: Features, projection: Projection) -> LossSum:
        """Σ weight · position loss over the positions with weight, and Σ weight; float32 scalars.

        All-ignored gives 0 with zero, graph-connected gradients.

        Raises:
            UserError: for targets of another kind or out of range.
        """
        return _WAYS[self.written_as()](self, features, projection)

    def from_scores(
        self, features: Features, projection: Projection, logits: Tensor, logsumexp: Tensor | None
    ) -> LossSum | None:
        """The sums of `forward`, without a gradient, where `scores` have been made; None where only `forward` can say.

        Args:
            features: N positions with weight.
            logits: float32 [N, V], their `scores`.
            logsumexp: float32 [N], of logits · `softmax_factor`; None where there is no factor.
        """
        if not self.sums_scores() or self.written_as() == "values":
            return None
        return sum_scores(self, features, logits, logsumexp)

    def sums_scores(self) -> bool:
        """Whether `forward`, of whichever class, is the sum of what its functions say of each position."""
        owner = next(base for base in type(self).__mro__ if "forward" in vars(base))
        return bool(vars(owner).get("forward_sums_scores", False)) and self.position_wise

    def written_as(self) -> str:
        """The name of the author's function that defines the loss: of the most derived class, the first in the list."""
        kind = type(self)
        if kind.values is not Loss.values or kind.scores is not Loss.scores:
            return "values"
        way = next(name for base in kind.__mro__ for name in _WAYS if name in vars(base))
        if _WAYS[way] is run_softmax and kind.map_logits is not Loss.map_logits:
            return "position_loss"
        return way

    def scores(self, hidden: Tensor, projection: Projection) -> Tensor:
        """Scores from which the predictions are made: float32 [N, V]."""
        hidden, projection = self.adapt(hidden, projection)
        return self.map_logits(projection(hidden.to(projection.weight.dtype)).float())

    def calibrate(self, scale: float) -> None:
        """Receive the scale s that nll_scaled fitted; a loss whose scores are no log-probabilities predicts with it."""

    def predict_log_probs(self, logits: Tensor) -> Tensor:
        """The log-probabilities [N, V] that the model predicts with. Default: softmax, at the loss's temperature."""
        return (logits if self.temperature == 1 else logits / self.temperature).log_softmax(dim=-1)

    def predicts_softmax(self) -> bool:
        """Whether `predict_log_probs` is the default."""
        return type(self).predict_log_probs is Loss.predict_log_probs

    def softmax_factor(self) -> float | None:
        """f, where `predict_log_probs` is log softmax(f · logits); None where it is something else."""
        return 1 / self.temperature if self.predicts_softmax() else None

    def predict_values(self, logits: Tensor) -> Tensor:
        """The values [N, K] that the model predicts, where targets are values. Default: the outputs themselves."""
        return logits

    def decode(self, logits: Tensor, lengths: Tensor) -> list[Tensor]:
        """The sequences of classes that the model predicts, where targets are sequences.

        Args:
            logits: float32 [N, V], the `scores` of S sequences one behind the other.
            lengths: int64 [S], how many of them each has.

        Returns:
            S of int64, of any length each, from 0 on.
        """
        raise UserError(f"{type(self).__name__} predicts no sequences: give it decode")

    def sequence_log_probs(self, logits: Tensor, features: Features) -> Tensor | None:
        """log p(y) of each target sequence under the prediction, [S], where targets are sequences; None where a loss
        has none. Default: none."""
        return None

    def log_density(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """log p(y) of target [N, K] under the predicted distribution of each value, [N, K]; −∞ where it has no mass.
        None where a loss predicts no density. Default: none."""
        return None

    def predict_quantiles(self, logits: Tensor, levels: Sequence[float]) -> Tensor | None:
        """Quantiles [N, K, L] of the predicted distribution at L levels in (0, 1); None where a loss does not predict
        them. Default: none."""
        return None

    def posterior(self, logits: Tensor) -> Tensor | None:
        """The class probabilities [N, V] under which `logits` would minimise the expected loss, before clipping: they
        sum to 1 at that minimum. None where they have no closed form. Default: `posterior_of_softmax`."""
        log_p = self.predict_log_probs(logits)
        return self.posterior_of_softmax(log_p.exp(), log_p)

    def posterior_reads_softmax(self) -> bool:
        """Whether `posterior` is `posterior_of_softmax` of the prediction."""
        return type(self).posterior is Loss.posterior

    def posterior_of_softmax(self, p: Tensor, log_p: Tensor) -> Tensor | None:
        """`posterior` where it is a function of the softmax that the model predicts with: p and log p, float [N, V],
        which it may overwrite. An evaluation has both at hand, so that this is the quicker way to write it."""
        return None


_WAYS = {
    "values": run_features,
    "from_logits": run_logits,
    "position_loss": run_logits,
    "from_statistics": run_softmax,
    "from_log_prob": run_softmax,
}
"""The function that runs each of an author's functions."""
