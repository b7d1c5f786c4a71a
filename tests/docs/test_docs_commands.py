"""Every command and every Python block of the documentation, run as a reader would type them."""

import doctest
import importlib
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest

from popmargin.data.images import encode_png
from popmargin.objectives.base import OBJECTIVES
from popmargin.recommend.denoising.saved_denoiser import write_start
from popmargin.recommend.item_preferences import case_rows, training_rows
from popmargin.recommend.item_sequences import Sequences
from popmargin.recommend.splitting import split_by_user
from popmargin.study.config import load_study
from popmargin.study.recommenders.recommend_config import RecommendConfig, load_recommend_config
from small_shop import write_shop

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
Run = Callable[..., subprocess.CompletedProcess[str]]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """The lines of the shell blocks, without comments."""
    lines = "".join(blocks(page, "bash", "sh")).splitlines()
    return [line.partition("  #")[0].partition(" # ")[0].strip() for line in lines if line.strip()]


def _strong(line: str) -> str:
    """A rated row with other signals of its strength in the place of the ratings."""
    row = json.loads(line)
    gap = row.pop("chosen_rating") - row.pop("rejected_rating") - 1
    signals = {"margin": gap, "helpful": round(gap), "share": 0.9 if gap > 1 else 0.6, "weight": 1 + (gap > 1)}
    return json.dumps(row | signals) + "\n"


