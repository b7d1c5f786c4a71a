"""Studies of text-to-image models: the reference is sampled once, and the report shows what a reward costs."""

from pathlib import Path
from typing import Any

import pytest

from popmargin.config import from_dict
from popmargin.study.compare import compare
from popmargin.study.config import StudyConfig, load_study

ROOT = Path(__file__).parents[2]
REWARDS = """
import numpy as np

def ink(prompts, images):
    return [1 - float(np.asarray(image).mean()) / 255 for image in images]

def red(prompts, images):
    return [float(np.asarray(image)[..., 0].mean()) / 255 for image in images]
"""


@pytest.mark.parametrize("name", ["images", "images-short", "images-emoji"])
def test_the_documented_studies_are_configurations(name: str) -> None:
    study = load_study(ROOT / "docs" / "studies" / f"{name}.yaml")
    assert study.baseline in study.arms and len(study.run_configs()) == len(study.arms)
    assert f"popmargin compare docs/studies/{name}.yaml" in (
        ROOT / "docs" / ("studies/images.md" if name == "images" else "images.md")
    ).read_text(encoding="utf-8")


@pytest.mark.slow
def test_arms_that_sample_alike_share_the_references_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise and time of training are not those of sampling; a size in pixels is."""
    from tiny_pipelines import saved, write_preferences

    (tmp_path / "looks.py").write_text(REWARDS)
    base: dict[str, Any] = {
        "task": {"name": "images"},
        "model": {"path": str(saved(tmp_path / "base"))},
        "data": {"train": write_preferences(tmp_path / "images"), "test_size": 4},
        "reference": {"cache": str(tmp_path / "cache")},
        "train": {"batch_size": 4, "max_steps": 1},
        "evaluation": {
            "reward": f"{tmp_path / 'looks.py'}:ink",
            "also": [f"{tmp_path / 'looks.py'}:red"],
            "denoising_steps": 2,
        },
    }
    arms: dict[str, Any] = {
        "dpo": {},
        "independent": {"task": {"noise": {"source": "independent"}}},
        "draws": {"task": {"draws": 2}},
        "large": {"task": {"size": 16}},
    }
    values = {"title": "t", "output": str(tmp_path / "study"), "baseline": "dpo", "base": base, "arms": arms}
    results, report = compare(from_dict(StudyConfig, values))
    assert capsys.readouterr().err.count("sampling from the reference model") == 2
    assert results.reward == "ink"
    page = report.read_text(encoding="utf-8")
    assert 'id="costs"' in page and "Mean ink →" in page
    assert all(arm.samples[0]["image"]["width"] == (16 if arm.name == "large" else 8) for arm in results.arms)
