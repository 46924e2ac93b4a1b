"""The run's own keys, typed. Components (loss, model, …) are `_target_` nodes, checked against their signatures.

Composing a configuration needs this file and no torch, so that a mistake is answered at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

DEFAULT_MAX_STEPS = 1000
COMPONENTS = ("task", "model", "loss", "data", "optimizer", "scheduler")
NAMED_NODES = ("callbacks", "loggers")
"""Groups that hold any number of named `_target_` nodes, which their classes' signatures check, too."""
LEFT_OPEN = ("monitor", "mode")
"""Keys of callbacks that may be null where the class requires them: the task's primary metric, and its better side."""

# OmegaConf reads these annotations and supports Optional, not every spelling of a union.
# ruff: noqa: UP045


@dataclass
class TrainerConfig:
    """Length of training, devices, and the split of an optimizer step. Steps are always optimizer steps."""

    max_steps: Optional[int] = None
    """Budget in optimizer steps; 1000 where neither budget is given."""
    max_tokens: Optional[int] = None
    """Budget in trained tokens instead of max_steps; rounded up to whole steps."""
    max_epochs: Optional[int] = None
    """Budget in passes over train instead of max_steps; rounded up to whole steps."""
    val_check_interval: Any = None
    """Optimizer steps between validations, or a share of a pass over train (0.25, and 1.0 for a whole one); default: a
    tenth of the run."""
    interim_eval_tokens: Optional[int] = None
    """Tokens of val that a validation scores before the last: windows chosen by hash, the same for every run; 0: all of
    val. Default: an eighth of the tokens trained between two validations, but at least 4096."""
    log_every_n_steps: int = 10
    gradient_clip_val: Optional[float] = 1.0
    """Largest norm of the whole gradient; null: no clipping."""
    r_drop: float = 0.0
    """α of R-Drop (docs/regularisation.md): each batch passes the model twice, and α times the symmetric KL divergence
    of both predictions joins the objective; 0: one pass."""
    micro_batch_size: Optional[int] = None
    """Windows that go through one device at once; default: what batch_size, devices and accumulation leave."""
    accumulate_grad_batches: Optional[int] = None
    accelerator: str = "cpu"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    deterministic: bool = False
    threads: Optional[int] = None
    """CPU threads of each process; default: what torch chooses."""
    compile: bool = False
    """torch.compile for the model's layers; it needs a C++ compiler, and changes results by rounding."""
    activation_checkpointing: bool = False
    """Keep no activations inside the model's layers, and compute them again in the backward pass: less memory, a third
    more time, the same numbers bit for bit."""
    enable_progress_bar: bool = True
    profiler: Any = None
    """simple, advanced or pytorch, or a `_target_` of one's own; its reports land in the run's folder, in profile/."""
    detect_anomaly: bool = False
    """Let autograd name the operation whose gradient is NaN first; several times as slow."""
    fast_dev_run: Any = None
    """N (true: 1): N optimizer steps, and N batches of val and of test; no checkpoints and no loggers."""
    overfit_batches: Any = None
    """Train on the first N batches (or a share of a pass) again and again, and validate on them."""
    limit_train_batches: Any = None
    """Train on the first N batches (or a share of a pass) again and again. A batch is data.batch_size samples."""
    limit_val_batches: Any = None
    """Batches, or the share, of val that a validation scores at most."""
    limit_test_batches: Any = None


@dataclass
class RegularizersConfig:
    """Penalties that join any loss of the softmax; see losses/regularizers.py."""

    z_loss: float = 0.0
    confidence_penalty: float = 0.0
    mu_loss: float = 0.0
    soft_cap: Optional[float] = None


@dataclass
class SeedsConfig:
    """Seeds of single random streams (docs/noise.md); null: the run's `seed`."""

    backbone_init: Optional[int] = None
    """Initial weights of the model."""
    head_init: Optional[int] = None
    """Initial weights of an output projection that is not tied, and of the loss."""
    data_order: Optional[int] = None
    """Order of the training samples, and what is drawn for each of them: masks, augmentation, examples of a class."""
    dropout: Optional[int] = None
    """Dropout and whatever else draws in the forward pass of a training step."""
    loss: Optional[int] = None
    """Draws of a loss for an optimizer step, as sampled softmax makes them."""
    callbacks: Optional[int] = None
    """Draws of callbacks."""
    twin: Optional[int] = None
    """Number of a twin: initial weights are multiplied by 1 + 1e-6 · N(0, 1), drawn from (seed, twin)."""


@dataclass
class CheckpointsConfig:
    every_n_steps: int = 500
    """Optimizer steps between checkpoints, beside the one after each validation."""
    keep: int = 1
    """Number of newest checkpoints to keep, beside the best one."""


@dataclass
class RunConfig:
    """One run."""

    name: str = "runs"
    """The sweep's folder, below output_dir."""
    seed: int = 1
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    output_dir: str = "outputs"
    fresh: bool = False
    """Repeat a run beside the finished one, with suffix -2, -3, …"""
    continue_from: Optional[str] = None
    """Folder of a run, or of a sweep that holds it, which this run continues with a longer budget."""
    init_from: Optional[str] = None
    """Folder of a run or an export, a checkpoint or a .safetensors file, whose weights this run begins with."""
    task: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Lightning callbacks by a name of one's own, each a `_target_` node."""
    regularizers: RegularizersConfig = field(default_factory=RegularizersConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    loggers: dict[str, Any] = field(default_factory=dict)
    """Loggers by name, beside metrics.csv, which is always written."""


def register() -> None:
    """Make the schema known to Hydra, which reads it as the first entry of conf/train.yaml."""
    from hydra.core.config_store import ConfigStore  # what only reads run folders needs no Hydra

    store = ConfigStore.instance()
    if "run_schema.yaml" not in store.repo:
        store.store(name="run_schema", node=RunConfig, provider="losslab")
