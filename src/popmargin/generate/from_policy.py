"""Responses of a policy in this process: exact samples with their token ids, the same whenever a run is interrupted."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from popmargin.data.goal_tokens import refuse_cut_prompts
from popmargin.data.ragged import Ragged
from popmargin.data.read_prompts import Prompts
from popmargin.data.tokenize import tokenize_prompts
from popmargin.engine.limits import too_long
from popmargin.engine.reference import model_fingerprint
from popmargin.errors import ConfigError
from popmargin.files import digest
from popmargin.generate.ends import end_tokens
from popmargin.generate.goal_prompts import NO_GOAL, Goal, asked_for, on_prompts
from popmargin.generate.part_file import PartFile
from popmargin.generate.produced import Produced, as_responses
from popmargin.generate.sample import Sampler, Sampling
from popmargin.models.named_policy import NamedPolicy


def policy_responses(
    prompts: Prompts,
    policy: NamedPolicy,
    sampling: Sampling,
    *,
    source: str | None = None,
    round: int | None = None,
    goal: Goal | Literal["none"] = None,
    max_prompt_tokens: int | None = None,
    part: Path | None = None,
    progress: bool = False,
) -> Produced:
    """Sample responses of a policy that a name means; see `model_responses`.

    A run that was trained on goals is asked for the best one seen in training; the responses have the prompts without
    goals, and a column `goal`.

    Args:
        prompts: see `load_prompts`.
        policy: see `find_policy`.
        sampling: how to sample.
        source: what the responses are said to be from; None takes the policy's name.
        goal: another goal (see `with_goal`), or "none" for prompts as they are.
        round, max_prompt_tokens, part, progress: as in `model_responses`.

    Raises:
        ConfigError: a goal of a policy that was trained on none, or one that its training did not know.
        DataError: prompts with a goal that are longer than max_prompt_tokens, and would lose it.
    """
    facts = None if goal == NO_GOAL else policy.goal
    if facts is None and goal not in (None, NO_GOAL):
        raise ConfigError(f"{policy.name} was trained on no goals, so it cannot be asked for one. Leave out the goal.")
    if facts is not None:
        plain, asked, line = asked_for(prompts, goal, facts)  # pyright: ignore[reportArgumentType]
        if max_prompt_tokens is not None:
            refuse_cut_prompts(tokenize_prompts(asked.prompts, policy.tokenizer).lengths, max_prompt_tokens)
        made = policy_responses(
            asked, policy, sampling, source=source, round=round, goal="none", max_prompt_tokens=max_prompt_tokens,
            part=part, progress=progress,
        )  # fmt: skip
        notes = (f"prompts asked for '{line}'; trained: {facts.note()}", *plain.notes[len(prompts.notes) :])
        return replace(made, responses=on_prompts(made.responses, plain, line), notes=(*made.notes, *notes))
    model = policy.load()
    ends = end_tokens(policy.tokenizer, model.generation_config, policy.trained_ends)
    return model_responses(
        prompts,
        model,
        policy.tokenizer,
        sampling,
        ends=ends,
        source=policy.name if source is None else source,
        round=round,
        max_prompt_tokens=max_prompt_tokens,
        part=part,
        progress=progress,
    )


def model_responses(
    prompts: Prompts,
    model: Any,
    tokenizer: Any,
    sampling: Sampling,
    *,
    source: str,
    ends: Sequence[int] | None = None,
    round: int | None = None,
    max_prompt_tokens: int | None = None,
    part: Path | None = None,
    progress: bool = False,
) -> Produced:
    """Sample responses of a model in memory.

    Every response has random numbers of its own (`Sampler.draw`): it depends on seed, prompt and its number, and on
    neither the batch size nor the other prompts, but for rounding. With a part file, what a killed call has finished is
    kept, and a later call with the same arguments gives what one call would have given.

    Args:
        prompts: see `load_prompts`.
        model: a causal language model with transformers' `generate`, or an adapter on one.
        tokenizer: its tokenizer, with a padding token.
        sampling: how to sample.
        source: what the responses are said to be from.
        ends: ids of the tokens that end a response; None takes `end_tokens` of tokenizer and model.
        round: of an iteration, if there is one.
        max_prompt_tokens: longer prompts lose tokens at their start; None refuses those that the model cannot take.
        part: file of what is finished, deleted by whoever saves the responses (`PartFile.remove`); None keeps none.
        progress: show a progress bar, with tokens per second.

    Returns:
        Responses with `token_ids` (as sampled, with the end token where one was), `tokens` (their number), `finished`
        (False where the limit cut one), `source` and `round`; the column `prompt_tokens` says how many tokens of a
        prompt were seen. A text is what was sampled, white space included.

    Raises:
        ConfigError: prompt and response are longer than the model takes.
        RunError: the part file was begun for something else.
    """
    ends = end_tokens(tokenizer, model.generation_config) if ends is None else sorted(ends)
    tokens = tokenize_prompts(prompts.prompts, tokenizer, max_length=max_prompt_tokens)
    _check_room(model, tokens, sampling)
    asked = {
        "prompts": digest(*(key.encode("utf-8", "surrogatepass") for key in prompts.keys)),
        "prompt tokens": digest(tokens.offsets.tobytes(), tokens.values.tobytes()),
        "model": model_fingerprint(model),
        "ends": ends,
        "samples": sampling.samples,
        "max_new_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
        "precision": sampling.precision,
        **vars(sampling.drawn),
    }
    kept = PartFile(part, asked)
    before, started = len(kept.done), time.monotonic()
    sampler = Sampler(model, tokenizer, tokens, sampling, ends=ends, keys=prompts.keys)
    new_tokens = 0
    with tqdm(
        total=len(prompts) * sampling.samples, initial=before, desc="responses", disable=not progress, unit="response"
    ) as bar:
        for places in sampler.batches:
            numbers = [divmod(place, sampling.samples) for place in places]
            if all(number in kept.done for number in numbers):
                continue
            # A batch of which a part was kept is drawn whole again: it is then the same batch, to the last bit.
            found = sampler.draw(places)
            entries: list[dict[str, Any]] = [
                {
                    "prompt": prompt,
                    "number": number,
                    "text": sampled_text(tokenizer, prompts.prompts[prompt], tokens[prompt], completion.tokens, ends),
                    "finished": completion.finished,
                    "token_ids": completion.tokens.tolist(),
                    "tokens": len(completion.tokens),
                }
                for (prompt, number), completion in zip(numbers, found, strict=True)
                if (prompt, number) not in kept.done
            ]
            kept.add(entries)
            new_tokens += sum(entry["tokens"] for entry in entries)
            bar.set_postfix_str(f"{new_tokens / max(time.monotonic() - started, 1e-9):,.0f} tokens/s", refresh=False)
            bar.update(len(entries))
    made = as_responses(
        prompts, kept.done, source=source, round=round, columns={"prompt_tokens": tokens.lengths.tolist()}
    )
    cut = _cut(prompts, tokenizer, max_prompt_tokens)
    return Produced(
        made,
        new=len(kept.done) - before,
        new_tokens=new_tokens,
        seconds=time.monotonic() - started,
        notes=(f"prompts cut to their last {max_prompt_tokens} tokens: {cut} of {len(prompts)}",) if cut else (),
    )


def sampled_text(tokenizer: Any, prompt: Any, before: np.ndarray, tokens: np.ndarray, ends: Sequence[int]) -> str:
    """What sampled tokens say, white space included; the end token and other special ones say nothing.

    Args:
        tokenizer: decodes.
        prompt: text, or messages.
        before: ids of the prompt. After a text they count: many tokenizers drop the space before a text that stands
            alone.
        tokens: ids of the response.
        ends: ids of the tokens that end one.
    """
    ids = (tokens[:-1] if len(tokens) and int(tokens[-1]) in ends else tokens).tolist()
    alone = tokenizer.decode(ids, skip_special_tokens=True)
    if not isinstance(prompt, str):
        return alone
    start = tokenizer.decode(before.tolist(), skip_special_tokens=True)
    whole = tokenizer.decode([*before.tolist(), *ids], skip_special_tokens=True)
    return whole[len(start) :] if whole.startswith(start) else alone


def _check_room(model: Any, tokens: Ragged, sampling: Sampling) -> None:
    longest = int(tokens.lengths.max()) if len(tokens) else 0
    reason = too_long(model, longest + sampling.max_new_tokens)
    if reason is not None:
        raise ConfigError(
            f"A prompt of {longest:,} tokens with a response of up to {sampling.max_new_tokens:,} is too long for the "
            f"model: {reason}. Lower max_new_tokens, or set max_prompt_tokens (--max-prompt-tokens)."
        )


def _cut(prompts: Prompts, tokenizer: Any, most: int | None) -> int:
    return 0 if most is None else int((tokenize_prompts(prompts.prompts, tokenizer).lengths > most).sum())
