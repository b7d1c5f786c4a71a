"""Scores of responses by a reward, under a name; what gets no score stays without one, and is counted."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from popmargin.data.images import decode, image_bytes, pillow
from popmargin.data.responses import Responses
from popmargin.errors import DataError
from popmargin.rewards.base import Answer, AnswerReward, PartialReward, Reward, notes_of, say_cost
from popmargin.rewards.image_rewards import ImageReward, PartialImageReward
from popmargin.rewards.load import load_image_reward, load_reward
from popmargin.rewards.rate import last_turn

_BATCH = 256  # responses that are handed to the reward at once
_IMAGES = 64  # images, which are large


@dataclass(frozen=True)
class RatedResponses:
    """Responses with a new score.

    Attributes:
        responses: with it.
        missing: how many have none.
        notes: what the reward did with responses that it could not score as they are, in sentences.
    """

    responses: Responses
    missing: int
    notes: tuple[str, ...] = ()


def rate_responses(
    responses: Responses, reward: str | Callable[..., Any] | Reward | ImageReward, *, name: str
) -> RatedResponses:
    """Score every response; nan where the reward has no number: a judge's answer without a rating, None of a function.

    A reward that scores tokens (`implicit:RUN`) gets the ids that were sampled, where the responses have `token_ids`.

    Args:
        responses: texts or conversations; a conversation must end with the assistant's turn. Or images, with their
            files in the field `image`.
        reward: a function of (prompts, completions), or a specification as in `load_reward`; of images a function of
            (prompts, images), or one as in `load_image_reward`.
        name: of the score.

    Raises:
        ConfigError: a reward of texts for images, or the reverse.
        DataError: the responses have a score of that name, a response does not end with the assistant's turn, or no
            response gets a score.
        RunError: the reward gives something else than numbers.

    Example:
        >>> answers = Responses(["2+2?"], [["4", "four", "?"]])
        >>> def length(prompts, completions):
        ...     return [len(text) if text.isalnum() else None for text in completions]
        >>> rated = rate_responses(answers, length, name="length")
        >>> rated.responses.score("length").tolist(), rated.missing
        ([1.0, 4.0, nan], 1)
    """
    taken = (*responses.score_names, *responses.field_names, *responses.column_names, "prompt", "responses", "text")
    if name in taken:
        raise DataError(f"The responses have '{name}' already. Give the new score another name (--name NAME).")
    if holds_images(responses):
        image_scorer = load_image_reward(reward)  # pyright: ignore[reportArgumentType]
        return _rated(responses, name, _image_scores(responses, image_scorer), image_scorer)
    scorer = load_reward(reward)  # pyright: ignore[reportArgumentType]
    answers = answers_of(responses)
    say_cost(scorer, [answer.prompt for answer in answers], [answer.text for answer in answers])
    values: list[float] = []
    for start in range(0, len(answers), _BATCH):
        batch = answers[start : start + _BATCH]
        if isinstance(scorer, AnswerReward):
            values += scorer.score_answers(batch)
            continue
        asked = [answer.prompt for answer in batch], [answer.text for answer in batch]
        values += scorer.score_some(*asked) if isinstance(scorer, PartialReward) else scorer.score(*asked)
    return _rated(responses, name, values, scorer)


def holds_images(responses: Responses) -> bool:
    """Whether responses are images: their names are the texts, and the field `image` has their files."""
    return "image" in responses.field_names


def _rated(responses: Responses, name: str, values: list[float], scorer: object) -> RatedResponses:
    missing = sum(map(math.isnan, values))
    if missing == len(values):
        raise DataError(f"None of {len(values)} responses got a score. Look at what the reward answers.")
    return RatedResponses(responses.with_scores({name: values}), missing, notes_of(scorer))


def _image_scores(responses: Responses, scorer: ImageReward) -> list[float]:
    prompts: list[Any] = [
        prompt for prompt, count in zip(responses.prompts, responses.counts, strict=True) for _ in range(count)
    ]
    files, values = responses.field("image"), list[float]()
    missing = [place for place, file in enumerate(files) if file is None]
    if missing:
        raise DataError(f"Response {missing[0]} has no image, and others have one. Rate images and texts apart.")
    for start in range(0, len(files), _IMAGES):
        asked = prompts[start : start + _IMAGES]
        images = [
            pillow().fromarray(decode(image_bytes(file), where=f"response {start + place}"))
            for place, file in enumerate(files[start : start + _IMAGES])
        ]
        some = isinstance(scorer, PartialImageReward)
        values += scorer.score_some_images(asked, images) if some else scorer.score_images(asked, images)
    return values


def answers_of(responses: Responses) -> list[Answer]:
    """All responses as a reward takes them, with what is known of their tokens."""
    fields, counts = responses.field_names, responses.counts
    known: list[Any] = responses.column("prompt_tokens") if "prompt_tokens" in responses.column_names else []
    unknown: list[Any] = [None] * len(responses.texts)
    ids = responses.field("token_ids") if "token_ids" in fields else unknown
    finished = responses.field("finished") if "finished" in fields else unknown
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    prompts, answers = responses.prompts, list[Answer]()
    for row, text, tokens, ended in zip(rows, responses.texts, ids, finished, strict=True):
        prompt, said = last_turn(prompts[row], text, f"prompt {row}")
        whole = isinstance(text, str)  # a conversation of several turns was not sampled in one go
        answers.append(Answer(prompt, said, tokens if whole else None, ended, known[row] if known and whole else None))
    return answers
