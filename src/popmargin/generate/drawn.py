"""How completions or images were sampled, and the name of their mean log-ratio."""

from dataclasses import dataclass
from typing import Literal

OwnSettings = Literal["ignore", "model"]


@dataclass(frozen=True)
class Drawn:
    """How completions were sampled from a model.

    Attributes:
        temperature: 0 takes the most likely token.
        top_k: among the k most likely tokens; 0 means all.
        generation_config: `ignore` draws by the other settings alone; `model` as the model's own generation config
            says, in their place.
        top_p: among the most likely tokens that hold this probability together; 1 means all.
    """

    temperature: float = 1.0
    top_k: int = 0
    generation_config: OwnSettings = "ignore"
    top_p: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether completions are samples from the policy itself, so that their mean log-ratio estimates a KL."""
        return self.generation_config == "ignore" and (self.temperature, self.top_k, self.top_p) == (1, 0, 1)

    def __str__(self) -> str:
        if self.generation_config == "model":
            return "the settings in the model's generation config"
        tokens = f"the {self.top_k} most likely" if self.top_k else "all"
        cut = f", top-p {self.top_p:g}" if self.top_p < 1 else ""
        return f"temperature {self.temperature:g} from {tokens} tokens{cut}"

    @property
    def log_ratio(self) -> str:
        """The metric name of their mean log-ratio per token: a KL only if the policy itself was sampled.

        Example:
            >>> Drawn().log_ratio, Drawn(temperature=0.7, top_k=50).log_ratio
            ('kl_per_token', 'log_ratio_per_token_t0.7_k50')
        """
        if self.exact:
            return "kl_per_token"
        if self.generation_config == "model":
            return "log_ratio_per_token_own"
        cut = f"_p{self.top_p:g}" if self.top_p < 1 else ""
        return f"log_ratio_per_token_t{self.temperature:g}_k{self.top_k}{cut}"


@dataclass(frozen=True)
class DrawnImages:
    """How images were sampled from a diffusion model.

    Attributes:
        denoising_steps: of the sampler.
        guidance_scale: of classifier-free guidance; 1 means none.
        sampler: `DDIM`, or `flow Euler` for models of a flow.

    Example:
        >>> str(DrawnImages(20, 7.5))
        '20 steps of DDIM, guidance 7.5'
        >>> str(DrawnImages(8, 1.0, "flow Euler"))
        '8 steps of flow Euler, no guidance'
    """

    denoising_steps: int
    guidance_scale: float
    sampler: str = "DDIM"

    @property
    def log_ratio(self) -> None:
        """Images have no log-ratio: what a diffusion model gives them is known only as a bound."""
        return None

    def __str__(self) -> str:
        guided = "no guidance" if self.guidance_scale == 1 else f"guidance {self.guidance_scale:g}"
        return f"{self.denoising_steps} steps of {self.sampler}, {guided}"


POLICY_ITSELF = Drawn()
