"""Weights & Biases: one run there for each run here, whatever stopped it in between."""

from __future__ import annotations

import secrets
from argparse import Namespace
from typing import Any, ClassVar, Literal

from losslab.loggers.base import RunLogger, Session, flat, need

_LONGEST_TAG = 64
_EXIT_CODES = {"completed": 0}
"""Every other status is an exit code of 1, which W&B shows as failed."""


class WandB(RunLogger):
    """The sweep is a group, the run's folder its name, and the optimizer step the axis.

    Online, a resumed run goes on where the server has it. Offline there is no server to ask, and a kill loses what was
    not written yet: every session begins a folder of its own, with the same id and with all rows from the first step,
    so that the newest folder alone is the whole run.

    Args:
        project, entity: where on the server; an entity of None is your own.
        mode: None leaves it to WANDB_MODE.
        init_timeout: seconds to wait for the server at the beginning.
        finish_timeout: seconds to wait at the end for what is still to be sent; `wandb sync` sends the rest.
    """

    _open: ClassVar[int] = 0

    def __init__(
        self,
        *,
        save_dir: str,
        project: str = "losslab",
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        init_timeout: float = 30.0,
        finish_timeout: float = 60.0,
    ) -> None:
        super().__init__()
        need("wandb", "wandb")
        self._folder = save_dir
        self._project = project
        self._entity = entity
        self._mode = mode
        self._init_timeout = init_timeout
        self._finish_timeout = finish_timeout
        self._first = 0
        self._run: Any = None

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return "" if self._run is None else str(self._run.id)

    @property
    def save_dir(self) -> str:
        return self._folder

    @property
    def experiment(self) -> Any:
        """The run of the package wandb."""
        return self._run

    @property
    def place(self) -> str | None:
        if self._run.offline:
            return f"wandb offline, run {self._run.id}: wandb sync {self._run.settings.sync_dir} sends it"
        return f"wandb {self._run.url}"

    def begin(self, session: Session) -> int:
        import wandb

        if "id" not in session.kept:
            session.kept["id"] = secrets.token_hex(4)
            session.keep()  # a kill from here on finds the same run again
        settings = wandb.Settings(
            console="off",
            silent=True,
            symlink=False,
            init_timeout=self._init_timeout,
            finish_timeout=self._finish_timeout,
            finish_timeout_raises=True,
        )
        try:
            self._run = wandb.init(
                project=self._project,
                entity=self._entity,
                mode=self._mode,
                id=session.kept["id"],
                resume="allow",
                reinit="create_new",
                name=session.run.name,
                group=session.sweep,
                tags=[f"{key}={value}"[:_LONGEST_TAG] for key, value in session.tags.items()],
                dir=self._folder,
                settings=settings,
            )
        except BaseException:  # Ctrl-C, too: no service may outlive a run; raised again
            _end_service(WandB._open)
            raise
        WandB._open += 1
        self._first = self._run.starting_step
        return self._first

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step is not None and step < self._first:  # the server has this step, and takes no second row of it
            self._run.summary.update(metrics)
        else:
            self._run.log(metrics, step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._run.config.update(flat(params), allow_val_change=True)

    def finalize(self, status: str) -> None:
        self._run.summary["status"] = status
        if status == "interrupted":
            self._run.mark_preempting()  # shown as preempted, instead of failed, until it goes on
        try:
            self._run.finish(exit_code=_EXIT_CODES.get(status, 1))
        finally:
            WandB._open -= 1
            _end_service(WandB._open)


def _end_service(still_open: int) -> None:
    """End the process that wandb started, unless somebody else in this process has a run."""
    import wandb

    if not still_open and wandb.run is None:
        wandb.teardown()