def _write_shop(folder: Path) -> None:
    """Events with their study and run; and items, preferences between them and the run that trains on them."""
    write_shop(folder / "events.jsonl", users=200)
    parts = split_by_user(Sequences.of([[1, 2, 3], [2, 3, 1], [3, 1, 2]] * 10))
    write_start(folder / "my-shop", parts.catalogue)
    for name, rows in (("train", training_rows(parts)), ("valid", case_rows(parts, parts.valid))):
        (folder / f"shop-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in zip(("shop-study", "shop", "items"), blocks(ROOT / "docs" / "recommend.md", "yaml"), strict=True):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, model_path: str, data_path: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's working folder: a model, preferences, a reward, an objective and a configuration of their own."""
    (tmp_path / "my-model").symlink_to(model_path)
    (tmp_path / "preferences.jsonl").write_text(Path(data_path).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "strengths.jsonl").write_text("".join(map(_strong, Path(data_path).read_text().splitlines())))
    (tmp_path / "my_rewards.py").write_text(
        "def score(prompts, completions):\n    return [float(len(text)) for text in completions]\n"
    )
    several = [{"prompt": f"Say {n}.", "responses": ["well", "well done", "so", "so"][n % 2 :]} for n in range(6)]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in several))
    (tmp_path / "run.yaml").write_text(
        "model: {path: my-model}\ndata: {train: preferences.jsonl}\noutput: runs/yaml\ntrain: {batch_size: 8}\n"
    )
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "pairs.jsonl").write_text(blocks(ROOT / "docs" / "images.md", "jsonl")[0])
    for number, name in enumerate("abcd"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(encode_png(np.full((8, 8, 3), number, np.uint8)))
    (tmp_path / "rounds.yaml").write_text(blocks(ROOT / "docs" / "rounds.md", "yaml")[0])
    _write_shop(tmp_path)
    (tmp_path / "my_objective.py").write_text(blocks(ROOT / "README.md", "python")[-1])
    monkeypatch.setenv("POPMARGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands_to_run() -> None:
    assert sum(line.startswith("popmargin ") for page in PAGES for line in commands(page)) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_other_commands_are_make_targets_or_installs(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    inline = re.findall(r"`make ([\w -]+)`", page.read_text(encoding="utf-8"))
    named = [line.removeprefix("make ") for line in commands(page) if line.startswith("make ")] + inline
    assert set(" ".join(named).split()) <= targets
    known = ("popmargin ", "make ", "pip install popmargin", "pip install 'popmargin[", "python benchmarks/")
    lines = [re.sub(r"^(\w+=\S+ )+", "", line) for line in commands(page)]  # without the environment
    assert [line for line in lines if not line.startswith(known)] == []


def test_study_commands_are_configurations_that_load() -> None:
    page = ROOT / "docs" / "studies" / "objectives.md"
    lines = "".join(blocks(page, "text")).replace("\\\n", " ").splitlines()
    studies = [shlex.split(line)[2:] for line in lines if line.startswith("popmargin compare ")]
    assert len(studies) >= 8
    for path, *flags in studies:
        load_study(ROOT / path, flags)
    text = "".join(blocks(ROOT / "docs" / "studies" / "recommend.md", "text")).replace("\\\n", " ")
    recommenders = [line for line in text.splitlines() if line.startswith("popmargin recommend compare ")]
    assert len(recommenders) >= 4
    for line in recommenders:
        path, *flags = shlex.split(line)[3:]
        output = flags[:2] if "--output" in flags else []
        load_recommend_config(RecommendConfig, ROOT / path, flags[len(output) :])


def serves(line: str, folder: Path) -> None:
    """A server comes up, prints links, and the first one opens a page; then it is stopped as by Ctrl-C."""
    words = [sys.executable, "-m", "popmargin", *shlex.split(line)[1:], "--no-browser"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said: list[str] = []
        for text in server.stdout:
            said.append(text)
            if "Ctrl-C" in text:
                break
        link = re.search(r"http://\S+", "".join(said))
        assert link is not None, "".join(said)
        try:
            address = link[0].replace("0.0.0.0", "127.0.0.1").replace("/label/", "/")
            page = httpx.get(address, follow_redirects=True)
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)
    assert page.status_code == 200, f"{line}\n{address}\n{page.text[:500]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(c.startswith("popmargin") for c in commands(p))], ids=lambda p: p.name
)
def test_every_command_works(page: Path, folder: Path, popmargin: Run) -> None:
    if page.name == "images.md":
        from tiny_pipelines import saved  # diffusers takes seconds to import

        saved(folder / "my-pipeline")
        (folder / "prompts.txt").write_text("red 3\nblue 5\n", encoding="utf-8")
    for line in commands(page):
        if line.startswith("popmargin annotate "):
            serves(line, folder)
        elif line.startswith("popmargin "):
            result = popmargin(*shlex.split(line)[1:], cwd=folder)
            assert result.returncode == 0, f"{line}\n{result.stderr[-2000:]}"
    if page.name == "recommend.md":
        code = next(block for block in blocks(page, "python") if not block.startswith(">>>"))
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_yaml_command_and_the_own_objective_of_the_readme_work(folder: Path, popmargin: Run) -> None:
    line = re.search(r"`popmargin (train run\.yaml[^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert line is not None
    own = ["--objective.name", "my_objective.py:hinge", "--output", "runs/own"]
    for words in (shlex.split(line[1]), ["train", "run.yaml", *own]):
        result = popmargin(*words, cwd=folder)
        assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
def test_the_python_of_the_readme_works(folder: Path) -> None:
    code = blocks(ROOT / "README.md", "python")[0]
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "estimate" in result.stdout


@pytest.mark.slow
def test_the_python_of_the_page_on_trl_works(folder: Path) -> None:
    """All blocks in one program: the second way starts from what the first one has trained."""
    code = "\n".join(blocks(ROOT / "docs" / "trl.md", "python"))
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Table of 40 rows: id (p000, p001" in result.stdout and (folder / "log_probs.parquet").is_file()


@pytest.mark.parametrize("name", ["rank.md", "augment.md", "recommend.md", "api.md"])
def test_the_python_of_pages_with_prompts_gives_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "".join(blocks(ROOT / "docs" / name, "python"))
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert (runner.tries, runner.failures) == (len(test.examples), 0) and len(test.examples) >= 6


def test_generated_pages_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator as a module, with a folder of its own to write to."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generate")


def test_pages_and_figures_are_checked(
    generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed page or figure, a missing one and one without an objective are all out of date."""
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0 and generate.outputs() == generate.outputs()
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0
    folder = tmp_path / "objectives"
    (folder / "dpo.svg").write_text("<svg/>")
    (folder / "pop.md").unlink()
    (folder / "gone.md").write_text("# gone")
    capsys.readouterr()
    assert generate.main() == 1
    assert "objectives/dpo.svg, objectives/pop.md, objectives/gone.md;" in capsys.readouterr().err


def test_every_objective_has_a_page_with_figure_and_advice() -> None:
    """Figures are whole SVG files without NaN; what to write on a page comes from the objective's own file."""
    folder = ROOT / "docs" / "objectives"
    ours = (OBJECTIVES.get(name) for name in OBJECTIVES.names())  # and those that other tests have registered
    names = [objective.name for objective in ours if objective.function.__module__.startswith("popmargin.objectives.")]
    assert len(names) > 20
    for name in names:
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert re.search(r"## When to use it\n\n\w.*\n\n## What to watch\n\n\S.*\n\n## Options\n\n- `objective", page)
        assert re.search(r"- Noise it tolerates: \S", page) and f"]({name}.svg)" in page
        figure = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert ElementTree.fromstring(figure).tag == "{http://www.w3.org/2000/svg}svg" and "nan" not in figure
        assert f"[`{name}`]({name}.md)" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
