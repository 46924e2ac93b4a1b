"""The checks that every loss goes through, in the order of the report. Each returns its observation, or raises a Fault
with the likely cause."""

from __future__ import annotations

from collections.abc import Callable

from losslab.conformance import arithmetic, basics, options, predictions, sums
from losslab.conformance.subject import Subject

Check = Callable[[Subject], str]

FIRST = "values"
"""The check after whose failure the others would only repeat it."""

CHECKS: dict[str, Check] = {
    FIRST: basics.returns_one_value_a_position,
    "targets": basics.target_is_what_it_trains,
    "sums, not means": sums.sums_add_up,
    "order of positions": sums.order_does_not_matter,
    "ignored positions": sums.ignored_positions_change_nothing,
    "all ignored": sums.all_ignored_is_zero,
    "logits of ±10,000": arithmetic.extreme_logits_stay_finite,
    "gradient": arithmetic.gradient_is_that_of_the_value,
    "forward": arithmetic.forward_equals_its_positions,
    "chunks": sums.chunks_do_not_matter,
    "precision": arithmetic.arithmetic_is_float32,
    "predictions": predictions.predictions_are_right_in_kind,
    "shift of logits": arithmetic.shift_changes_nothing,
    "posterior": predictions.posterior_is_the_data,
    "temperature": arithmetic.temperature_keeps_the_gradient,
    "training mode": basics.mode_changes_nothing,
    "memory": basics.nothing_stays_alive,
    "determinism": sums.same_call_same_value,
    "classes": options.any_number_of_classes,
    "options": options.options_are_checked,
    "training": options.training_lowers_it,
}
