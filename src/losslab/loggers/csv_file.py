"""Lightning's CSVLogger, in a folder of the run's."""

from __future__ import annotations

from lightning.pytorch.loggers.csv_logs import CSVLogger

from losslab.loggers.base import RunLogger, Session


class CSV(CSVLogger, RunLogger):
    """csv/metrics.csv and csv/hparams.yaml, as readers of Lightning's logs expect them.

    Lightning's logger begins an empty file in every session, so that it receives all rows again.
    """

    is_local = True

    def __init__(self, *, save_dir: str, flush_logs_every_n_steps: int = 100) -> None:
        super().__init__(save_dir, name="", version="csv", flush_logs_every_n_steps=flush_logs_every_n_steps)

    def begin(self, session: Session) -> int:
        return 0
