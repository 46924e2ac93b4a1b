"""Names that people bring from Lightning, lightning-hydra-template, Hugging Face's Trainer and nanoGPT, and what serves
here instead."""

from __future__ import annotations

import re

_BUDGET = "a run trains its whole budget: trainer.max_steps=N, trainer.max_tokens=N or trainer.max_epochs=N"
_CONTINUE = "the same command continues a run from its last checkpoint, and so does losslab resume RUN_DIR"
_VALIDATION = "write trainer.limit_val_batches=N; trainer.val_check_interval says how often"
_SPLIT = "trainer.accumulate_grad_batches=N splits data.batch_size, trainer.micro_batch_size=N is one device's part"
_PRECISION = "write trainer.precision=bf16-mixed, 16-mixed or 32-true"
_DEVICES = "write trainer=gpu, or trainer=ddp trainer.devices=N"
_BARS = "write trainer.enable_progress_bar=false"
_CHECKPOINTS = "write checkpoints.every_n_steps=N and checkpoints.keep=N; last and best are always kept"
_LOGGING = (
    "write loggers=tensorboard, csv, wandb, mlflow or none, or several: loggers=[tensorboard,wandb]; and "
    "trainer.log_every_n_steps=N"
)
_STOPPING = "write callbacks=early_stopping and callbacks.early_stopping.patience=N"
_PLACES = "write output_dir=FOLDER and name=NAME; runs live in FOLDER/NAME"
_TEST = "every run is tested at its end; losslab evaluate RUN_DIR scores it again"
_TAGS = "name=NAME says which comparison a run belongs to"
_SWEEP = "write -m and list values, as in -m optimizer.lr=1e-3,3e-3; losslab compare takes each loss's best"
_CONFIG = "losslab train --cfg job prints the configuration, and a run keeps its own in config.yaml"
_WARMUP = "write scheduler.warmup_steps=N"
_WIDTH, _LAYERS, _HEADS = "write model.width=N", "write model.num_layers=N", "write model.num_heads=N"
_CONTEXT = "write model.context=N"
_LR, _BETAS = "write optimizer.lr=X", "write optimizer.betas=[0.9,0.95]"
_SEED = "write seed=N"

