"""Other frameworks' names for the settings of a run, and the likely meaning of an unknown key."""

import difflib
from collections.abc import Iterable, Mapping

from popmargin.errors import did_you_mean

EMBEDDED = ("demo", "demo-digits", "demo-emoji")
"""Models and data that come with the package, by the names that stand in the place of a path."""
PAYING = ("price_in", "price_out", "max_cost", "account")
"""Options of a judge on a server that say what its answers may cost, and decide none: a limit is raised to go on."""
ELSEWHERE: Mapping[str, str] = {
    "lr": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "epoch": "train.epochs",
    "steps": "train.max_steps",
    "num_steps": "train.max_steps",
    "max_train_steps": "train.max_steps",
    "per_device_train_batch_size": "train.micro_batch_size",
    "per_device_batch_size": "train.micro_batch_size",
    "micro_batch": "train.micro_batch_size",
    "train_batch_size": "train.batch_size",
    "global_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size (train.batch_size is the number of rows per optimizer "
    "step, in as many passes as needed)",
    "per_device_eval_batch_size": "evaluation.tokens_per_batch",
    "eval_batch_size": "evaluation.tokens_per_batch",
    "warmup_steps": "train.warmup_ratio (a share of the steps)",
    "warmup": "train.warmup_ratio",
    "lr_scheduler": "train.scheduler",
    "lr_scheduler_type": "train.scheduler",
    "optim": "train.trainer_arguments, e.g. {optim: adamw_torch}",
    "adam_beta1": "train.betas",
    "adam_beta2": "train.betas",
    "max_norm": "train.max_grad_norm",
    "gradient_clipping": "train.max_grad_norm",
    "activation_checkpointing": "train.gradient_checkpointing",
    "torch_compile": "train.compile",
    "log_interval": "train.logging_steps",
    "save_interval": "train.save_steps",
    "logging_dir": "train.report_to (trackers) or output (the run's folder)",
    "deepspeed": "train.trainer_arguments, e.g. {deepspeed: FILE}",
    "fsdp": "train.trainer_arguments, e.g. {fsdp: full_shard}",
    "bf16": "model.precision (bf16)",
    "fp16": "model.precision (bf16)",
    "dtype": "model.precision",
    "torch_dtype": "model.precision",
    "r": "model.lora_rank",
    "lora_r": "model.lora_rank",
    "rank": "model.lora_rank",
    "use_peft": "model.lora_rank (above 0)",
    "use_lora": "model.lora_rank (above 0)",
    "model_name": "model.path",
    "model_name_or_path": "model.path",
    "base_model": "model.path",
    "model_id": "model.path",
    "pretrained_model_name_or_path": "model.path",
    "ref_model": "reference.model",
    "reference_model": "reference.model",
    "ref_model_name_or_path": "reference.model",
    "dataset": "data.train",
    "dataset_name": "data.train",
    "dataset_path": "data.train",
    "train_file": "data.train",
    "train_data": "data.train",
    "train_dataset": "data.train",
    "eval_dataset": "data.test",
    "test_file": "data.test",
    "validation_file": "data.test",
    "val_data": "data.test",
    "max_seq_length": "data.max_length",
    "max_seq_len": "data.max_length",
    "model_max_length": "data.max_length",
    "cutoff_len": "data.max_length",
    "max_prompt_length": "data.max_length (of prompt and completion together; data.truncation says what is cut)",
    "max_completion_length": "data.max_length (of prompt and completion together)",
    "truncation_mode": "data.truncation",
    "max_samples": "data.limit",
    "max_train_samples": "data.limit",
    "column_mapping": "data.columns",
    "loss": "objective.name",
    "loss_type": "objective.name",
    "rpo_alpha": "regularizers, e.g. [{name: sft, weight: 1.0}]",
    "beta": "objective.beta",
    "simpo_gamma": "objective.gamma",
    "output_dir": "output",
    "out_dir": "output",
    "save_dir": "output",
    "run_name": "name",
    "random_seed": "seed",
    "ema_decay": "target.tau",
    "num_beams": "evaluation.samples",
    "max_tokens": "evaluation.max_new_tokens",
}
"""A name from another framework, and the setting that does the same here."""


def nearly_embedded(name: str) -> str:
    """The embedded name that somebody has misspelt, or nothing, so that no hub is asked for it for a minute.

    Example:
        >>> nearly_embedded("demoo"), nearly_embedded("gpt2")
        ('demo', '')
    """
    return "".join(difflib.get_close_matches(name, EMBEDDED, n=1, cutoff=0.8))


def suggestion(key: str, known: Iterable[str], where: str, settings: Iterable[str]) -> str:
    """A sentence about an unknown key: the nearest known one, what another framework's name means, or its section.

    Args:
        key: the unknown one, as it was written.
        known: keys of its section.
        where: its section with a dot, or nothing.
        settings: dotted names of all settings of a run.

    Example:
        >>> suggestion("lr", ["learning_rate", "seed"], "train.", ["train.learning_rate"])
        "Did you mean 'train.learning_rate'? Known: learning_rate, seed."
    """
    names = sorted(known)
    word = key.replace("-", "_")
    if word in names:
        return f"Did you mean '{word}'? Known: {', '.join(names)}."
    elsewhere = ELSEWHERE.get(word.lower())
    if elsewhere is None:
        moved = [
            name for name in settings if name.rpartition(".")[2] == word and name.rpartition(".")[0] + "." != where
        ]
        elsewhere = min(moved, key=lambda name: name.count(".")) if moved else None
    if elsewhere is None:
        return did_you_mean(key, names)
    name, space, more = elsewhere.partition(" ")
    name, comma = name.rstrip(","), name.endswith(",") * ","
    return f"Did you mean '{name}'{comma}{space}{more}? Known: {', '.join(names)}."
