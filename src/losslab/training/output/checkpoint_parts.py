"""The parts of a checkpoint, and what each of them may hold."""

from __future__ import annotations

from typing import Any

import torch


def wrong_part(content: dict[str, Any]) -> str | None:
    """The name of a part that is of another kind than losslab writes; None where all are right."""
    state = content["losslab"]
    step = state.get("step")
    right = {
        "losslab.step": isinstance(step, int) and content.get("global_step", step) == step,
        "losslab.best": _are_numbers(state.get("best", {})),
        "losslab.latest": _are_numbers(state.get("latest", {})),
        "losslab.due": _are_numbers(state.get("due") or {}),
        "losslab.shown": _are_numbers(state.get("shown", {})),
        "losslab.logged": _are_numbers(state.get("logged", {})),
        "losslab.stopped": _is_stop(state.get("stopped")),
        "state_dict": all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content["state_dict"].items()
        ),
        "vocab_size": isinstance(content.get("vocab_size", 1), int),
        "tokenizer": isinstance(content.get("tokenizer"), str | None),
        "ema": _is_average(content.get("ema")),
        "data": _is_data(content.get("data")),
    }
    return next((name for name, is_right in right.items() if not is_right), None)


def _is_average(average: Any) -> bool:
    """Averages of the weights, as `callbacks=ema` keeps them; None for most runs."""
    return average is None or (
        isinstance(average, dict)
        and isinstance(average.get("updates"), int)
        and isinstance(average.get("weights"), dict)
        and all(isinstance(value, torch.Tensor) for value in average["weights"].values())
    )


def _is_stop(stopped: Any) -> bool:
    """Who ended a run where and why, as `RunState.stopped` keeps it; None for most runs."""
    kinds = {"step": int, "by": str, "reason": str}
    return stopped is None or (
        isinstance(stopped, dict) and all(isinstance(stopped.get(key), kind) for key, kind in kinds.items())
    )


def _is_data(data: Any) -> bool:
    """Sizes and artifacts, as `DataInfo.stored` gives them; older checkpoints have none."""
    if data is None:
        return True
    sizes = ("mean_positions", "mean_share", "vocab_size", "num_classes", "num_values")
    return (
        isinstance(data, dict)
        and all(isinstance(data.get(name), int | float | None) for name in sizes)
        and isinstance(data.get("artifacts"), dict)
        and all(isinstance(part, str) for item in data["artifacts"].items() for part in item)
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())
