"""Features of tasks that predict at each position the token after it."""

from __future__ import annotations

from collections.abc import Mapping

from losslab.contracts import Backbone, Batch, Features, flat_hidden, following_targets, previous_tokens


def next_token_features(backbone: Backbone, batch: Batch, needs: Mapping[str, int]) -> Features:
    """Run the backbone and flatten: B samples of T positions become N = B · T rows.

    Args:
        needs: `previous`: how many of the tokens before each target to give along; `next`: how many of the targets
            after it; both within the document, where the batch has `segments`.
    """
    hidden = flat_hidden(backbone(batch.inputs), batch.weight, backbone)
    extras = {name: value.flatten() for name, value in batch.extras.items()}
    segments = batch.inputs.get("segments")
    if previous := needs.get("previous"):
        extras["previous"] = previous_tokens(batch.inputs["tokens"], previous, segments).flatten(0, 1)
    if following := needs.get("next"):
        extras["next"] = following_targets(batch.target, batch.weight, following, segments).flatten(0, 1)
    return Features(hidden, batch.target.flatten(), batch.weight.flatten(), extras)
