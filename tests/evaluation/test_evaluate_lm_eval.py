"""lm-eval reads what a training has saved, as docs/benchmarks.md says."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popmargin.config import RunConfig
from popmargin.rewards.base import Answer
from popmargin.rewards.implicit import ImplicitReward
from popmargin.training.run import train

APART = Path(sys.prefix) / "lm_eval"
TASK = """task: local_dummy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None and not APART.is_dir(), reason="needs lm-eval: make setup"
)
def test_a_task_of_its_own_on_a_saved_policy(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    """Its accuracy is that of the policy's own log-probs."""
    config = configure({"train": {"max_steps": 1}})
    train(config)
    model = Path(config.output) / "model"
    rows: list[dict[str, Any]] = [
        {"question": f"p{n}", "choices": [" a", " bb", " z"], "label": n % 3} for n in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "local_dummy.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    words = ["--model", "hf", "--model_args", f"pretrained={model}", "--tasks", "local_dummy", "--device", "cpu"]
    words += ["--include_path", str(tmp_path / "tasks"), "--output_path", str(tmp_path / "out"), "--batch_size", "1"]
    words += ["--log_samples"]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(APART)]))
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = next((tmp_path / "out").rglob("samples_*.jsonl"))
    samples = [json.loads(line) for line in found.read_text().splitlines()]
    ours = ImplicitReward(str(model), reference="none")
    assert len(samples) == len(rows)
    right = 0
    for sample in samples:
        row = sample["doc"]
        theirs = [float(answer[0][0]) for answer in sample["resps"]]
        # What is known to be cut has no end token; lm-eval scores none.
        answers = [Answer(row["question"], text, finished=False) for text in row["choices"]]
        assert ours.score_answers(answers) == pytest.approx(theirs, abs=1e-3)
        right += theirs.index(max(theirs)) == row["label"]
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())
    assert results["results"]["local_dummy"]["acc,none"] == pytest.approx(right / len(rows))
