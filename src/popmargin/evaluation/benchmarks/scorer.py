"""What scores a benchmark's responses: a policy, a reward model, a judge, or any reward."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from popmargin.errors import ConfigError, RunError
from popmargin.evaluation.benchmarks.question import Question, Scores
from popmargin.models.path import looks_like_path
from popmargin.rewards.base import Reward, notes_of, say_cost
from popmargin.rewards.load import load_reward
from popmargin.rewards.naming import FORMS, read_name

Kind = Literal["policy", "reward", "judge"]
_BATCH = 256


@dataclass(frozen=True)
class Scorer:
    """A model that gives each response a score.

    Attributes:
        reward: gives the scores.
        kind: what the model is used as.
        name: what was given.
        meaning: of a score, for the report.
    """

    reward: Reward
    kind: Kind
    name: str
    meaning: str

    def score(self, questions: Sequence[Question]) -> Scores:
        """The scores of each question's responses. Equal responses to a prompt are scored once.

        Raises:
            RunError: a response has no finite score.
        """
        places: dict[str, int] = {}
        asked: list[tuple[Any, str]] = []
        of_question: list[list[int]] = []
        for question in questions:
            rows: list[int] = []
            for prompt, text in question.answers:
                key = json.dumps([prompt, text], sort_keys=True, default=str)
                if key not in places:
                    places[key] = len(asked)
                    asked.append((prompt, text))
                rows.append(places[key])
            of_question.append(rows)
        say_cost(self.reward, [prompt for prompt, _ in asked], [text for _, text in asked])
        values: list[float] = []
        for start in range(0, len(asked), _BATCH):
            part = asked[start : start + _BATCH]
            values += self.reward.score([prompt for prompt, _ in part], [text for _, text in part])
        scores = np.array(values)
        return [scores[rows] for rows in of_question]

    def take_notes(self) -> tuple[str, ...]:
        """What the model did with responses that it could not score in full, in sentences."""
        return notes_of(self.reward)


def find_scorer(
    model: str,
    *,
    use: Literal["auto", "policy", "reward"] = "auto",
    reference: str | None = None,
    per_token: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Scorer:
    """What a name means.

    Args:
        model: a run directory, a model's folder or hub id, or any reward's specification (`judge:MODEL@URL`,
            `file.py:function` …).
        use: of a path: as a `policy`, whose score is log π(y | x) − log π_ref(y | x), or as a `reward` model. By
            default what the folder holds.
        reference: of a policy: a run, folder or hub id; by default the run's own, or none (log π alone).
        per_token: divide a policy's score by the number of tokens.
        options: of the reward.

    Raises:
        ConfigError: the name or an option is not understood, or does not fit the kind of model.
        RunError: there is no such folder, or it cannot be loaded.
    """
    given = dict(options or {})
    path = _path_of(model)
    if path is None:
        named = read_name(model)
        if named.kind != "implicit":
            _refuse_policy_options(model, use, reference, per_token)
            kind: Kind = "judge" if named.kind == "server" else "reward"
            return Scorer(load_reward(model, **given), kind, model, _MEANINGS[kind])
        path, reference = named.place, reference or named.reference or None
        use = "policy"
    found = use if use != "auto" else _kind_of(path)
    if found == "reward":
        _refuse_policy_options(model, "auto", reference, per_token)
        folder = Path(path).expanduser() / "model"
        return Scorer(
            load_reward(f"model:{folder if _is_run(path) else path}", **given), found, model, _MEANINGS[found]
        )
    if reference is None and not _is_run(path):
        reference = "none"
    given |= {} if reference is None else {"reference": reference}
    against = "" if reference == "none" else f" − log π_ref of {reference or 'the run’s own reference'}"
    meaning = f"log π of a response{against}, {'mean' if per_token else 'sum'} over its tokens, nats"
    return Scorer(load_reward(f"implicit:{path}", per_token=per_token, **given), "policy", model, meaning)


_MEANINGS: dict[str, str] = {
    "reward": "the reward of a response, in the model's own unit",
    "judge": "the judge's rating of a response",
}


def _path_of(model: str) -> str | None:
    """The path or hub id of a model; None if it is another kind of specification."""
    if Path(model).expanduser().exists() or model == "demo" or (":" not in model and looks_like_path(model)):
        return model
    if ":" in model:
        return None
    if model.count("/") == 1:
        return model
    raise ConfigError(f"'{model}' is no folder here and no hub id. Give a run, a model's folder or hub id, or {FORMS}.")


def _is_run(path: str) -> bool:
    return (Path(path).expanduser() / "config.yaml").is_file()


def _kind_of(path: str) -> Literal["policy", "reward"]:
    """What a model's folder or a hub id holds, by its configuration."""
    folder = Path(path).expanduser()
    if path == "demo":
        return "policy"
    if _is_run(path):
        folder /= "model"
    if (folder / "adapter_config.json").is_file():
        adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return "reward" if adapter.get("task_type") == "SEQ_CLS" else "policy"
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder) if folder.exists() else path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a model: {error}") from error
    names = config.architectures or []
    if any("SequenceClassification" in name for name in names):
        return "reward"
    if any("CausalLM" in name or "LMHead" in name for name in names):
        return "policy"
    held = ", ".join(names) or "nothing"
    raise ConfigError(f"{path} does not say whether it is a policy or a reward model (it names {held}). Give --as.")


def _refuse_policy_options(model: str, use: str, reference: str | None, per_token: bool) -> None:
    wrong = {"--as policy": use == "policy", "--reference": reference is not None, "--per-token": per_token}
    flags = [flag for flag, given in wrong.items() if given]
    if flags:
        raise ConfigError(f"{flags[0]} is for policies, and {model} is not one. Remove it.")
