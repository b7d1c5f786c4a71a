"""Features of responses for studies: hidden states of a frozen model, as an array."""

from collections.abc import Sequence

from popmargin.config import DataConfig, ModelConfig, ReferenceConfig
from popmargin.data.schema import Preferences
from popmargin.engine.features import PreferenceFeatures
from popmargin.tasks.base import TaskSettings
from popmargin.tasks.reward import RewardTask


def response_features(
    preferences: Preferences,
    *,
    model: str = "demo",
    pool: str = "last",
    layers: Sequence[int] | None = None,
    max_length: int = 1024,
    cache: str | None = None,
    tokens_per_batch: int = 4096,
    progress: bool = False,
) -> PreferenceFeatures:
    """Features of the responses of preferences under a frozen language model.

    They are computed once and kept in the cache folder, by the tokens of each response and the weights of the model, so
    that the same responses are not computed again by whatever asks for them. `array()` of the result has the features
    of all distinct responses [responses, d], float32; `chosen` and `rejected` say which of its rows belong to each
    preference, in the order of `tokenized.ids`. `tokenized.report` says which preferences were cut or left out.

    Args:
        preferences: of texts or conversations.
        model: a folder, a hub id, or `demo`, in fp32; its own chat template is used.
        pool: `last`, at the last token, where a reward is read, or `mean`, over the tokens of the response.
        layers: the layers whose hidden states are taken, one after the other: 0 for the embeddings, n for the states
            after n layers. None for those that the head reads, after all layers and the last norm.
        max_length: maximum tokens of prompt and response; longer ones are cut as in training.
        cache: folder of the cache; None for the user's.
        tokens_per_batch: maximum tokens in one forward pass.
        progress: show a progress bar.

    Raises:
        ConfigError: an unknown pool or layer.
        DataError: the responses are images, or the tokenizer cannot write them.
        RunError: the model cannot be loaded, is no decoder, or gives a value that is not finite.

    Example:
        >>> import tempfile
        >>> from popmargin import load_preferences
        >>> preferences = load_preferences([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = response_features(preferences, cache=folder)
        ...     found.array().shape, found.chosen.tolist(), found.rejected.tolist()
        ((2, 576), [0], [1])
    """
    task = RewardTask(
        TaskSettings(
            name="reward",
            data=DataConfig(max_length=max_length),
            model=ModelConfig(path=model),
            reference=ReferenceConfig(cache=cache, tokens_per_batch=tokens_per_batch),
        )
    )
    return task.features(task.encode(preferences), pool=pool, layers=layers, progress=progress)
