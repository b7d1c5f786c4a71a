"""Tokenizers with the kinds of chat templates that models ship, each built in code."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Why is the sky blue? Because light is scattered by the air.",
    "user assistant system model think Answer: four, five and six. 0123456789 ()[]{}<>/\n\n",
] * 4


def _turns(before: str, after: str, *, content: str = "m.content") -> str:
    return f"{{% for m in messages %}}{{{{ {before} + {content} + {after} }}}}{{% endfor %}}"


def _sampling(text: str) -> str:
    return f"{{% if add_generation_prompt %}}{{{{ {text} }}}}{{% endif %}}"


CHATML = _turns(r"'<|im_start|>' + m.role + '\n'", r"'<|im_end|>\n'") + _sampling(r"'<|im_start|>assistant\n'")
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    r"{{ '<|im_start|>system\nYou are a kind and careful assistant.<|im_end|>\n' }}"
    "{% endif %}" + CHATML
)
# Reasoning of the last answer stands in a block, an empty one where there is none; that of earlier answers is dropped.
_THINK_TURNS = r"""{%- for m in messages -%}
{%- set parts = m.content.split('</think>') -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- if m.role == 'assistant' and loop.last -%}
{%- set thought = parts[0].split('<think>')[-1].strip() if parts | length > 1 else '' -%}
{{- '<think>\n' + thought + '\n</think>\n\n' + parts[-1].lstrip('\n') -}}
{%- elif m.role == 'assistant' -%}
{{- parts[-1].lstrip('\n') -}}
{%- else -%}
{{- m.content -}}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}"""
THINK = _THINK_TURNS + _sampling(r"'<|im_start|>assistant\n'")
THINK_OPEN = _THINK_TURNS + _sampling(r"'<|im_start|>assistant\n<think>\n'")
# Of an answer only what follows the reasoning is written, and the sampling prompt opens the reasoning.
STRIP = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}"
    "{% elif m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
) + _sampling(r"'<|Assistant|><think>\n'")
LLAMA3 = (
    "{{ bos_token }}"
    + _turns(r"'<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'", "'<|eot_id|>'", content="m.content | trim")
    + _sampling(r"'<|start_header_id|>assistant<|end_header_id|>\n\n'")
)
ALTERNATING = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate.') }}{% endif %}"
    "{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else ' ' + m.content + eos_token }}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('No system role.') }}{% endif %}"
    + _turns(
        r"'<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'",
        r"'<end_of_turn>\n'",
        content="m.content | trim",
    )
    + _sampling(r"'<start_of_turn>model\n'")
)
PLAIN = _turns("(m.role | upper) + ': '", r"'\n'") + _sampling("'ASSISTANT: '")
NOTHING = _turns(r"'\n' + m.role + ': '", "''") + _sampling(r"'\nassistant: '")
# The end of a turn is a token of the vocabulary that no file calls special.
UNMARKED_END = _turns(r"'[' + m.role + '] '", "'[eot]'") + _sampling("'[assistant] '")
# The sampling prompt leaves a channel open that the answer's turn writes itself.
CHANNELS = (
    "{% for m in messages %}{{ '<|start|>' + m.role + ('<|channel|>final' if m.role == 'assistant' else '') "
    "+ '<|message|>' + m.content + ('<|return|>' if m.role == 'assistant' and loop.last else '<|end|>') }}{% endfor %}"
) + _sampling("'<|start|>assistant'")

BYTES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Kind:
    """A tokenizer and its template."""

    template: str | None
    special: tuple[str, ...] = BYTES
    eos: str | None = "<|im_end|>"
    pad: str | None = "<|endoftext|>"
    bos: str | None = None
    pieces: bool = False  # SentencePiece: a text that stands alone begins with a space
    unmarked: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "chatml": Kind(CHATML),
    "chatml_padded_with_eos": Kind(CHATML, pad="<|im_end|>"),
    "base_eos": Kind(CHATML, eos="<|endoftext|>"),
    "default_system": Kind(DEFAULT_SYSTEM),
    "think": Kind(THINK),
    "think_open": Kind(THINK_OPEN),
    "strip": Kind(STRIP, ("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>"), "<|end|>", "<|end|>", "<|begin|>"),
    "llama3": Kind(
        LLAMA3,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        None,
        "<|begin_of_text|>",
    ),
    "alternating": Kind(ALTERNATING, ("<unk>", "<s>", "</s>"), "</s>", None, "<s>", pieces=True),
    "gemma": Kind(
        GEMMA, ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"), "<eos>", "<pad>", "<bos>", True
    ),
    "plain": Kind(PLAIN, eos="<|endoftext|>"),
    "nothing": Kind(NOTHING, eos="<|endoftext|>"),
    "unmarked_end": Kind(UNMARKED_END, eos="<|endoftext|>", unmarked=("[eot]",)),
    "channels": Kind(
        CHANNELS,
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|endoftext|>"),
        "<|return|>",
        "<|endoftext|>",
    ),
    "no_template": Kind(None, eos="<|endoftext|>", pad=None),
    "no_eos": Kind(CHATML, eos=None, pad=None),
}


@functools.cache
def build(name: str) -> Any:
    """The tokenizer of a kind; do not change it."""
    kind = KINDS[name]
    core = _pieces(kind) if kind.pieces else _bytes(kind)
    if kind.bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{kind.bos} $A", special_tokens=[(kind.bos, core.token_to_id(kind.bos))]
        )
    names = {"bos_token": kind.bos, "eos_token": kind.eos, "pad_token": kind.pad}
    if kind.pieces:
        names["unk_token"] = "<unk>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, chat_template=kind.template, **{key: name for key, name in names.items() if name}
    )
    tokenizer.add_tokens(list(kind.unmarked))
    return tokenizer


def _bytes(kind: Kind) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(CORPUS, _trainer(list(kind.special), initial_alphabet=alphabet))
    return core


def _pieces(kind: Kind) -> Tokenizer:
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    core.train_from_iterator([line.replace("\n", " ") for line in CORPUS], _trainer([*kind.special, *fallback]))
    return core


def _trainer(special: list[str], **options: Any) -> Any:
    return trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False, **options)


def build_model(tokenizer: Any) -> Any:
    """A random Llama with the tokenizer's vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()
