"""The configuration of a run: frozen dataclasses, one file per section, from YAML and dotted flags."""

from popmargin.config.checked import GONE, build, coerce, from_dict, section, settings
from popmargin.config.evaluation import EvaluationConfig
from popmargin.config.model import ModelConfig, ReferenceConfig
from popmargin.config.optimisation import TrainConfig
from popmargin.config.pop import PopConfig, TargetConfig, ZeroConfig
from popmargin.config.preferences import DataConfig, check_writing
from popmargin.config.run import RunConfig, TaskChoice
from popmargin.config.values import apply_overrides, merge, opened, read_saved, read_yaml, to_dict
from popmargin.yaml_file import dump_yaml

__all__ = [
    "GONE",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "PopConfig",
    "ReferenceConfig",
    "RunConfig",
    "TargetConfig",
    "TaskChoice",
    "TrainConfig",
    "apply_overrides",
    "build",
    "check_writing",
    "coerce",
    "dump_yaml",
    "from_dict",
    "merge",
    "opened",
    "read_saved",
    "read_yaml",
    "section",
    "settings",
    "to_dict",
    "ZeroConfig",
]
