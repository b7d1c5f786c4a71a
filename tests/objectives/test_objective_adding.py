"""Adding an objective touches two files: its own, and the one with its formula."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
OBJECTIVE = '''
"""DPO whose slope is a column of the data."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from popmargin.objectives.base import Golden, Needs, Rows, objective, positive


@dataclass(frozen=True, kw_only=True)
class SteepOptions:
    """Options of `steep`.

    Attributes:
        beta: reward units per nat.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        positive("steep", beta=self.beta)


@objective(
    "steep",
    options=SteepOptions,
    score="log_ratio",
    origin="ours",
    needs=Needs(columns=("steepness",)),
    golden=(Golden(rows={"chosen": [0.0], "rejected": [0.0], "steepness": [1.0]}, expected=[0.6931471805599453]),),
)
def steep(rows: Rows, options: SteepOptions) -> Float[Tensor, "B"]:
    """DPO that is steeper where the data say so.

    L = −log σ(β·exp(s)·Δ)
    """
    return softplus(-options.beta * SIGN rows.column("steepness").clamp(-5, 5).exp() * rows.gap)
'''
FORMULA = """
import numpy as np
from objective_cases import Contract, gaps, nls

CONTRACT = Contract(formula=lambda rows, o: nls(o.beta * np.exp(np.clip(rows["steepness"], -5, 5)) * gaps(rows)[0]))
"""


def check(folder: Path, environment: dict[str, str], names: str) -> subprocess.CompletedProcess[str]:
    suite = "tests/objectives/test_objective_contract.py"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "-m", "not slow", "-k", names],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_new_objective_is_two_new_files(tmp_path: Path, popmargin_environment: dict[str, str]) -> None:
    """In a copy of the tree the contract suite finds both, a wrong sign, and the missing second file."""
    (tmp_path / "tests").mkdir()
    for name in ("src/popmargin", "tests/objectives"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py", "tests/strict_types.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    own = tmp_path / "src/popmargin/objectives/steep.py"
    own.write_text(dedent(OBJECTIVE).replace("SIGN ", ""))
    alone = check(tmp_path, popmargin_environment, "file_of_its_own")
    assert alone.returncode == 1 and "write" in alone.stdout and "test_objective_steep.py" in alone.stdout
    formula = tmp_path / "tests/objectives/test_objective_steep.py"
    formula.write_text(dedent(FORMULA))
    both = check(tmp_path, popmargin_environment, "steep or file_of_its_own")
    passed = re.search(r"(\d+) passed", both.stdout)
    assert both.returncode == 0 and passed and int(passed[1]) > 14, both.stdout[-3000:]
    own.write_text(dedent(OBJECTIVE).replace("SIGN ", "-"))
    wrong = check(tmp_path, popmargin_environment, "agrees_with_numpy and steep")
    assert wrong.returncode == 1 and "1 failed" in wrong.stdout
