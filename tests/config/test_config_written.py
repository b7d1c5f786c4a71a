"""What is said of every field, and a configuration written with it reads back as it was."""

import re
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from popmargin.config import PopConfig, RunConfig, from_dict, to_dict
from popmargin.config.described import Setting, descriptions, fields_of, settings_of
from popmargin.config.written import commented_yaml
from popmargin.study.config import StudyConfig, TuneConfig
from popmargin.yaml_file import parse_yaml

TEXTS = [
    "1e5",
    "yes",
    "null",
    "~",
    "a: b",
    "# no comment",
    " x ",
    "- x",
    "é\u2028",
    "two\nlines\n",
    "'\"",
    "*a",
    "",
    "0x1",
    "\U000d8b8a\xa0",
]
TEXT = st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=100)
PLAIN = TEXT | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none()
NESTED: Any = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2))


def values(schema: Any) -> Any:
    """What a field takes, by its JSON schema."""
    if "anyOf" in schema:
        return st.one_of([values(part) for part in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    most = schema.get("maximum", schema.get("exclusiveMaximum", 2**40))
    kinds: dict[str, Any] = {
        "null": st.none(),
        "string": TEXT,
        "boolean": st.booleans(),
        "integer": st.integers(least, most - ("exclusiveMaximum" in schema)),
        "number": st.floats(
            *(least, 0.5 if "wholeFrom" in schema else most),
            exclude_min="exclusiveMinimum" in schema,
            exclude_max="exclusiveMaximum" in schema,
        ),
        "object": st.dictionaries(TEXT, TEXT if schema.get("additionalProperties") is not True else NESTED, max_size=2),
    }
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 3))
    return kinds[schema["type"]]


def configurations(kind: Any) -> Any:
    """Nested values with every field of a configuration."""
    parts = {
        s.name: configurations(s.section) if s.section is not None and s.default is None else values(s.schema)
        for s in fields_of(kind)
    }
    return st.fixed_dictionaries(parts)


@settings(max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # to shrink so many fields takes long
@given(made=configurations(RunConfig))
def test_every_field_reads_back_as_it_was(made: dict[str, Any]) -> None:
    made |= {"task": "policy"}
    made["data"]["reasoning"], made["evaluation"]["generation_config"] = "template", "ignore"
    made["evaluation"]["goals"] = None  # several different ones, or none
    made["evaluation"]["also"] = []  # only beside a reward
    made["model"] |= {"train": None, "last_layers": None, "head_hidden": 0}  # what is trained, in one way
    made["pop"] |= {"without": None, "weights": None, "pool": None}  # only beside edges
    made["pop"]["zero"] |= {"agreement": None, "wrong": None}  # one of three
    config = from_dict(RunConfig, made)
    again = from_dict(RunConfig, parse_yaml(commented_yaml(config)))
    assert again == config and to_dict(again) == to_dict(config)


def test_the_written_defaults_say_what_each_field_is() -> None:
    text = commented_yaml(RunConfig())
    assert from_dict(RunConfig, parse_yaml(text)) == RunConfig() and max(map(len, text.splitlines())) <= 120
    prose = " ".join(re.sub(r"^\s*# ?", "", line) for line in text.splitlines())
    for setting in settings_of(RunConfig):
        assert setting.sentence in prose, setting.name
    study = StudyConfig(arms={"dpo": {}}, tune=TuneConfig())
    assert from_dict(StudyConfig, parse_yaml(commented_yaml(study))) == study


EVERY = [*settings_of(RunConfig), *settings_of(StudyConfig)]


@pytest.mark.parametrize("setting", EVERY, ids=lambda setting: setting.name)
def test_every_field_is_described_once(setting: Setting) -> None:
    """And no description is of a field that there is not."""
    assert setting.help.endswith(".") and "\n" not in setting.help
    assert setting.section is not None or setting.schema["description"] == setting.help
    for kind in {RunConfig, StudyConfig, setting.section} - {None}:
        assert descriptions(kind).keys() == {field.name for field in fields_of(kind)}


def test_what_is_said_of_a_field() -> None:
    said = {setting.name: setting.about for setting in EVERY}
    assert len(said) > 90
    assert said["train.learning_rate"] == "default 1e-06; at least 0"
    assert said["train.betas"] == "default [0.9, 0.95]; each at least 0 and below 1"
    assert said["data.test_size"] == "default 0.2; at least 0, and a whole number from 1 on"
    assert said["model.lora_alpha"] == "default null; above 0" and said["model.dropout"] == "default false"
    assert said["target.kind"] == "default ema; or policy, bank" and said["train"] == ""
    own = next(fields_of(PopConfig, "base.pop."))
    assert own.name == "base.pop.edges" and own.sentence.startswith("A file of edges")
