"""Generations of a policy that is not sampled here: a server gives them, or a file has them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from popmargin.config import EvaluationConfig
from popmargin.data.goals import goal_facts
from popmargin.data.read_prompts import Prompts
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError
from popmargin.evaluation.generations import Generations
from popmargin.evaluation.prompt_set import PromptSet
from popmargin.files import digest
from popmargin.generate.drawn import Drawn
from popmargin.generate.from_file import file_responses
from popmargin.generate.from_server import ServerSampling, server_responses
from popmargin.generate.part_file import part_beside
from popmargin.generate.produced import Produced
from popmargin.rewards.configured import Rewards
from popmargin.rewards.rate import last_turn
from popmargin.training.workspace import Workspace


@dataclass(frozen=True)
class Elsewhere:
    """Where the responses of a policy come from, if not from sampling it here.

    Attributes:
        source: what they are said to be from.
        produce: (prompts, samples per prompt, folder of the evaluation) -> responses; it keeps there what it has paid.
    """

    source: str
    produce: Callable[[Prompts, int, Path], Produced]

    @property
    def note(self) -> str:
        """What is not known of them, in a sentence."""
        return f"from {self.source}: their log-ratio to the reference, and so the KL, is unknown"

    def asked(self, settings: EvaluationConfig, workspace: Workspace, folder: Path) -> "Elsewhere":
        """The same with the responses already there, so that mistakes are found before anything is sampled here.

        Raises:
            ConfigError, DataError, RunError: as for `generations`.
        """
        chosen = PromptSet.of(workspace, settings.prompts)
        produced = self.produce(Prompts(chosen.prompts), settings.samples, folder)

        def there(prompts: Prompts, samples: int, folder: Path) -> Produced:
            return produced

        return replace(self, produce=there)

    def generations(
        self, settings: EvaluationConfig, workspace: Workspace, rewards: Rewards, *, prompts: int | None, folder: Path
    ) -> Generations:
        """The responses to held-out prompts with their rewards; no log-ratio.

        Args:
            settings: how many are needed, and how they are said to be sampled.
            workspace: the prompts.
            rewards: score them.
            prompts: number of prompts; None for all.
            folder: of the evaluation.

        Raises:
            DataError, RunError: responses are missing; what was paid for is kept, so that running again asks for these.
        """
        chosen, goal = PromptSet.of(workspace, prompts), goal_facts(workspace.test.preferences)
        produced = self.produce(Prompts(chosen.prompts), settings.samples, folder)
        made = produced.responses
        repeated = [prompt for prompt in chosen.bodies for _ in range(settings.samples)]
        texts = [last_turn(prompt, text, f"prompt {row}")[1]
                 for row, (prompt, text) in enumerate(zip(repeated, made.texts, strict=True))]  # fmt: skip
        known = {name: made.field(name) for name in ("tokens", "finished") if name in made.field_names}
        asked = {} if goal is None or goal.best is None else {"goal": [goal.line(goal.best)] * len(chosen.bodies)}
        responses = Responses(
            chosen.bodies,
            [texts[start : start + settings.samples] for start in range(0, len(texts), settings.samples)],
            rewards.scores(repeated, texts, None),
            fields={name: values for name, values in known.items() if None not in values},
            columns={"cluster": chosen.clusters, **asked},
        )
        drawn = Drawn(settings.temperature, settings.top_k, top_p=settings.top_p)
        before = len(texts) - produced.new
        kept = (
            f"{before} of {len(texts)} were asked for in an earlier evaluation (delete {folder}/served-* to ask again)",
        )
        return Generations(responses, drawn, (self.note, *(kept if before else ()), *produced.notes, *rewards.notes()))


def from_server(
    url: str, model: str, settings: EvaluationConfig, *, logprobs: bool = True, **options: Any
) -> Elsewhere:
    """A policy behind an OpenAI-compatible server, asked for what `settings` say.

    What it gave is kept in the folder of the evaluation, in a file for each server, model, sampling and prompts. A
    later evaluation takes it from there, and says so: a response is paid for once.

    Args:
        url: base of the API.
        model: its name on the server.
        settings: of the evaluation: samples, max_new_tokens, temperature, top_p, top_k and seed.
        logprobs: ask for the log-probs of the tokens; servers then say how many there are of each response.
        options: `request`, and those of `Server`: api_key_env, workers, retries, backoff, timeout, requests_per_minute.

    Raises:
        ConfigError: settings that only sampling here can follow.
    """
    if settings.generation_config == "model":
        raise ConfigError(
            "evaluation.generation_config: model follows the model's own file when it is sampled here. A server is "
            "told temperature, top_p and top_k: remove it."
        )
    request = options.pop("request", None) or {}
    sampling = ServerSampling(
        samples=settings.samples,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=settings.seed,
        logprobs=logprobs,
        request=request,
    )

    def produce(prompts: Prompts, samples: int, folder: Path) -> Produced:
        asked = digest(
            url.encode(),
            model.encode(),
            repr(sampling).encode(),
            *(key.encode("utf-8", "surrogatepass") for key in prompts.keys),
        )
        with part_beside(folder / f"served-{asked[:16]}") as part:
            return server_responses(prompts, url, model, sampling, part=part, progress=True, **options)

    return Elsewhere(f"{model} at {url}", produce)


def from_file(answers: str | Path) -> Elsewhere:
    """Responses that a file has, by the prompt; how they were sampled is not known.

    Args:
        answers: as `file_responses` takes it.
    """

    def produce(prompts: Prompts, samples: int, folder: Path) -> Produced:
        return file_responses(prompts, answers, samples=samples)

    return Elsewhere(str(answers), produce)
