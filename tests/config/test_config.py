"""Configurations: what is refused, what is read, and how flags go over files."""

import dataclasses
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popmargin.config import (
    ModelConfig,
    PopConfig,
    RunConfig,
    TrainConfig,
    apply_overrides,
    dump_yaml,
    from_dict,
    merge,
    read_saved,
    read_yaml,
    settings,
    to_dict,
)
from popmargin.config.described import Setting, bounds_of, settings_of
from popmargin.config_names import ELSEWHERE
from popmargin.errors import ConfigError
from popmargin.study.config import StudyConfig
from popmargin.yaml_file import parse_yaml


def read(text: str) -> RunConfig:
    return from_dict(RunConfig, parse_yaml(text))


def test_round_trip() -> None:
    config = read("objective: {name: ipo, beta: 0.5}\ntrain: {betas: [0.8, 0.9]}\ntokens: {name: x}")
    assert from_dict(RunConfig, parse_yaml(dump_yaml(to_dict(config)))) == config


def test_numbers_that_yaml_reads_as_text() -> None:
    config = read("train: {learning_rate: 1e-5, weight_decay: 0, betas: [9e-1, 0]}")
    assert config.train.learning_rate == 1e-5 and config.train.weight_decay == 0.0
    assert isinstance(config.train.weight_decay, float) and config.train.betas == [0.9, 0.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {}", "Unknown key 'trian'. Did you mean 'train'"),
        ("train: {lerning_rate: 1}", "Unknown key 'train.lerning_rate'. Did you mean 'learning_rate'"),
        ("train: {epochs: many}", "train.epochs must be a number (above 0), not 'many'."),
        ("train: {epochs: .nan}", "train.epochs must be a finite number (above 0), not nan."),
        ("evaluation: {temperature: .inf}", "evaluation.temperature must be a finite number (at least 0), not inf."),
        ("data: {train: [a.jsonl, 3]}", "data.train must be text or a list of texts, not ['a.jsonl', 3]."),
        ("train: {epochs: true}", "train.epochs must be a number (above 0), not True"),
        ("train: {batch_size: 2.5}", "train.batch_size must be a whole number (at least 1), not 2.5"),
        ("train: {batch_size: '8'}", "train.batch_size must be a whole number (at least 1), not '8'"),
        ("train: {batch_size: 0}", "train.batch_size must be at least 1, not 0"),
        ("train: {micro_batch_size: -1}", "train.micro_batch_size must be at least 1"),
        ("train: {max_steps: 0}", "train.max_steps must be at least 1"),
        ("train: {epochs: 0}", "train.epochs must be above 0"),
        ("train: {learning_rate: -1}", "train.learning_rate must be at least 0"),
        ("train: {betas: [0.9]}", "train.betas must be a list of 2 numbers (each at least 0 and below 1), not [0.9]"),
        ("train: {betas: 0.9}", "train.betas must be a list of 2 numbers (each at least 0 and below 1), not 0.9"),
        ("train: {betas: [0.9, x]}", "train.betas[1] must be a number (at least 0 and below 1), not 'x'"),
        ("evaluation: {tokens_per_batch: 0}", "evaluation.tokens_per_batch must be at least 1"),
        ("evaluation: {temperature: -1}", "evaluation.temperature must be at least 0"),
        ("evaluation: {generation_config: model, top_k: 5}", "evaluation.top_k have no effect: remove them"),
        ("evaluation: {generation_config: modle}", "evaluation.generation_config is 'modle'. Did you mean 'model'"),
        ("data: {reasoning: keep}", "data.reasoning: keep puts a completion's full text after the sampling prompt"),
        ("data: {prompt: samplng}", "data.prompt is 'samplng'. Did you mean 'sampling'"),
        ("model: {precision: fp16}", "model.precision is 'fp16'. Did you mean 'bf16'? Known: bf16, fp32"),
        ("pop: {sampling: iteratve}", "pop.sampling is 'iteratve'. Did you mean 'iterative'"),
        ("target: {tau: 1.0}", "target.tau must be at least 0 and below 1, not 1.0"),
        ("target: {tau: -0.1}", "target.tau must be"),
        ("train: 3", "train must be a mapping of keys to values, not 3"),
        ("train:", "train must be a mapping of keys to values, not None"),
        ("[1]", "The configuration must be a mapping"),
        ("objective: dpo", "objective must be a mapping of keys to values, not 'dpo'. Write {name: dpo}."),
        ("regularizers: [sft]", "regularizers[0] must be a mapping of keys to values, not 'sft'. Write {name: sft}."),
        ("margin: pop", "margin must be a mapping of keys to values or null, not 'pop'. Write {source: pop}."),
        ("margin: 1", "margin must be a mapping of keys to values or null, not 1."),
        ("margni: {source: pop}", "Unknown key 'margni'. Did you mean 'margin'"),
        ("name: 3", "name must be text, not 3. Write it in quotes."),
        ("data: {columns: {prompt: 3}}", "data.columns.prompt must be text, not 3. Write it in quotes."),
        (
            "train: {trainer_arguments: {1: 3}}",
            "train.trainer_arguments.1: a key must be text. Write it in quotes.",
        ),
        ("1: {}", "Unknown key '1'. Known: data"),
        ("seed: true", "seed must be a whole number (at least 0 and below 4,294,967,296), not True"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as info:
        read(text)
    assert message in str(info.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as info:
        read("train: {lr: 1, epochs: 0}\nsede: 1\nmodel: {lora_rank: -1}\ndata: {limit: -5}")
    lines = str(info.value).splitlines()
    assert len(lines) == 5
    assert "model.lora_rank must be at least 0, not -1." in lines and "data.limit must be at least 1, not -5." in lines


def test_what_an_objects_own_code_sets_is_checked_too() -> None:
    """Sections made or changed in Python are as strict as files, and stay frozen and hashable."""
    with pytest.raises(ConfigError, match=r"^model\.lora_rank must be at least 0, not -1\.$"):
        ModelConfig(lora_rank=-1)
    with pytest.raises(ConfigError, match=r"^Unknown key 'train\.lr'\. Did you mean 'train\.learning_rate'\?"):
        TrainConfig(lr=1)  # pyright: ignore
    with pytest.raises(ConfigError, match=r"^pop\.k must be at least 1, not 0\.$"):
        dataclasses.replace(PopConfig(), k=0)
    with pytest.raises(ConfigError, match=r"^Unknown key 'tune\.beta_factor'\. Did you mean 'beta_factors'"):
        from_dict(StudyConfig, {"arms": {"dpo": {}}, "tune": {"beta_factor": 1}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        PopConfig().k = 2  # pyright: ignore
    assert {PopConfig(k=2): 1}[PopConfig(k=2)] == 1


def test_keys_of_earlier_versions(tmp_path: Path) -> None:
    """They are refused where they are written anew, and left out where an earlier version saved them."""
    with pytest.raises(ConfigError, match=r"'evaluation\.bootstrap' is gone: .* Remove it\."):
        read("evaluation: {bootstrap: 1000}")
    saved = dump_yaml(to_dict(RunConfig())).replace("evaluation:\n", "evaluation:\n  bootstrap: 1000\n")
    (tmp_path / "config.yaml").write_text(saved)
    assert from_dict(RunConfig, read_saved(tmp_path / "config.yaml")) == RunConfig()


def test_numbers_in_mappings_and_texts_that_look_like_them() -> None:
    config = read("train: {trainer_arguments: {adam_epsilon: 1e-8, n: '1e-8'}}\nname: '12e7'\nobjective: {beta: 5E-2}")
    assert config.train.trainer_arguments == {"adam_epsilon": 1e-8, "n": "1e-8"} and config.objective == {"beta": 0.05}
    assert read(dump_yaml(to_dict(config))) == config
    assert parse_yaml("[1e5, 12e7x, e5, 1e, +1e-5, yes, no, null, 0x1f]") == [
        *(1e5, "12e7x", "e5", "1e", 1e-5, True, False, None, 31),
    ]


MANY = "a: &a {x: 1, y: 2}\n" + "".join(f"{n}: &{n} {{p: *{o}, q: *{o}}}\n" for o, n in pairwise("abcdefghijklmnopqrs"))


@pytest.mark.parametrize("text", [MANY, "train: &t\n  trainer_arguments: *t\n"])
def test_aliases_that_multiply_or_never_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"its aliases expand to more than 100,000 values; write out"):
        read_yaml(tmp_path / "run.yaml")
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a}") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.yaml", "a: [1\nb: 2", r"bad\.yaml is not YAML: line 2, column 2: .*The line is: b: 2"),
        ("open.yaml", "a: [1,\n", r"open\.yaml is not YAML: line 2, column 1: .*not closed"),
        ("colon.yaml", "a: b: c", r"line 1, column 5: mapping values are not allowed here\. The line is: a: b: c"),
        ("tabs.yaml", "a: 1\nb:\n\tc: 2\n", r"tabs\.yaml, line 3: a tab\. YAML needs spaces"),
        ("mixed.yaml", "b:\n  c: 2\n \td: 1\n", r"mixed\.yaml, line 3: a tab\. YAML needs spaces"),
        (
            "twice.yaml",
            "a: 1\nb: {c: 1, c: 2}",
            r"line 2, column 11: the key 'c' appears twice, also in line 2; keep",
        ),
        ("list.yaml", "- 1", "must contain a mapping of keys to values, not list. Write 'key: value' lines"),
        ("text.yaml", "runs", "not str"),
        ("latin.yaml", b"name: \xff", r"cannot be read: byte 6 is not UTF-8\. Save the file as UTF-8"),
        ("two.yaml", "a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("data.jsonl", "{}", r"data\.jsonl contains data, not a configuration\. Pass it with --data\.train"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as info:
        read_yaml(file)
    assert str(file) in str(info.value) and "\n" not in str(info.value)


def numbers(kind: Any) -> dict[str, tuple[Any, Setting]]:
    """All numeric fields of a configuration by their paths: the dataclass that has them, and what there is to say."""
    found: dict[str, tuple[Any, Setting]] = {}
    for owner, front in [(kind, ""), *((s.section, f"{s.name}.") for s in settings_of(kind) if s.section)]:
        own = [setting for setting in settings_of(owner, front) if setting.name.count(".") == front.count(".")]
        found |= {s.name: (owner, s) for s in own if re.search(r"'type': '(number|integer)'", str(s.schema))}
    return found


NUMBERS = numbers(RunConfig) | numbers(StudyConfig)


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_has_bounds_and_is_refused_beyond_them(path: str) -> None:
    kind, setting = NUMBERS[path]
    bounds, schema = bounds_of(setting.schema).removeprefix("each "), str(setting.schema)
    assert bounds, f"{path} takes any number: say which in its type (popmargin.bounds)"
    name = path.rpartition(".")[2]
    beyond = [-1, *([float("nan"), float("inf")] if "'number'" in schema else [])]
    beyond += [int(limit) - 1 for limit in re.findall(r"'minimum': (\d+)", schema)]
    beyond += [int(limit) for limit in re.findall(r"'exclusiveM\w+': (\d+)", schema)]
    beyond += [1.5] if "wholeFrom" in schema else []
    for value in beyond:
        many = [value, value] if "'array'" in schema else value
        said = re.escape(bounds if value == value and abs(value) < float("inf") else f"a finite number ({bounds})")
        with pytest.raises(ConfigError, match=rf"^{re.escape(path)}(\[0\])? must be {said}, not "):
            kind(**{name: many} | ({"arms": {"dpo": {}}} if kind is StudyConfig else {}))


def test_yaml_files(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: x\ntext: |\n  a\tb\n")
    assert read_yaml(tmp_path / "bom.yaml") == {"name": "x", "text": "a\tb\n"}
    for name, message in [
        ("none.yaml", r"No such configuration file: .*none\.yaml$"),
        ("bom.yml", r"No such configuration file: .*bom\.yml\. Did you mean .*bom\.yaml\?"),
        ("emty.yaml", r"Did you mean .*empty\.yaml"),
        ("nowhere/run.yaml", r"there is no folder .*nowhere"),
        ("", r"is a folder, not a YAML file\. Did you mean .*bom\.yaml"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_yaml(tmp_path / name)


def test_names_of_other_frameworks_stand_for_settings_that_there_are() -> None:
    """Every name leads to a setting or a part of one, and none hides a setting of ours."""
    known = set(settings(RunConfig))
    assert {"train.learning_rate", "model", "seed"} <= known
    for name, meant in ELSEWHERE.items():
        place = meant.partition(" ")[0].rstrip(",")
        assert place in known or place.startswith("objective."), (name, meant)
        assert name not in {setting.rpartition(".")[2] for setting in known if setting.count(".") == 1}, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {lr: 1}", "Unknown key 'train.lr'. Did you mean 'train.learning_rate'? Known: average, batch_size,"),
        ("lr: 1", "Unknown key 'lr'. Did you mean 'train.learning_rate'?"),
        ("learning_rate: 1", "Did you mean 'train.learning_rate'?"),
        ("train: {num_train_epochs: 1}", "Did you mean 'train.epochs'?"),
        ("max_steps: 1", "Did you mean 'train.max_steps'?"),
        ("train: {per_device_train_batch_size: 1}", "Did you mean 'train.micro_batch_size'?"),
        (
            "train: {gradient_accumulation_steps: 1}",
            "Did you mean 'train.micro_batch_size' (train.batch_size is the number",
        ),
        ("train: {bf16: true}", "Did you mean 'model.precision' (bf16)?"),
        ("model: {lora_r: 8}", "Did you mean 'model.lora_rank'?"),
        ("model: {r: 8}", "Did you mean 'model.lora_rank'?"),
        ("model: {name_or_path: x}", "Known: dropout, head_hidden, last_layers"),
        ("model_name_or_path: x", "Did you mean 'model.path'?"),
        ("data: {max_seq_length: 8}", "Did you mean 'data.max_length'?"),
        (
            "data: {max_prompt_length: 8}",
            "Did you mean 'data.max_length' (of prompt and completion together; data.tr",
        ),
        ("dataset: x", "Did you mean 'data.train'?"),
        ("loss_type: ipo", "Did you mean 'objective.name'?"),
        ("beta: 0.1", "Did you mean 'objective.beta'?"),
        ("output_dir: x", "Did you mean 'output'?"),
        ("logging_dir: x", "Did you mean 'train.report_to' (trackers) or output"),
        ("train: {warmup_steps: 3}", "Did you mean 'train.warmup_ratio' (a share of the steps)?"),
        ("train: {seed: 3}", "Did you mean 'seed'?"),
        ("train: {learning-rate: 3}", "Did you mean 'learning_rate'?"),
        ("train: {optim: x}", "Did you mean 'train.trainer_arguments', e.g. {optim: adamw_torch}?"),
        ("train: {xyz: 3}", "Unknown key 'train.xyz'. Known: average, batch_size,"),
    ],
)
def test_what_is_meant_by_an_unknown_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as info:
        read(text)
    assert message in str(info.value)


def test_a_setting_of_a_run_in_a_study() -> None:
    with pytest.raises(ConfigError, match=r"Unknown key 'train'\. Did you mean 'base\.train'"):
        from_dict(StudyConfig, {"train": {"epochs": 1}, "arms": {"dpo": {}}})


def test_flags_go_over_the_file() -> None:
    values = {"train": {"epochs": 1}, "tokens": None}
    flags = ["--train.epochs", "2", "--objective.name=dpo", "--seeds", "[0, 1]", "--tokens.name", "x", "--a.b.c=null"]
    expected = {
        "train": {"epochs": 2},
        "objective": {"name": "dpo"},
        "seeds": [0, 1],
        "tokens": {"name": "x"},
        "a": {"b": {"c": None}},
    }
    assert apply_overrides(values, flags) == expected
    assert values == {"train": {"epochs": 1}, "tokens": None}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train.epochs"], "--train.epochs needs a value"),
        (["--train.compile", "--train.epochs", "1"], "--train.compile needs a value"),
        (["2"], "Expected a flag such as --train.learning_rate before '2'"),
        (["--train.epochs.x", "1"], "'epochs' is not a mapping"),
        (["--seeds", "[0, 1"], "--seeds: '[0, 1' is not YAML"),
    ],
)
def test_flags_refused(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        apply_overrides({"train": {"epochs": 1}}, flags)
    assert message in str(info.value)


def test_another_objective_drops_the_old_ones_options() -> None:
    base = {"objective": {"name": "simpo", "gamma": 1.0}, "train": {"epochs": 2}}
    assert merge(base, {"objective": {"name": "dpo"}})["objective"] == {"name": "dpo"}
    assert merge(base, {"objective": {"name": "simpo", "beta": 1}})["objective"]["gamma"] == 1.0
    assert merge(base, {"objective": {"beta": 1}})["objective"] == {"name": "simpo", "gamma": 1.0, "beta": 1}
    with_margin = {"margin": {"source": "fixed", "value": 2.0}}
    assert merge(with_margin, {"margin": {"source": "pop"}}) == {"margin": {"source": "pop"}}
    assert merge(with_margin, {"margin": {"value": 1.0}}) == {"margin": {"source": "fixed", "value": 1.0}}
    assert merge(with_margin, {"margin": None}) == {"margin": None}
    assert merge(base, {"train": {"epochs": 3}})["objective"] == base["objective"]


NESTED = st.recursive(
    st.integers() | st.none() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


@given(base=st.dictionaries(st.sampled_from("ab"), NESTED), changes=st.dictionaries(st.sampled_from("ab"), NESTED))
def test_merge_takes_changes_and_leaves_its_arguments(base: dict[str, Any], changes: dict[str, Any]) -> None:
    before = repr((base, changes))
    merged = merge(base, changes)
    assert repr((base, changes)) == before
    assert merged.keys() == base.keys() | changes.keys()
    assert merge(merged, changes) == merged
    assert merge({}, changes) == changes
