"""Tokenizers built in code."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "The sky is blue and the sea is green. Why? Because of the light.",
    "user assistant system Human 0123456789",
] * 3


def build_tokenizer(*, chat_template: str | None = CHATML, bos: bool = False, eos: bool = False, **names: str | None):
    """A byte-level BPE tokenizer; `bos` and `eos` say what it adds to a text by default."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    if bos or eos:
        template = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
        core.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, core.token_to_id(name)) for name in ("<s>", "</s>")]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>", **names}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        additional_special_tokens=special[2:],
        **{name: token for name, token in names.items() if token is not None},
    )
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.fixture(scope="session")
def make_tokenizer():
    return build_tokenizer


@pytest.fixture(scope="session")
def chatml():
    return build_tokenizer(eos_token="<|im_end|>")


@pytest.fixture(scope="session")
def plain():
    return build_tokenizer(chat_template=None)
