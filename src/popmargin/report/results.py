"""The results that a finished study passes to the report: plain numbers and text, saved as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from popmargin.errors import RunError, did_you_mean
from popmargin.files import whole_file
from popmargin.statistics.intervals import Interval

Origin = Literal["published", "baseline", "control", "ours"]
FORMAT = "popmargin-study-1"


@dataclass(frozen=True)
class ArmResult:
    """One training objective of a study, over all its seeds.

    Args:
        name: unique key of the arm, such as ``pop_random``.
        objective: registry name of the objective.
        label: the arm's name in the report.
        origin: where the method comes from; shown as a tag.
        seeds: the training seeds behind the numbers.
        metrics: metric name to value with interval (names: ``popmargin.report.metrics``).
        differences: paired difference with the baseline arm, same names and units.
        reliability: bins ``{"low", "high", "predicted", "observed", "count"}``.
        goals: gold reward by the goal that was asked for, rows ``[goal, mean, low, high]``; empty without a sweep.
        curves: held-out metric over training, rows ``[step, mean, low, high]``.
        training: logged value over training, rows ``[step, value]``; log-ratios and target margins in nats.
        overhead: ``train_seconds``, ``tokens_per_second``, ``peak_memory_mb``, ``time_ratio``.
        samples: ``{"prompt", "completion", "reward"}``, the same prompts in every arm; of images ``"image"`` in place
            of the completion (`popmargin.report.pictures.thumbnail`), and further rewards by name in ``"also"``.

    Raises:
        RunError: the origin is not one of the four.
    """

    name: str
    objective: str
    label: str
    origin: Origin
    seeds: list[int]
    metrics: dict[str, Interval] = field(default_factory=dict[str, Interval])
    differences: dict[str, Interval] = field(default_factory=dict[str, Interval])
    reliability: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    curves: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])
    goals: list[list[float]] = field(default_factory=list[list[float]])
    training: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])
    overhead: dict[str, float] = field(default_factory=dict[str, float])
    samples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def __post_init__(self) -> None:
        origins = get_args(Origin)
        if self.origin not in origins:
            raise RunError(f"Arm '{self.name}' has origin '{self.origin}'. {did_you_mean(self.origin, origins)}")


@dataclass(frozen=True)
class StudyResults:
    """A whole study: its arms, what they are compared with, and where the numbers come from.

    Args:
        title: heading of the report.
        arms: in the order in which they are shown.
        reference: metrics of the reference policy (the start of training), if measured.
        baseline: name of the arm that the others are compared with.
        reading: plain sentences computed from the numbers.
        data: facts about the data, shown unchanged.
        config: the resolved configuration, YAML.
        versions: package to version.
        fingerprint: hash of data, configuration and split.
        account: what came in, was kept and was dropped: steps from `popmargin.training.account.Step.to_dict`, with
            `arms`, the labels of the arms they belong to (none: all).
        responses: what policies generate: texts or images.
        reference_samples: those of the reference policy, as `ArmResult.samples`.
        reward: the name of the reward, such as `ink`; without one it is called reward.

    Raises:
        RunError: two arms have the same name.
    """

    title: str
    arms: list[ArmResult]
    reference: dict[str, Interval]
    baseline: str
    reading: list[str] = field(default_factory=list[str])
    data: dict[str, str] = field(default_factory=dict[str, str])
    config: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    fingerprint: str = ""
    account: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    responses: Literal["texts", "images"] = "texts"
    reference_samples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    reward: str = ""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise RunError(f"Two arms of the study are called '{double[0]}'. Give every arm a unique name.")

    def to_json(self) -> str:
        """The study as JSON text; non-finite values become null."""
        tree = {"format": FORMAT, **_plain(self)}
        return json.dumps(tree, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "study results") -> "StudyResults":
        """Read what ``to_json`` wrote; null becomes nan.

        Args:
            text: JSON text.
            where: file name for error messages.

        Raises:
            RunError: it is not such a file, or a field is missing or unknown.
        """
        try:
            tree = json.loads(text)
        except json.JSONDecodeError as error:
            raise RunError(
                f"{where}: not JSON (line {error.lineno}: {error.msg}). Rebuild it from the runs."
            ) from error
        if not isinstance(tree, dict) or cast(dict[str, Any], tree).get("format") != FORMAT:
            raise RunError(f"{where}: not a popmargin study (expected format '{FORMAT}'). Rebuild it from the runs.")
        values = {key: value for key, value in cast(dict[str, Any], tree).items() if key != "format"}
        try:
            arms = [_arm(arm, f"{where}, arm {row}") for row, arm in enumerate(values.pop("arms", []))]
            values["reference"] = _intervals(values.get("reference", {}))
            values["reference_samples"] = _samples(values.get("reference_samples", []))
            _check_fields(cls, {**values, "arms": arms}, where)
            return cls(arms=arms, **values)
        except (TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{where}: does not contain a study ({error!r}). Rebuild it from the runs.") from error

    def save(self, path: str | Path) -> None:
        """Write the JSON file."""
        write_text(path, self.to_json(), (".json",))

    @classmethod
    def load(cls, path: str | Path) -> "StudyResults":
        """Read the JSON file.

        Raises:
            RunError: the file is missing or is not a study.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: cannot be read ({error}). Give a file that StudyResults.save wrote.") from error
        return cls.from_json(text, where=str(path))