_INSTEAD: dict[str, str] = {
    # Lightning's Trainer
    "min_epochs": _BUDGET,
    "min_steps": _BUDGET,
    "max_time": "write callbacks=timer and callbacks.timer.duration=DD:HH:MM:SS, or trainer.max_tokens=N",
    "limit_predict_batches": "training predicts nothing: leave it out, or write trainer.limit_test_batches=N",
    "num_sanity_val_steps": "trainer.fast_dev_run=true tries a validation and a test: leave it out",
    "check_val_every_n_epoch": "write trainer.val_check_interval=1.0, once a pass over train, or =N in optimizer steps",
    "inference_mode": "evaluation takes no gradients: leave it out",
    "gradient_clip_algorithm": "gradients are clipped by their norm: trainer.gradient_clip_val=X",
    "callbacks": "write callbacks=early_stopping, ema, …, or several: callbacks=[early_stopping,ema]",
    "logger": _LOGGING,
    "plugins": "trainer.strategy=ddp or fsdp, and trainer.precision, say what Lightning is given",
    "benchmark": "it chooses other kernels in each run: leave it out; trainer.deterministic=true is the opposite",
    "enable_checkpointing": _CHECKPOINTS,
    "enable_model_summary": "leave it out: train.log holds what was built",
    "default_root_dir": _PLACES,
    "sync_batchnorm": "the shipped model has no batch norm: leave it out",
    "use_distributed_sampler": "the ranks share each batch by themselves: leave it out",
    "reload_dataloaders_every_n_epochs": "batches are a function of seed and step: leave it out",
    "barebones": "write trainer.enable_progress_bar=false loggers=none",
    "enable_autolog_hparams": "loggers are given the hyper-parameters once: leave it out",
    "model_registry": "checkpoints lie in the run's folder, and losslab export RUN_DIR hands weights on: leave it out",
    # lightning-hydra-template
    "ckpt_path": _CONTINUE,
    "test": _TEST,
    "train": "losslab train trains; losslab evaluate RUN_DIR only scores",
    "tags": _TAGS,
    "task_name": _TAGS,
    "hparams_search": "write -m hydra/sweeper=optuna, and what is searched: docs/tuning.md",
    "paths": _PLACES,
    "extras": _CONFIG,
    "print_config": _CONFIG,
    "ignore_warnings": "warnings go to the run's train.log: leave it out",
    "enforce_tags": _TAGS,
    "local": "write --config-dir DIR, a folder of your own yaml files that need not be in git",
    "pin_memory": "batches go to the device as they are: leave it out",
    "stochastic_weight_avg": "write callbacks=ema, which averages weights beside those that train",
    "tpu_cores": "write trainer.accelerator=tpu, which nobody has tried",
    "optimized_metric": "a search goes by the primary metric of the task: leave it out",
    "compile_model": "write trainer.compile=true",
    # Hugging Face's TrainingArguments
    "learning_rate": _LR,
    "num_train_epochs": _BUDGET,
    "per_device_train_batch_size": f"write data.batch_size=N; {_SPLIT}",
    "per_device_eval_batch_size": "write data.val_batch_size=N",
    "train_batch_size": "write data.batch_size=N",
    "eval_batch_size": "write data.val_batch_size=N",
    "gradient_accumulation_steps": _SPLIT,
    "warmup_ratio": _WARMUP,
    "lr_scheduler_type": "write scheduler=cosine or another of losslab train --help",
    "optim": "write optimizer=adamw or another of losslab train --help",
    "adam_beta1": _BETAS,
    "adam_beta2": _BETAS,
    "adam_epsilon": "write optimizer.eps=X",
    "max_grad_norm": "write trainer.gradient_clip_val=X",
    "label_smoothing_factor": "write loss.label_smoothing=X",
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "tf32": _PRECISION,
    "no_cuda": "write trainer=cpu",
    "use_cpu": "write trainer=cpu",
    "eval_steps": "write trainer.val_check_interval=N",
    "evaluation_strategy": "write trainer.val_check_interval=N",
    "eval_strategy": "write trainer.val_check_interval=N",
    "save_steps": _CHECKPOINTS,
    "save_strategy": _CHECKPOINTS,
    "save_total_limit": _CHECKPOINTS,
    "load_best_model_at_end": "the best checkpoint is scored beside the last: leave it out",
    "logging_steps": "write trainer.log_every_n_steps=N",
    "logging_dir": _PLACES,
    "report_to": _LOGGING,
    "run_name": _TAGS,
    "overwrite_output_dir": "fresh=true repeats a finished run beside it",
    "resume_from_checkpoint": _CONTINUE,
    "dataloader_num_workers": "write data.num_workers=N",
    "disable_tqdm": _BARS,
    "torch_compile": "write trainer.compile=true",
    "gradient_checkpointing": "write trainer.activation_checkpointing=true",
    "ddp_find_unused_parameters": "leave it out: write trainer=ddp",
    "fsdp": "write trainer=fsdp",
    "deepspeed": "write trainer=fsdp, which shards weights, gradients and optimizer states",
    "model_name_or_path": "write model=decoder and model/size=small, or a model of your own",
    "max_seq_length": _CONTEXT,
    # nanoGPT
    "max_iters": "write trainer.max_steps=N",
    "lr_decay_iters": "scheduler=cosine decays until the last step of trainer.max_steps",
    "min_lr": "write scheduler.final_fraction=X, of the peak learning rate",
    "decay_lr": "write scheduler=cosine or scheduler=constant",
    "warmup_iters": _WARMUP,
    "block_size": _CONTEXT,
    "n_layer": _LAYERS,
    "n_layers": _LAYERS,
    "num_hidden_layers": _LAYERS,
    "n_head": _HEADS,
    "n_heads": _HEADS,
    "num_attention_heads": _HEADS,
    "n_embd": _WIDTH,
    "d_model": _WIDTH,
    "hidden_size": _WIDTH,
    "beta1": _BETAS,
    "beta2": _BETAS,
    "grad_clip": "write trainer.gradient_clip_val=X",
    "eval_interval": "write trainer.val_check_interval=N",
    "eval_iters": _VALIDATION,
    "log_interval": "write trainer.log_every_n_steps=N",
    "always_save_checkpoint": _CHECKPOINTS,
    "out_dir": _PLACES,
    "dataset": "write data=text data.path=FILE",
    "backend": "trainer=ddp chooses the backend by the devices",
    "dtype": _PRECISION,
    "device": _DEVICES,
    "gpus": _DEVICES,
    "num_gpus": _DEVICES,
    "wandb_log": _LOGGING,
    "wandb_project": _LOGGING,
    # and elsewhere
    "epochs": _BUDGET,
    "num_epochs": _BUDGET,
    "steps": "write trainer.max_steps=N",
    "num_steps": "write trainer.max_steps=N",
    "total_steps": "write trainer.max_steps=N",
    "train_steps": "write trainer.max_steps=N",
    "bs": "write data.batch_size=N",
    "wd": "write optimizer.weight_decay=X",
    "random_seed": _SEED,
    "seed_everything": _SEED,
    "early_stopping": _STOPPING,
    "early_stop": _STOPPING,
    "patience": _STOPPING,
    "amp": _PRECISION,
    "mixed_precision": _PRECISION,
    "workers": "write data.num_workers=N",
    "resume": _CONTINUE,
    "criterion": "write loss=NAME; losslab losses lists them",
    "loss_fn": "write loss=NAME; losslab losses lists them",
}
"""Names of other tools, by the last part of the key."""
_SECTIONS = ("", "trainer", "data", "model", "optimizer", "scheduler", "checkpoints", "loggers")
_FOREIGN_SECTIONS = ("logger", "paths", "extras", "hparams_search")
CHOICES: dict[tuple[str, str], str] = {
    **{
        ("loggers", name): f"write +loggers.{name}._target_=lightning.pytorch.loggers.{kind}Logger"
        for name, kind in (("comet", "Comet"), ("neptune", "Neptune"))
    },
    **{("loggers", name): _LOGGING for name in ("aim", "many_loggers")},
    ("trainer", "mps"): "write trainer=cpu trainer.accelerator=mps",
    ("trainer", "ddp_sim"): "write trainer=ddp trainer.accelerator=cpu trainer.devices=N",
    ("debug", "default"): "write debug=fdr: one step, one batch of val and of test",
    (
        "callbacks",
        "default",
    ): "write callbacks=[early_stopping,model_checkpoint,model_summary]; the progress bar is there",
    ("callbacks", "rich_progress_bar"): "it is there: trainer.enable_progress_bar=false leaves it out",
    ("experiment", "example"): "losslab train --help lists the experiments",
}
"""Group and choice of lightning-hydra-template's that there are not here."""

VALUES = {
    "trainer.devices": "; CUDA_VISIBLE_DEVICES=0,1 says which devices",
    "trainer.gradient_clip_val": "; null clips nothing",
    "trainer.accumulate_grad_batches": "; it is the same in every step",
    "trainer.max_steps": f"; {_BUDGET}",
    "trainer.max_epochs": "; trainer.max_steps=N counts optimizer steps",
}
"""Key → what serves instead of a value that Lightning takes and we do not."""
_OF_COMPONENTS = re.compile(r"(?:model|optimizer|scheduler|loss)\.\w+(?==)")


def serves_instead(key: str, known: set[str] | None = None) -> str | None:
    """A hint that names the key to write instead of another tool's name; None where no tool has it.

    Args:
        known: the dotted keys that there are: a model of one's own may have others than the shipped one.
    """
    section, _, last = key.rpartition(".")
    head = key.partition(".")[0]
    if head in _FOREIGN_SECTIONS:
        return _INSTEAD.get(last) or _INSTEAD[head]
    hint = _INSTEAD.get(last) if section in _SECTIONS else None
    named = _OF_COMPONENTS.findall(hint or "")
    return hint if known is None or known.issuperset(named) else None
