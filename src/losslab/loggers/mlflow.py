"""MLflow: one run there for each run here, in a local database unless a server is named."""

from __future__ import annotations

import logging
import math
import os
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from losslab.errors import UserError
from losslab.loggers.base import RunLogger, Session, flat, need

_STATUSES = {"completed": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "interrupted": "KILLED"}
_DATABASE = "mlflow.db"
_SQLITE = "sqlite:///"
_URI = "MLFLOW_TRACKING_URI"
_HOSTED = ("databricks", "uc")
"""Stores that are named by a word."""
_LONGEST_WAIT = 60.0
"""Seconds for which other runs may hold the database."""
_MANY = 1000
"""Metrics that the store takes at once."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow would ask a server that does not answer for many minutes."""
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true"}


class MLflow(RunLogger):
    """The sweep is an experiment, the run's folder its name, and the optimizer step the axis.

    Args:
        tracking_uri: `sqlite:///…`, or a server's; None: MLFLOW_TRACKING_URI, or a database in the output folder.

    Raises:
        UserError: for a folder, which MLflow refuses since its version 3.
    """

    def __init__(self, *, save_dir: str, tracking_uri: str | None = None) -> None:
        super().__init__()
        need("mlflow", "mlflow")
        self._folder = Path(save_dir)
        self._uri = tracking_uri or os.environ.get(_URI) or ""
        if (
            self._uri
            and not self._uri.startswith(_HOSTED)
            and ("://" not in self._uri or self._uri.startswith("file:"))
        ):
            raise UserError(
                f"loggers.mlflow.tracking_uri={self._uri} is a folder, and MLflow keeps no runs in folders any more: "
                f"name a database, such as {_SQLITE}{_DATABASE}, or a server, or leave it out"
            )
        self._client: Any = None
        self._run_id = ""
        self._there: set[tuple[str, int]] = set()
        self._lock: FileLock | None = None

    @property
    def name(self) -> str:
        return "mlflow"

    @property
    def version(self) -> str:
        return self._run_id

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def experiment(self) -> Any:
        """MLflow's client; `version` is the run's id."""
        return self._client

    @property
    def place(self) -> str | None:
        return f"mlflow run {self._run_id}: mlflow ui --backend-store-uri {self._uri}"

    def begin(self, session: Session) -> int:
        outputs = session.run.sweep.parent
        self._uri = self._uri or f"{_SQLITE}{outputs / _DATABASE}"
        if self._uri.startswith(_SQLITE):  # its tables are made once, and of several writers one may find it locked
            self._lock = FileLock(f"{self._uri.removeprefix(_SQLITE)}.lock", timeout=_LONGEST_WAIT)
        with self._alone():
            self._client = _make_client(self._uri)
            self._find(session, outputs)
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, step or 0) for key, value in metrics.items()]
        new = [row for row in rows if (row.key, row.step) not in self._there]
        self._there |= {(row.key, row.step) for row in new}
        with self._alone():
            for start in range(0, len(new), _MANY):
                self._client.log_batch(self._run_id, metrics=new[start : start + _MANY])

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        from mlflow.entities import Param

        known = {key: value for key, value in flat(params).items() if not _is_nan(value)}
        with self._alone():
            there = self._client.get_run(self._run_id).data.params  # a value that is there cannot be changed
            new = [Param(key, str(value)) for key, value in known.items() if key not in there]
            self._client.log_batch(self._run_id, params=new)

    def finalize(self, status: str) -> None:
        with self._alone():
            self._client.set_tag(self._run_id, "losslab.status", status)
            self._client.set_terminated(self._run_id, status=_STATUSES.get(status, "FAILED"))

    def _find(self, session: Session, outputs: Path) -> None:
        """The run of an earlier session, or a new one."""
        from mlflow.exceptions import MlflowException

        if "run_id" in session.kept:
            try:
                run = self._client.get_run(session.kept["run_id"])
            except MlflowException:  # another database than that of the earlier session
                pass
            else:
                self._run_id = run.info.run_id
                self._client.update_run(self._run_id, status="RUNNING")
                for key in run.data.metrics:
                    history = self._client.get_metric_history(self._run_id, key)
                    self._there |= {(key, point.step) for point in history}
                return
        experiment = self._client.get_experiment_by_name(session.sweep)
        if experiment is None:
            artifacts = (outputs / "mlflow-artifacts").as_uri() if self._lock else None
            identifier = self._client.create_experiment(session.sweep, artifact_location=artifacts)
        else:
            identifier = experiment.experiment_id
        run = self._client.create_run(identifier, run_name=session.run.name, tags=session.tags)
        self._run_id = session.kept["run_id"] = run.info.run_id
        session.keep()

    def _alone(self) -> Any:
        return nullcontext() if self._lock is None else self._lock


def _make_client(uri: str) -> Any:
    """A client whose package prints nothing of its own, and does not wait for a server for long."""
    for name, value in (_PATIENCE | _QUIET).items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # the import sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
