"""Preferences from files, data sets and memory, in any of the known formats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from popmargin.bounds import MOST_PIXELS
from popmargin.data.collect import Collector
from popmargin.data.formats import FORMATS, Reader
from popmargin.data.formats.image_cells import ImageCells
from popmargin.data.images import MAX_PIXELS
from popmargin.data.load_report import LoadReport
from popmargin.data.locate import open_source
from popmargin.data.pairs import UNRATED_PAIRINGS, Pairing, UnratedPairing, check_pairing
from popmargin.data.schema import Preferences
from popmargin.data.validate import describe_problems, raise_problems
from popmargin.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import datasets

    DataSet = datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict
else:  # datasets takes a second to import, and many commands need none of it
    DataSet = Any

BadRows = Literal["error", "drop"]
Ties = Literal["drop", "keep"]
Contradictions = Literal["error", "keep"]


def load_preferences(
    source: "str | Path | Sequence[str | Path] | DataSet | list[dict[str, Any]]",
    *,
    format: str = "auto",
    split: str | None = None,
    pairs: Pairing = "best_vs_worst",
    min_gap: float = 0.0,
    seed: int = 0,
    bad_rows: BadRows = "error",
    columns: Mapping[str, str] | None = None,
    ties: Ties = "drop",
    contradictions: Contradictions = "error",
    unlabelled: UnratedPairing | None = None,
    per_prompt: int = 1,
    max_image_pixels: int = MAX_PIXELS,
) -> Preferences:
    """Load preferences; every row is kept or reported (`.report`), never skipped silently.

    If `soft_label`, the probability that chosen is better, is below ½, chosen and rejected are swapped as in
    `Preferences.swap`; the report counts these rows. Ratings or a strength that contradict the label make a row
    unusable. Other columns are kept under their own names (`Preferences.extra_columns`).

    Args:
        source: a file (.jsonl, .json, .csv, .tsv, .parquet, each also .gz), a glob, a folder of such files or of
            `Dataset.save_to_disk`, a hub id; several of these in a list or separated by commas; a `datasets.Dataset`
            (one that streams is written to the user's cache folder once), or a list of
            dictionaries. `name:split` names the split of a folder or hub id.
        format: a name in `popmargin.data.formats.FORMATS`, or "auto" to detect it from the columns.
        split: the split of a data set that has several.
        pairs: how rated responses become pairs: "best_vs_worst", "best_vs_random", "best_vs_rest" or "all".
        min_gap: minimum strength (rating gap, in the ratings' unit) of a preference; weaker ones are dropped and
            reported, and so are rows of unknown strength if it is above 0. A pair given as chosen and rejected with
            equal ratings is not a tie.
        seed: seed of "best_vs_random".
        bad_rows: "error" raises if a row is unusable; "drop" drops such rows and reports each.
        columns: our field -> the source's column, e.g. {"prompt": "question"}; "text" and "rating" name the fields
            of each rated response.
        ties: "drop" drops and reports rated responses, signed strengths, winners and votes that prefer neither; "keep"
            makes them preferences of strength 0 and soft label ½, so that people can label them.
        contradictions: "error": as above; "keep" takes the label as it is, also where ratings, a strength or a soft
            label say that rejected is better: the strength is negative, the soft label below ½.
        unlabelled: also read responses that nobody has labelled, in pairs "ring", "all" or "random" (see
            `popmargin.data.pairs.unrated_pairs`). Their order is arbitrary, and the column `unlabelled` is true; a lone
            response to a prompt has no rejected one. None refuses them: they are for labelling, not for training.
        per_prompt: pairs of a prompt with "random".
        max_image_pixels: the most pixels, width times height, of an image; larger ones are reported, not decoded.

    Raises:
        DataError: unreadable source, unknown or ambiguous format, unusable rows, or no rows left.
        ConfigError: an unknown option value.

    Example:
        >>> prefs = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5", "margin": 2.0}])
        >>> len(prefs), prefs.strength.tolist(), prefs.report.columns_used["strength"]
        (1, [2.0], 'margin')
    """
    if bad_rows not in ("error", "drop"):
        raise ConfigError(f"bad_rows='{bad_rows}' is unknown. {did_you_mean(bad_rows, ['error', 'drop'])}")
    preferences, report = scan_preferences(
        source, format=format, split=split, pairs=pairs, min_gap=min_gap, seed=seed, columns=columns, ties=ties,
        contradictions=contradictions, unlabelled=unlabelled, per_prompt=per_prompt, max_image_pixels=max_image_pixels,
    )  # fmt: skip
    if bad_rows == "error":
        raise_problems(report.problems, report.rows_in)
    if preferences is None:
        raise DataError(
            f"{report.source}: no usable rows among {report.rows_in}.\n"
            f"{describe_problems(report.problems)}\n"
            "Remedy: fix the rows named above."
            if report.rows_in
            else f"{report.source}: there are no rows. Remedy: give at least one."
        )
    return preferences


def scan_preferences(
    source: object,
    *,
    format: str = "auto",
    split: str | None = None,
    pairs: str = "best_vs_worst",
    min_gap: float = 0.0,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    ties: str = "drop",
    contradictions: str = "error",
    unlabelled: str | None = None,
    per_prompt: int = 1,
    max_image_pixels: int = MAX_PIXELS,
) -> tuple[Preferences | None, LoadReport]:
    """Read everything and report every problem; the preferences are None if no row is usable.

    Args: as in `load_preferences`.

    Raises:
        DataError: unreadable source, or unknown or ambiguous format.
        ConfigError: an unknown option value.
    """
    check_pairing(pairs, min_gap)
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"format='{format}' is unknown. {did_you_mean(format, ['auto', *FORMATS])}")
    if ties not in ("drop", "keep"):
        raise ConfigError(f"ties='{ties}' is unknown. {did_you_mean(ties, ['drop', 'keep'])}")
    if contradictions not in ("error", "keep"):
        nearest = did_you_mean(contradictions, ["error", "keep"])
        raise ConfigError(f"contradictions='{contradictions}' is unknown. {nearest}")
    if unlabelled not in (None, *UNRATED_PAIRINGS):
        raise ConfigError(f"unlabelled='{unlabelled}' is unknown. {did_you_mean(unlabelled, UNRATED_PAIRINGS)}")
    if per_prompt < 1:
        raise ConfigError(f"per_prompt={per_prompt}: give at least 1.")
    if not 1 <= max_image_pixels <= MOST_PIXELS:
        raise ConfigError(f"max_image_pixels is {max_image_pixels}; it must be from 1 to {MOST_PIXELS:,}.")
    opened = open_source(source, split=split)
    images = ImageCells(max_pixels=max_image_pixels)
    reader = Reader({}, pairs=pairs, min_gap=min_gap, seed=seed, ties=ties, images=images,
                    contradictions=contradictions, unlabelled=unlabelled, per_prompt=per_prompt)  # fmt: skip
    collector = Collector(opened, format, reader, columns)
    for batch in opened.batches():
        collector.add(batch)
    return collector.finish()