def write_text(path: str | Path, text: str, suffixes: Sequence[str] = ()) -> None:
    """Write UTF-8.

    Raises:
        ConfigError: the name does not end in one of the suffixes, if there are any.
        RunError: the path is a folder, or cannot be written.
    """
    with whole_file(path, suffixes) as partial:
        # Sampled bytes can contain lone surrogates, which UTF-8 cannot encode.
        partial.write_bytes(text.encode("utf-8", errors="replace"))


def _plain(value: Any) -> Any:
    """Dataclasses to dicts and non-finite numbers to None, all the way down."""
    if isinstance(value, (StudyResults, ArmResult, Interval)):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, str) or value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Sequence):
        return [_plain(entry) for entry in cast(Sequence[Any], value)]
    number = float(value)
    return number if math.isfinite(number) else None


def _nan_if_none(value: Any) -> Any:
    return math.nan if value is None else value


def _intervals(tree: dict[str, dict[str, Any]]) -> dict[str, Interval]:
    return {key: Interval.from_dict(parts) for key, parts in tree.items()}


def _series(tree: dict[str, list[list[Any]]]) -> dict[str, list[list[float]]]:
    return {key: [[_nan_if_none(value) for value in row] for row in rows] for key, rows in tree.items()}


def _arm(tree: dict[str, Any], where: str) -> ArmResult:
    _check_fields(ArmResult, tree, where)
    values = dict(tree)
    for key in ("metrics", "differences"):
        values[key] = _intervals(tree.get(key, {}))
    for key in ("curves", "training"):
        values[key] = _series(tree.get(key, {}))
    values["goals"] = _series({"": tree.get("goals", [])})[""]
    values["reliability"] = [{k: _nan_if_none(v) for k, v in row.items()} for row in tree.get("reliability", [])]
    values["overhead"] = {key: _nan_if_none(value) for key, value in tree.get("overhead", {}).items()}
    values["samples"] = _samples(tree.get("samples", []))
    return ArmResult(**values)


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: _nan_if_none(value) if key == "reward" else value for key, value in row.items()} for row in rows]


def _check_fields(cls: type[Any], values: Mapping[str, Any], where: str) -> None:
    fields = dataclasses.fields(cls)
    known = {entry.name for entry in fields}
    for key in values:
        if key not in known:
            raise RunError(f"{where}: unknown field '{key}'. {did_you_mean(key, known)}")
    for entry in fields:
        optional = entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING
        if entry.name not in values and not optional:
            raise RunError(f"{where}: field '{entry.name}' is missing. Rebuild the file from the runs.")
