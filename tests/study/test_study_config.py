"""Studies from YAML."""

from pathlib import Path

import pytest

from popmargin.errors import ConfigError
from popmargin.study.config import StudyConfig, load_study
from popmargin.study.standard import standard_study_path

STUDY = """
output: {folder}
seeds: [0, 3]
base: {{train: {{learning_rate: 1e-4}}, objective: {{name: simpo, gamma: 0.2}}}}
arms:
  dpo: {{objective: {{name: dpo}}, label: Plain DPO}}
  simpo: {{train: {{epochs: 2}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(folder=tmp_path / "out"))
    return path


def test_arms_share_the_base(file: Path) -> None:
    study = load_study(file, ["--base.train.batch_size", "4"])
    runs = study.run_configs()
    assert {arm: [config.seed for config in configs] for arm, configs in runs.items()} == {
        "dpo": [0, 3],
        "simpo": [0, 3],
    }
    dpo, simpo = runs["dpo"][1], runs["simpo"][0]
    assert dpo.objective == {"name": "dpo"} and simpo.objective == {"name": "simpo", "gamma": 0.2}
    assert dpo.train.learning_rate == simpo.train.learning_rate == 1e-4
    assert (dpo.train.epochs, simpo.train.epochs, simpo.train.batch_size) == (1.0, 2.0, 4)
    assert dpo.reference.cache == simpo.reference.cache == f"{study.output}/reference"
    assert dpo.output == f"{study.output}/runs/dpo/seed-3" and dpo.name == "dpo"
    assert study.label("dpo") == "Plain DPO" and study.label("simpo") == "simpo"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--base.train.epoch", "1"], "study.yaml: arm 'dpo': Unknown key 'train.epoch'. Did you mean 'train.epochs'"),
        (["--arms.simpo.objectiv.name", "x"], "arm 'simpo': Unknown key 'objectiv'"),
        (["--baseline", "dop"], "The baseline 'dop' is not an arm. Did you mean 'dpo'"),
        (["--seeds", "[]"], "at least one arm and one seed"),
        (["--seeds", "[a]"], "seeds[0] must be a whole number (at least 0 and below 4,294,967,296), not 'a'"),
        (["--titel", "x"], "Unknown key 'titel'. Did you mean 'title'"),
    ],
)
def test_refused(file: Path, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        load_study(file, flags)
    assert message in str(info.value)


def test_no_arms() -> None:
    with pytest.raises(ConfigError, match="at least one arm"):
        StudyConfig()


def test_the_standard_study_has_the_papers_comparison() -> None:
    study = load_study(standard_study_path())
    names = {arm: configs[0].objective["name"] for arm, configs in study.run_configs().items()}
    assert set(names.values()) == {"dpo", "dpo_fixed_margin", "dpo_rating_margin", "dpo_stronger", "pop", "pop_rank"}
    sampling = {configs[0].pop.sampling for arm, configs in study.run_configs().items() if names[arm] == "pop"}
    assert sampling == {"iterative", "random"}
