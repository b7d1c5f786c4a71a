"""Write the generated parts of the documentation: objectives and configuration from code, the demo from numbers.

python docs/generate.py          write them
python docs/generate.py --check  exit 1 if one is out of date
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import demo_paragraph
import objective_pages
from reference_lists import attributes

from popmargin.config import RunConfig
from popmargin.config.described import fields_of
from popmargin.recipes.base import RECIPES
from popmargin.study.best_of_n.best_of_n_config import BestOfNConfig
from popmargin.study.budget.budget_config import BudgetConfig
from popmargin.study.config import StudyConfig
from popmargin.study.recommenders.recommend_config import RecommendConfig
from popmargin.tasks.base import TASKS

HERE = Path(__file__).parent
FIELDS = "<!-- fields: made by docs/generate.py from popmargin.config and popmargin.study.config -->"
SETTINGS = "<!-- settings: made by docs/generate.py from popmargin.study.recommenders.recommend_config -->"
BEST_OF_N = "<!-- settings: made by docs/generate.py from popmargin.study.best_of_n.best_of_n_config -->"
BUDGET = "<!-- settings: made by docs/generate.py from popmargin.study.budget.budget_config -->"
OPTIONS = "<!-- recipes: made by docs/generate.py from popmargin.recipes -->"
STUDY = (
    "For `popmargin compare`. A stopped study continues where it was. The same command can run several times at once,",
    "on one GPU each or on the same (`CUDA_VISIBLE_DEVICES=1 popmargin compare study.yaml`): the processes share the",
    "runs, and another takes over the run of a killed process.",
    "",
)


def configuration_page() -> str:
    """The page on configurations, with every field of a run's and of a study's."""
    before, start, _ = (Path(__file__).parent / "configuration.md").read_text(encoding="utf-8").partition(FIELDS)
    if not start:
        raise SystemExit(f"docs/configuration.md lacks the line {FIELDS!r} before its fields.")
    lines, of_tasks = [FIELDS], list[str]()
    for name in TASKS.names():
        if options := task_options(TASKS.get(name).options):
            of_tasks += ["", f"### `task: {name}`", "", *options]
    for title, kind in (("A run", RunConfig), ("A study", StudyConfig)):
        lines += ["", f"## {title}", "", *(STUDY if kind is StudyConfig else ()), *attributes(kind, "")]
        for field in fields_of(kind):
            if field.section is not None:
                lines += ["", f"### `{field.name}`", "", *attributes(field.section, f"{field.name}.")]
            elif field.name == "task":
                lines += of_tasks
    return before + "\n".join(lines) + "\n"


def task_options(kind: Any) -> list[str]:
    """The options of a task, each section followed by its fields."""
    return attributes(kind, "task.")


def rounds_page() -> str:
    """The page on rounds, with the options of every recipe."""
    before, start, _ = (Path(__file__).parent / "rounds.md").read_text(encoding="utf-8").partition(OPTIONS)
    if not start:
        raise SystemExit(f"docs/rounds.md lacks the line {OPTIONS!r} before its options.")
    lines = [OPTIONS]
    for name in RECIPES.names():
        found = RECIPES.get(name)
        lines += ["", f"### `{name}`", "", found.summary, "", *attributes(found.options, "")]
    return before + "\n".join(lines) + "\n"


def settings_page(page: str, line: str, kind: Any) -> str:
    """A page with every setting of a configuration behind a line."""
    before, start, _ = (Path(__file__).parent / page).read_text(encoding="utf-8").partition(line)
    if not start:
        raise SystemExit(f"docs/{page} lacks the line {line!r} before its settings.")
    lines = [line, "", *attributes(kind, "")]
    for field in fields_of(kind):
        if field.section is not None:
            lines += ["", f"### `{field.name}`", "", *attributes(field.section, f"{field.name}.")]
    return before + "\n".join(lines) + "\n"


def outputs() -> dict[str, str]:
    """Every generated file, by its path in the documentation."""
    found = {
        "configuration.md": configuration_page(),
        "rounds.md": rounds_page(),
        "recommend.md": settings_page("recommend.md", SETTINGS, RecommendConfig),
        "best_of_n.md": settings_page("best_of_n.md", BEST_OF_N, BestOfNConfig),
        "budget.md": settings_page("budget.md", BUDGET, BudgetConfig),
        "../README.md": demo_paragraph.readme(),
    }
    return found | {f"objectives/{name}": text for name, text in objective_pages.pages().items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    files = outputs()
    stale = [name for name, text in files.items() if _read(HERE / name) != text]
    # The folder of objectives is generated as a whole: a page there without an objective is of one that is gone.
    present = [f"objectives/{file.name}" for file in sorted((HERE / "objectives").glob("*"))]
    gone = [name for name in present if name not in files]
    if args.check:
        if stale or gone:
            print(f"out of date: {', '.join(stale + gone)}; run make docs", file=sys.stderr)
        return 1 if stale or gone else 0
    (HERE / "objectives").mkdir(exist_ok=True)
    for name in stale:
        (HERE / name).write_text(files[name], encoding="utf-8")
        print(f"wrote docs/{name}")
    for name in gone:
        (HERE / name).unlink()
        print(f"removed docs/{name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
