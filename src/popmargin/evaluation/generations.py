"""Responses of one model to held-out prompts, as evaluated and stored."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from popmargin.data.responses import Responses
from popmargin.errors import DataError
from popmargin.files import PARQUET, whole_file
from popmargin.generate.drawn import POLICY_ITSELF, Drawn, DrawnImages

_DRAWN_KEY = b"popmargin.drawn"
_NOTES_KEY = b"popmargin.notes"


@dataclass(frozen=True, eq=False)
class Generations:
    """Responses of one model to held-out prompts, and how they were sampled.

    Attributes:
        responses: texts with their `tokens` and whether they are `finished`, or names of images with their PNG files
            in `image`; the scores `reward` (reward units), those of further rewards by their names, and `kl`, the
            summed log π(y) - log π_ref(y) of a response (nats), each if measured; and the prompts' column `cluster`,
            if the data has one.
        drawn: how they were sampled; the mean of `kl` estimates a KL only for samples from the policy itself.
        notes: what the reward did with responses that it could not score in full, in sentences.

    Raises:
        DataError: only some responses have a score, or one consists of messages.
    """

    responses: Responses
    drawn: Drawn | DrawnImages = POLICY_ITSELF
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        of, prompt = self.responses, np.repeat(np.arange(len(self.responses)), self.responses.counts)
        for name in of.score_names:
            wrong = np.flatnonzero(np.isnan(of.score(name)))
            if 0 < len(wrong) < len(of.texts):
                raise DataError(
                    f"{len(wrong)} responses have no {name}, first response {wrong[0]} (prompt "
                    f"{str(of.prompts[prompt[wrong[0]]])[:80]!r}). Check the reward that scored it."
                )
        talks = [place for place, text in enumerate(of.texts) if not isinstance(text, str)]
        if talks:
            raise DataError(f"Response {talks[0]} is messages. Give generations as texts.")

    @property
    def of_images(self) -> bool:
        """Whether the responses are images."""
        return "image" in self.responses.field_names

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the scores beside `reward` and `kl`: those of `evaluation.also`."""
        return tuple(name for name in self.responses.score_names if name not in ("reward", "kl"))

    def save(self, path: str | Path) -> None:
        """Write Parquet that `Responses.load` and `load_preferences` also read: one row per prompt.

        Raises:
            ConfigError: the name does not end in .parquet.
            RunError: the path is a folder, or cannot be written.
        """
        table = self.responses.to_arrow()
        facts = {_DRAWN_KEY: json.dumps(asdict(self.drawn)), _NOTES_KEY: json.dumps(self.notes)}
        with whole_file(path, PARQUET) as partial:
            pq.write_table(
                table.replace_schema_metadata({**table.schema.metadata, **facts}), partial, compression="zstd"
            )

    def first(self, prompts: int) -> "Generations":
        """The responses to the first `count` prompts."""
        return replace(self, responses=self.responses[:prompts])

    @staticmethod
    def load(path: str | Path) -> "Generations":
        """Read what `save` wrote, including older files with one row per response.

        Raises:
            DataError: the file is missing or is not a file of generations.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file. Generate it with: popmargin eval RUN")
        try:
            facts = pq.read_schema(path).metadata or {}
            if _DRAWN_KEY not in facts:
                raise DataError(f"{path} does not say how its responses were sampled. Generate again: popmargin eval.")
            said = json.loads(facts[_DRAWN_KEY])
            drawn = DrawnImages(**said) if "denoising_steps" in said else Drawn(**said)
            notes = tuple(json.loads(facts.get(_NOTES_KEY, "[]")))
            return Generations(Responses.load(path), drawn, notes)
        except DataError:
            raise
        except (pa.ArrowInvalid, OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a file of generations ({error!r}). Generate again.") from error
