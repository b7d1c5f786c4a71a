"""Settings of the preferences."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from popmargin.bounds import NotNegative, PartialShare, Pixels, Positive, Seed, ShareOrCount, Size
from popmargin.config.checked import section
from popmargin.errors import ConfigError


def _joined(value: Any) -> Any:
    """A list of names as one text, as it stands on a command line."""
    texts = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    return ",".join(value) if texts else value


Source = Annotated[
    str, BeforeValidator(_joined, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)])
]
"""What rows are read from, or a list of it."""


def check_writing(prompt: str, reasoning: str) -> None:
    """Check how conversations become prompt and completion.

    Raises:
        ConfigError: a combination without meaning.
    """
    if reasoning == "keep" and prompt != "sampling":
        raise ConfigError(
            "data.reasoning: keep puts a completion's full text after the sampling prompt, so it needs data.prompt: "
            "sampling. Set both, or neither."
        )


@section("data")
class DataConfig:
    """The preferences.

    Attributes:
        train: a file, a glob, a folder of files, a saved data set, a hub id (each of these also as a list), or embedded
            data: `demo`, or `demo-digits` and `demo-emoji` for pictures.
        test: held-out preferences, in the same forms; null splits `test_size` off `train`, by prompt.
        split: the split of `train`, if it has several; `name:split` works too, also for `test`.
        format: the layout of the rows; `auto` detects it.
        pairs: how several rated responses per prompt become pairs: best_vs_worst, best_vs_random, best_vs_rest, all.
        min_gap: minimum rating gap of a pair made from rated responses.
        test_size: share (below 1) or number of preferences held out.
        split_seed: seed of the split and of the pairing.
        validation_size: share (below 1) or number of training prompts used instead of the held-out ones, to tune
            without them; 0 for none.
        max_length: maximum length of prompt + completion, tokens.
        truncation: what to do with longer rows: keep_prompt_end, keep_prompt_start, drop, error.
        prompt: `template` trains on the prompt as the chat template writes it in the whole conversation; `sampling` on
            the prompt that sampling starts from, which can differ at its end.
        reasoning: `template` trains on a completion as the chat template writes it; `keep` (with prompt `sampling`) on
            its full text if the template drops part of it, such as reasoning.
        bad_rows: `error` stops at unusable rows, `drop` leaves them out and reports them.
        contradictions: rows whose ratings, strength or soft label say that rejected is better: `error` refuses ratings
            and strengths, and swaps the responses of such a soft label; `keep` takes the label as it is, with a
            negative strength or a soft label below ½.
        max_image_pixels: the most pixels (width times height) of an image; larger ones are not decoded, but unusable.
        columns: maps popmargin's column names to the file's.
        soft_label_temperature: soft labels of training preferences from their ratings, σ(gap / temperature), in rating
            points: a number; or `range`, the largest rating less the smallest of all training preferences, as in SmPO;
            or `quantiles`, the 99% less the 1% quantile, with ratings cut there. Replaces the `soft_label` column. null
            reads that column, the probability that chosen is better; below ½, chosen and rejected are swapped.
        flip: share of training preferences whose label is flipped, to study noise.
        limit: maximum number of training preferences.
        workers: processes that tokenize; null for one a core (at most 8), and 1 for less than 100,000 rows.
        cache: a folder that keeps the tokens of data from 20,000 rows on, memory-mapped, for the next run; null for
            `tokens` in the user's cache folder (~/.cache/popmargin, or $POPMARGIN_CACHE).
    """

    train: Source = "demo"
    test: Source | None = None
    split: str | None = None
    format: str = "auto"
    pairs: Literal["best_vs_worst", "best_vs_random", "best_vs_rest", "all"] = "best_vs_worst"
    min_gap: NotNegative = 0.0
    test_size: ShareOrCount = 0.2
    split_seed: Seed = 0
    validation_size: ShareOrCount = 0.0
    max_length: Annotated[int, Strict(), Field(ge=2)] = 1024
    truncation: Literal["keep_prompt_end", "keep_prompt_start", "drop", "error"] = "keep_prompt_end"
    prompt: Literal["template", "sampling"] = "template"
    reasoning: Literal["template", "keep"] = "template"
    bad_rows: Literal["error", "drop"] = "error"
    contradictions: Literal["error", "keep"] = "error"
    max_image_pixels: Pixels = 2**25
    columns: dict[str, str] = field(default_factory=dict[str, str])
    soft_label_temperature: Positive | Literal["range", "quantiles"] | None = None
    flip: PartialShare = 0.0
    limit: Size | None = None
    workers: Size | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        check_writing(self.prompt, self.reasoning)
