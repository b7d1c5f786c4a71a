"""Completions of one model on held-out prompts, with their rewards."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int64

from popmargin.data.conversation import prompt_of_key
from popmargin.data.responses import Responses
from popmargin.errors import DataError
from popmargin.files import PARQUET, whole_file
from popmargin.generate.drawn import POLICY_ITSELF, Drawn

_SAMPLES_KEY = b"popmargin.samples_per_prompt"
_DRAWN_KEY = b"popmargin.drawn"
_NOTES_KEY = b"popmargin.notes"


@dataclass(frozen=True, eq=False)
class Generations:
    """Completions of one model on held-out prompts, with their rewards.

    Attributes:
        prompts: readable prompts (P,).
        prompt_keys: canonical prompts (P,).
        samples_per_prompt: completions for each prompt.
        completions: texts (n,), n = P x samples_per_prompt, all samples of a prompt together.
        rewards: reward units (n,); all nan when nothing scored them.
        lengths: tokens (n,).
        finished: True where the completion ended by itself (n,).
        kl: summed log π(y) - log π_ref(y) of the sampled completion, nats (n,); all nan when not measured.
        drawn: how the completions were drawn; the mean of `kl` estimates a KL only where they are samples of the policy
            itself.
        clusters: what depends on each other (P,): what the data name as `cluster`, else the prompt; empty for prompts.
        notes: what the reward did with completions that it could not score as they are, in sentences.

    Raises:
        DataError: the parts differ in number, or a reward or KL is not finite.
    """

    prompts: list[str]
    prompt_keys: list[str]
    samples_per_prompt: int
    completions: list[str]
    rewards: Float64[np.ndarray, " n"]
    lengths: Int64[np.ndarray, " n"]
    finished: Bool[np.ndarray, " n"]
    kl: Float64[np.ndarray, " n"]
    drawn: Drawn = POLICY_ITSELF
    clusters: list[str] = field(default_factory=list[str])
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.prompts) * self.samples_per_prompt
        expected = {"prompt_keys": len(self.prompts)} | ({"clusters": len(self.prompts)} if self.clusters else {})
        expected |= {part.name: count for part in fields(self)[3:] if part.name not in ("drawn", "clusters", "notes")}
        for name, size in expected.items():
            if len(getattr(self, name)) != size:
                raise DataError(
                    f"{len(self.prompts)} prompts x {self.samples_per_prompt} samples, but {len(getattr(self, name))} "
                    f"{name}; expected {size}."
                )
        for name in ("rewards", "kl"):
            values = getattr(self, name)
            wrong = np.flatnonzero(~np.isfinite(values))
            if len(wrong) and not np.isnan(values).all():
                raise DataError(
                    f"{name} of {len(wrong)} completions is not finite, first completion {wrong[0]} (prompt "
                    f"{self.prompts[wrong[0] // self.samples_per_prompt][:80]!r}). Check the reward that scored it."
                )

    @property
    def responses(self) -> Responses:
        """The same as responses, with the scores reward and kl where they were measured: `Responses.load` reads them of
        the file that `save` writes, and their `pairs` are preferences to train on."""
        counts = range(0, len(self.completions), self.samples_per_prompt)
        prompts = zip(self.prompt_keys, self.prompts, strict=True)
        scores = {"reward": self.rewards, "kl": self.kl}
        return Responses(
            [shown if key == shown else prompt_of_key(key) for key, shown in prompts],
            [self.completions[start : start + self.samples_per_prompt] for start in counts],
            {name: values for name, values in scores.items() if not np.isnan(values).all()},
            tokens=self.lengths,
            finished=self.finished,
            columns={"cluster": self.clusters} if self.clusters else {},
        )

    def save(self, path: str | Path) -> None:
        """Write one row a completion as Parquet.

        Raises:
            ConfigError: the name does not end in .parquet.
            RunError: the path is a folder, or cannot be written.
        """
        row = np.repeat(np.arange(len(self.prompts)), self.samples_per_prompt)
        columns: dict[str, Any] = {
            "prompt": pa.array(self.prompts, pa.string()).take(pa.array(row)),
            "prompt_key": pa.array(self.prompt_keys, pa.string()).take(pa.array(row)),
            "completion": pa.array(self.completions, pa.string()),
            "reward": pa.array(self.rewards, pa.float64()),
            "length": pa.array(self.lengths, pa.int64()),
            "finished": pa.array(self.finished, pa.bool_()),
            "kl": pa.array(self.kl, pa.float64()),
        }
        if self.clusters:
            columns["cluster"] = pa.array(self.clusters, pa.string()).take(pa.array(row))
        facts = {_SAMPLES_KEY: str(self.samples_per_prompt), _DRAWN_KEY: json.dumps(asdict(self.drawn))}
        facts |= {_NOTES_KEY: json.dumps(self.notes)} if self.notes else {}
        table = pa.table(columns).replace_schema_metadata({key: text.encode() for key, text in facts.items()})
        with whole_file(path, PARQUET) as partial:
            pq.write_table(table, partial, compression="zstd")

    def first(self, prompts: int) -> "Generations":
        """The completions of the first so many prompts."""
        count = min(prompts, len(self.prompts)) * self.samples_per_prompt
        return Generations(
            prompts=self.prompts[:prompts],
            prompt_keys=self.prompt_keys[:prompts],
            samples_per_prompt=self.samples_per_prompt,
            completions=self.completions[:count],
            rewards=self.rewards[:count],
            lengths=self.lengths[:count],
            finished=self.finished[:count],
            kl=self.kl[:count],
            drawn=self.drawn,
            clusters=self.clusters[:prompts],
            notes=self.notes,
        )

    @staticmethod
    def load(path: str | Path) -> "Generations":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or is not a file of generations.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file. Generate it with: popmargin eval RUN")
        try:
            table = pq.read_table(path)
            facts = table.schema.metadata or {}
            samples = int(facts[_SAMPLES_KEY])
            if _DRAWN_KEY not in facts:
                raise DataError(
                    f"{path} does not say how its completions were sampled. Generate again: popmargin eval."
                )
            drawn = Drawn(**json.loads(facts[_DRAWN_KEY]))
            notes = tuple(json.loads(facts.get(_NOTES_KEY, "[]")))
            columns = {name: table[name] for name in ("prompt", "prompt_key", "completion")}
            clusters = table["cluster"].to_pylist()[::samples] if "cluster" in table.column_names else []
            numbers = {name: table[name].to_numpy() for name in ("reward", "length", "finished", "kl")}
        except DataError:
            raise
        except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a file of generations ({error!r}). Generate again.") from error
        return Generations(
            prompts=columns["prompt"].to_pylist()[::samples],
            prompt_keys=columns["prompt_key"].to_pylist()[::samples],
            samples_per_prompt=samples,
            completions=columns["completion"].to_pylist(),
            rewards=numbers["reward"].astype(np.float64),
            lengths=numbers["length"].astype(np.int64),
            finished=numbers["finished"].astype(bool),
            kl=numbers["kl"].astype(np.float64),
            drawn=drawn,
            clusters=clusters,
            notes=notes,
        )
