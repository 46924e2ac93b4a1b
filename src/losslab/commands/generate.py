"""`losslab generate`: text from a trained language model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.commands.trusted import let_import, one_run
from losslab.console import err, note, out, say, write
from losslab.errors import UserError

if TYPE_CHECKING:
    from losslab.training.generation.text_generator import TextGenerator

_HINT = (
    "a line and Enter: it is continued (an empty one: a new document); Ctrl-C stops a sample, Ctrl-D ends the program"
)


def generate(
    folder: Path,
    *,
    prompt: str | None,
    prompt_file: Path | None,
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float,
    seed: int,
    num_samples: int,
    calibrated: bool,
    device: str,
    checkpoint: str,
    trust: list[str],
    weights: str = "raw",
) -> int:
    """Print the continuation of a prompt, or of each line that is typed; returns the exit code.

    Raises:
        UserError: for bad input.
    """
    if num_samples < 1:
        raise UserError(f"--num-samples must be 1 or more, not {num_samples}")
    if prompt_file is not None:
        if prompt is not None:
            raise UserError("--prompt and --prompt-file exclude each other: give one of them")
        prompt = _read(prompt_file)
    run, record = one_run(folder)
    let_import(trust)
    from losslab.config.stored import open_config
    from losslab.training.compute import first_device, set_threads
    from losslab.training.generation.text_generator import TextGenerator
    from losslab.training.scoring.averaged import told
    from losslab.training.scoring.loading import find_checkpoint, rebuild

    where = first_device(device, named_by="--device")
    open_config(run.config(), trust, run.config_file)
    loaded = rebuild(find_checkpoint(run, checkpoint), trust, weights)
    if (whose := told(weights, loaded.averaged)) is not None:
        note(whose)
    set_threads(loaded.config, record)
    text_generator = TextGenerator(
        loaded.network.to(where),
        loaded.tokenizer,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        context=loaded.config["data"].get("context"),
        scale=loaded.scale if calibrated else None,
        forward_context=loaded.autocast,
    )
    try:
        if prompt is not None:
            _continue(text_generator, prompt, num_samples)
        else:
            _converse(text_generator, num_samples)
    except BrokenPipeError:
        out.on_broken_pipe()
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompt-file {path} cannot be read as UTF-8 text: {error}") from None


def _continue(text_generator: TextGenerator, prompt: str, num_samples: int) -> None:
    for sample in range(num_samples):
        _print(text_generator, prompt, sample, num_samples)


def _converse(text_generator: TextGenerator, num_samples: int) -> None:
    """Continue each line of standard input; Ctrl-C ends a sample, and nothing else."""
    if sys.stdin.isatty():
        err.print(_HINT, markup=False)
    for prompt in _lines():
        for sample in range(num_samples):
            with suppress(KeyboardInterrupt):
                _print(text_generator, prompt, sample, num_samples)


def _print(text_generator: TextGenerator, prompt: str, sample: int, num_samples: int) -> None:
    if num_samples > 1:
        say(f"--- sample {sample + 1} of {num_samples}")
    try:
        for piece in text_generator.stream(prompt, sample=sample):
            write(piece)
    finally:
        say("")


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            say("")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input is not UTF-8 text: {error}") from None
