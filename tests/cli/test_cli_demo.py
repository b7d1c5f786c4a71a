"""What `popmargin demo` runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from popmargin.cli.main import main
from popmargin.models import policies
from popmargin.study import compare as module


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_the_demo_fits_the_machine(
    slow: bool, full: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def compare(study: Any, *, overwrite: bool) -> tuple[Any, Path]:
        seen.append(study)
        return SimpleNamespace(reading=["nothing"]), Path("report.html")

    monkeypatch.setattr(module, "compare", compare)
    monkeypatch.setattr(policies, "bf16_is_slower", lambda: slow)
    assert main(["demo", *(["--full"] if full else []), "--output", "here", "--base.train.epochs", "3"]) == 0
    study = seen[0]
    config = study.run_config("pop_iterative", study.seeds[0])
    assert config.model.precision == ("fp32" if slow else "bf16") and config.model.lora_rank == 16
    assert study.output == "here" and config.train.epochs == 3
    assert (len(study.seeds), config.data.limit) == ((5, None) if full else (1, 160))
    shown = capsys.readouterr()
    assert ("runs in fp32" in shown.err) is slow
    assert shown.out == "- nothing\nreport: report.html\n"
