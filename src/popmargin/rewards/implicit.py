"""A policy's implicit reward: how much likelier it has made a response than its reference does.

Axis suffixes: n responses.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from popmargin.data.cut_tokens import split_sequences
from popmargin.data.encode import Encoder, make_encoder
from popmargin.data.goals import asks_for_goal, with_goal
from popmargin.data.tokenize import tokenize_prompts
from popmargin.engine.limits import too_long
from popmargin.engine.logps import ForwardPlan, forward_plan
from popmargin.errors import ConfigError, RunError
from popmargin.generate.from_policy import sampled_text
from popmargin.generate.sample import completion_logps
from popmargin.models.named_policy import NamedPolicy, find_policy
from popmargin.rewards.base import Answer, Prompt, check_rows, checked_rewards

NO_REFERENCE = "none"


@dataclass(frozen=True)
class _Scored:
    """Token ids of a prompt and of what is scored after it."""

    prompt: list[int]
    tokens: list[int]


class ImplicitReward:
    """ρ(y) = log π(y | x) − log π_ref(y | x), nats: summed over the tokens of a response, without β.

    Where the token ids of a response are known, as `popmargin generate` writes them, exactly these are scored, after
    the prompt's own: a response that was cut has no end token, since none was sampled. Other texts become tokens as in
    the run's training, with an end token unless they are known to be unfinished; `take_notes` says how many.

    Args:
        run: the policy π: a run directory, or a model's folder or hub id with a `reference`.
        reference: π_ref: a run directory, a folder, a hub id, or `none` for log π alone; by default the run's own.
        per_token: divide by the number of tokens (ours; the sum grows with the length where π has drifted).
        tokens_per_batch: most tokens in a forward pass; the rewards do not depend on it.
        precision: fp32 or bf16; by default the run's own.

    Raises:
        ConfigError: the policy has no reference, or one with another tokenizer.
        RunError: a model cannot be loaded, or is not what it was in the run's training.
    """

    def __init__(
        self,
        run: str,
        *,
        reference: str | None = None,
        per_token: bool = False,
        tokens_per_batch: int = 4096,
        precision: Literal["fp32", "bf16"] | None = None,
    ) -> None:
        if precision not in (None, "fp32", "bf16") or tokens_per_batch < 1:
            raise ConfigError(
                f"implicit:{run}: precision is {precision!r} and tokens_per_batch {tokens_per_batch}; give fp32 or "
                "bf16, and at least 1 token."
            )
        self._policy = find_policy(run)
        self._reference = None if reference in (None, NO_REFERENCE) else find_policy(str(reference))
        if reference is None and self._policy.trained is None:
            self._policy.load_reference()  # says what is missing
        self._alone = reference == NO_REFERENCE
        self._per_token = per_token
        self._tokens_per_batch = tokens_per_batch
        self._precision = precision or self._policy.precision
        self._encoders: dict[bool, Encoder] = {}
        self._counts: Counter[str] = Counter()
        self._asked = 0
        if self._reference is not None:
            self._refuse_other_tokenizer(self._reference)

    def score(self, prompts: list[Prompt], completions: list[str]) -> list[float]:
        """ρ of texts, each with an end token.

        Raises:
            RunError: the texts differ in number from the prompts, or are too long for a model.
        """
        check_rows(prompts, completions)
        rewards = self.score_answers([Answer(prompt, text) for prompt, text in zip(prompts, completions, strict=True)])
        return checked_rewards(rewards, len(rewards), f"implicit:{self._policy.name}")

    def score_answers(self, answers: Sequence[Answer]) -> list[float]:
        """ρ of each response; nan where it has no tokens at all.

        Raises:
            RunError: a response is too long for a model.
        """
        rows = [self._tokens(self._asked_for(answer)) for answer in answers]
        self._asked += len(rows)
        places = [place for place, row in enumerate(rows) if row.tokens]
        self._counts["have no tokens, and get no reward"] += len(rows) - len(places)
        rewards = np.full(len(rows), np.nan)
        if places:
            kept = [rows[place] for place in places]
            values = self._sums(self._model, kept)
            if not self._alone:
                values -= self._sums(self._reference_model, kept)
            rewards[places] = values / [len(row.tokens) for row in kept] if self._per_token else values
        return rewards.tolist()

    def _asked_for(self, answer: Answer) -> Answer:
        """The answer to the prompt that asks for the best goal, of a policy that was trained on goals."""
        goal = self._policy.goal
        prompt: Any = answer.prompt
        if goal is None or asks_for_goal(prompt, goal):
            return answer
        self._counts[f"are scored under the goal '{goal.line(goal.best or ())}', the best of the training"] += 1
        asked: Any = with_goal([prompt], None, goal)[0]
        return replace(answer, prompt=asked)

    def take_notes(self) -> list[str]:
        """How many responses were not scored as they were sampled, and why, since this was last asked."""
        counts, asked = self._counts, self._asked
        self._counts, self._asked = Counter(), 0
        return [f"responses that {what}: {count} of {asked}" for what, count in counts.items() if count]

    @cached_property
    def _model(self) -> tuple[Any, ForwardPlan]:
        model = self._policy.load()
        return model, forward_plan(model)

    @cached_property
    def _reference_model(self) -> tuple[Any, ForwardPlan]:
        model = self._policy.load_reference() if self._reference is None else self._reference.load()
        return model, forward_plan(model)

    def _sums(self, scoring: tuple[Any, ForwardPlan], rows: Sequence[_Scored]) -> np.ndarray:
        """Summed log-probs (n,), nats."""
        model, plan = scoring
        longest = max(len(row.prompt) + len(row.tokens) for row in rows)
        reason = too_long(model, longest)
        if reason is not None:
            raise RunError(
                f"A response with its prompt has {longest:,} tokens, too many for a model of implicit:"
                f"{self._policy.name}: {reason}. Leave it out."
            )
        return completion_logps(
            model,
            [np.array(row.prompt) for row in rows],
            [np.array(row.tokens) for row in rows],
            plan=plan,
            tokens_per_batch=self._tokens_per_batch,
            precision=self._precision,
            pad_id=self._policy.tokenizer.pad_token_id,
        )

    def _tokens(self, answer: Answer) -> _Scored:
        """The ids that were sampled, or those of the text, which is counted."""
        if answer.token_ids is not None:
            found = self._sampled(answer, [int(token) for token in answer.token_ids])
            if found is not None:
                return found
            self._counts["were sampled with another tokenizer, and were tokenized again"] += 1
        elif answer.finished is False:
            self._counts["were cut and have no token ids: their text was tokenized, without an end token"] += 1
        else:
            self._counts["have no token ids: their text was tokenized, with an end token"] += 1
        return self._of_text(answer)

    def _sampled(self, answer: Answer, tokens: list[int]) -> _Scored | None:
        """As sampled; None where the ids do not say what the response says, so that they are another tokenizer's."""
        tokenizer = self._policy.tokenizer
        if answer.prompt_tokens == 0:
            return None
        prompts: list[Any] = [answer.prompt]
        prompt = tokenize_prompts(prompts, tokenizer, max_length=answer.prompt_tokens)[0]
        if answer.prompt_tokens not in (None, len(prompt)) or max(tokens, default=0) >= len(tokenizer):
            return None
        ends = [tokens[-1]] if answer.finished and tokens else []
        texts = [sampled_text(tokenizer, answer.prompt, prompt, np.array(tokens, np.int64), end) for end in (ends, [])]
        if answer.text.strip() not in [text.strip() for text in texts]:
            return None
        return _Scored(prompt.tolist(), tokens)

    def _of_text(self, answer: Answer) -> _Scored:
        """As in training; what is known to be unfinished gets no end token."""
        chat = not isinstance(answer.prompt, str)
        if chat not in self._encoders:
            policy = self._policy
            self._encoders[chat] = make_encoder(policy.tokenizer, conversational=chat, writing=policy.writing)
        encoder = self._encoders[chat]
        written: Any = [{"role": "assistant", "content": answer.text}] if chat else answer.text
        alone, wholes = encoder.prompts([answer.prompt], 0)[0], encoder.wholes([answer.prompt], [written], 0)
        prompt, (tokens,), _ = split_sequences(alone, wholes, encoder)
        if answer.finished is False and tokens and tokens[-1] in {*encoder.ends, encoder.eos}:
            tokens = tokens[:-1]
        return _Scored(prompt, tokens)

    def _refuse_other_tokenizer(self, reference: NamedPolicy) -> None:
        theirs, ours = reference.tokenizer.get_vocab(), self._policy.tokenizer.get_vocab()
        if theirs != ours:
            raise ConfigError(
                f"The reference '{reference.name}' has another tokenizer (of size {len(theirs)}) than the policy "
                f"'{self._policy.name}' (of size {len(ours)}), so their log-probs are of different tokens. Choose a "
                "reference with the same tokenizer."
            )
