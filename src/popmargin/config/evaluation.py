"""Evaluation settings."""

from dataclasses import field
from typing import Any, Literal

from popmargin.bounds import Count, Goal, NotNegative, PositiveShare, Seed, Size
from popmargin.config.checked import section
from popmargin.errors import ConfigError


@section("evaluation")
class EvaluationConfig:
    """What is measured on held-out preferences and on generations.

    Attributes:
        reward: scores generations: `module:function`, `file.py:function`, `model:PATH` or `judge:MODEL@URL`; null
            generates nothing.
        reward_options: further arguments of the reward (for a judge: api_key_env, cache, request, max_cost …).
        also: further rewards of the same generations, reported beside the first under the names of their functions,
            such as whether an image still shows its prompt. A list of `module:function`, `file.py:function` or
            `model:PATH`.
        goals: scores from 1 to 10 that the same prompts ask for in turn, each for every attribute, of a run that was
            trained on goals; the report shows the reward at each. null asks for the best goal alone.
        prompts: held-out prompts to generate for; null uses all.
        samples: completions per prompt.
        max_new_tokens: maximum completion length, tokens.
        temperature: sampling temperature. Only samples at 1 with all tokens come from the policy itself and give a KL.
        top_k: sample among the k most likely tokens; 0 means all.
        top_p: sample among the most likely tokens that hold this probability together; 1 means all.
        generation_config: `ignore` ignores and reports what the model's own generation_config.json would change
            (penalties, cuts, beams …); `model` follows that file, and temperature, top_k and top_p have no
            effect.
        denoising_steps: of the sampler of images.
        guidance_scale: of classifier-free guidance when images are sampled; 1 means none.
        generation_batch_size: completions or images generated at once (does not change the metrics' weights).
        tokens_per_batch: maximum tokens per forward pass when scoring responses.
        seed: seed of sampling.
        pop_k: held-out PoP edges per preference, for the PoP accuracy.
        curve_points: points of the curves over training, evenly spaced; the last is the final evaluation, so n points
            cost n − 1 extra evaluations. 0 or 1 for none.
        curve_prompts: prompts for each point, at most `prompts`.
    """

    reward: str | None = None
    reward_options: dict[str, Any] = field(default_factory=dict[str, Any])
    also: list[str] = field(default_factory=list[str])
    goals: list[Goal] | None = None
    prompts: Size | None = None
    samples: Size = 1
    max_new_tokens: Size = 256
    temperature: NotNegative = 1.0
    top_k: Count = 0
    top_p: PositiveShare = 1.0
    generation_config: Literal["ignore", "model"] = "ignore"
    denoising_steps: Size = 20
    guidance_scale: NotNegative = 1.0
    generation_batch_size: Size = 64
    tokens_per_batch: Size = 4096
    seed: Seed = 0
    pop_k: Count = 2
    curve_points: Count = 0
    curve_prompts: Size = 32

    def __post_init__(self) -> None:
        if self.also and self.reward is None:
            raise ConfigError(
                "evaluation.also names further rewards beside evaluation.reward, which is not set: set it first."
            )
        if self.goals is not None and not 2 <= len(self.goals) == len(set(self.goals)):
            raise ConfigError("evaluation.goals: name two or more different goals, e.g. [1, 4, 7, 10].")
        if self.generation_config == "model" and (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
            raise ConfigError(
                "evaluation.generation_config: model uses the model's own settings, so evaluation.temperature, "
                "evaluation.top_p and evaluation.top_k have no effect: remove them, or set generation_config to ignore."
            )
