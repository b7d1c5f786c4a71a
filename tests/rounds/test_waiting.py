"""Rounds that wait for people: what is said, what goes on, and which questions are asked within a budget."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from few_fast import few_fast
from popmargin.cli.main import main
from popmargin.data.load import load_preferences
from popmargin.errors import ConfigError, RunError, WaitingError
from popmargin.label.store.address import open_store
from popmargin.pop.active import ActiveSampler
from popmargin.pop.edges import PopEdges
from popmargin.recipes.base import RECIPES
from popmargin.recipes.iterate import IterateOptions
from popmargin.rounds import Plan, Work, run_plan
from popmargin.rounds.runner import states_of
from popmargin.rounds.stages.ask_people import Ask, add_people
from popmargin.rounds.status import status_lines

ROWS = [{"prompt": f"{n} + {n}?", "chosen": str(2 * n), "rejected": str(n)} for n in range(1, 6)]


def pairs_stage(work: Work) -> None:
    load_preferences(ROWS).save(work.outputs["pairs"])


def other_stage(work: Work) -> None:
    work.outputs["text"].write_text("done")


def plan_of_questions(folder: Path, ask: Ask = "preference", **options: Any) -> Plan:
    plan = Plan()
    pairs = plan.add("pairs", pairs_stage, outputs={"pairs": "pairs.parquet"})["pairs"]
    store = str(folder / "labels.db")
    last = add_people(plan, "people", pairs, store=store, project="mine", ask=ask, overlap=1, seed=3, **options)
    plan.add("after", other_stage, inputs={"rows": last["preferences"]}, outputs={"text": "text.txt"})
    plan.add("beside", other_stage, outputs={"text": "text.txt"})  # nobody has to answer for this one
    return plan


@pytest.fixture
def own_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes that a test registers are forgotten after it."""
    RECIPES.names()
    monkeypatch.setattr(RECIPES, "_entries", dict(RECIPES._entries))  # pyright: ignore[reportPrivateUsage]


def answer(folder: Path, count: int | None = None) -> None:
    """Answer so many of the questions that are open; None all."""
    with open_store(str(folder / "labels.db")) as store:
        project = store.project("mine")
        known = store.annotators(project.id)
        annotator = known[0] if known else store.add_annotator(project.id, "ada")[0]
        done = 0
        while done != count and (task := store.next_assignment(annotator.id)) is not None:
            store.record(annotator.id, task.id, "first", request=f"r{task.id}")
            done += 1


def questions(folder: Path) -> list[frozenset[str]]:
    with open_store(str(folder / "labels.db")) as store:
        rows = [row for batch in store.items(store.project("mine").id) for row in batch.to_pylist()]
    return [frozenset((row["first"], row["second"])) for row in rows]


def quiet(_: str) -> None:
    pass


def test_what_waits_is_said_and_everything_else_goes_on(tmp_path: Path) -> None:
    plan, folder = plan_of_questions(tmp_path), tmp_path / "out"
    with pytest.raises(
        WaitingError, match=r"people/answers: waiting for people \(0 of 5 answered\)\. Answer with: pop"
    ):
        run_plan(plan, folder, say=quiet)
    assert (folder / "beside/text.txt").is_file() and not (folder / "people/answers").exists()
    answer(tmp_path, 2)
    lines = list(status_lines(plan, folder))
    assert lines[0].endswith("3 of 5 stages are finished") and lines[4].startswith("  after") and "waiting" in lines[4]
    assert lines[3] == "  people/answers  waiting for people (2 of 5 answered)"
    answer(tmp_path)
    run_plan(plan, folder, say=quiet)
    assert {state.standing for state in states_of(plan, folder).values()} == {"finished"}
    assert json.loads((folder / "people/answers/manifest.json").read_text())["attempts"] == 1


@pytest.mark.parametrize("gone", ["store", "project"])
@pytest.mark.parametrize("batches", few_fast([1, 2], (1,)))
def test_questions_that_are_gone_are_not_looked_for_in_a_new_store(tmp_path: Path, gone: str, batches: int) -> None:
    """Whatever asks or waits says what to put back and what to delete; then people are asked again."""
    ask: Ask = "preference" if batches == 1 else "pop"
    options = {} if batches == 1 else {"budget": 4, "batches": 2}
    plan, folder, labels = plan_of_questions(tmp_path, ask, **options), tmp_path / "out", tmp_path / "labels.db"
    with pytest.raises(WaitingError):
        run_plan(plan, folder, say=quiet)
    if batches == 2:  # what is gone is missed by the stage that asks more
        answer(tmp_path)
        run_plan(plan, folder, until="people/answers-1", say=quiet)
    labels.unlink()
    if gone == "project":
        with open_store(str(labels), create=True) as store:
            store.create_project("other")
    said = "label store that holds the questions is gone" if gone == "store" else "project 'mine', which holds the"
    with pytest.raises(RunError, match=f"{said}.* delete the folder .*people, to ask again"):
        run_plan(plan, folder, say=quiet)
    assert labels.exists() == (gone == "project")
    shutil.rmtree(folder / "people")
    with pytest.raises(WaitingError, match=r"\(0 of"):
        run_plan(plan, folder, say=quiet)


RECIPE = """
from pathlib import Path
from popmargin.recipes.base import recipe
from popmargin.rounds.stages.ask_people import add_people
from popmargin.data.load import load_preferences
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    project: str = "mine"

def pairs(work):
    load_preferences([{"prompt": "a", "chosen": "b", "rejected": "c"}]).save(work.outputs["pairs"])

@recipe("asking", options=Options)
def asking(plan, config, options):
    made = plan.add("pairs", pairs, outputs={"pairs": "pairs.parquet"})["pairs"]
    store = str(Path("labels.db").absolute())
    add_people(plan, "people", made, store=store, project=options.project, ask="preference", overlap=1, seed=0)
"""


@pytest.mark.usefixtures("own_recipes")
def test_the_command_ends_well_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(RECIPE)
    (tmp_path / "rounds.yaml").write_text("output: out\nrecipe: {name: 'own.py:asking'}\n")
    assert main(["rounds", "rounds.yaml", "--overwrite"]) == 0
    said = capsys.readouterr().out.splitlines()
    where = f"--db {tmp_path / 'labels.db'} --project mine"
    how = f"popmargin annotate {where}, or popmargin label judge {where} --judge …"
    assert said == [
        f"people/answers: waiting for people (0 of 1 answered). Answer with: {how}",
        "then go on with: popmargin rounds rounds.yaml",
        "report: out/report.html",
    ]
    assert "people/answers: waiting for people (0 of 1 answered)" in (tmp_path / "out/report.html").read_text()
    answer(tmp_path)
    assert main(["rounds", "rounds.yaml"]) == 0
    assert capsys.readouterr().out == "report: out/report.html\n"


@pytest.mark.usefixtures("own_recipes")
def test_after_ctrl_c_there_is_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    own = RECIPE.partition("@recipe")[0] + (
        "def stop(work):\n    raise KeyboardInterrupt\n\n@recipe('stopped', options=Options)\n"
        "def stopped(plan, config, options):\n    plan.add('pairs', pairs, outputs={'pairs': 'pairs.parquet'})\n"
        "    plan.add('stop', stop)\n"
    )
    (tmp_path / "stopped.py").write_text(own)
    (tmp_path / "rounds.yaml").write_text("output: out\nrecipe: {name: 'stopped.py:stopped'}\n")
    assert main(["rounds", "rounds.yaml"]) == 130
    assert "1 of 2 stages of out are finished, and are kept. Their report: out/report.html." in capsys.readouterr().err
    assert "1 of 2 stages are finished" in (tmp_path / "out/report.html").read_text()


def as_sets(pairs: list[tuple[str, str]]) -> set[frozenset[str]]:
    return set(map(frozenset, pairs))


def test_the_budget_goes_to_the_most_informative_pairs(tmp_path: Path) -> None:
    """As many questions as the budget, batch by batch those that `pop/active.py` puts first after the answers."""
    plan, folder = plan_of_questions(tmp_path, "pop", budget=5, batches=2), tmp_path / "out"
    ids = load_preferences(ROWS).ids
    expected: list[frozenset[str]] = []
    for number, total in ((1, 2), (2, 5)):
        with pytest.raises(WaitingError):
            run_plan(plan, folder, say=quiet)
        sampler = ActiveSampler(ids, seed=3)
        if number > 1:
            sampler.tell(PopEdges.load(folder / f"people/answers-{number - 1}/edges.parquet"))
        sampler.pass_over([tuple(pair) for pair in expected])  # pyright: ignore[reportArgumentType]
        asked = questions(tmp_path)
        assert len(asked) == total == len(set(asked))
        assert set(asked[len(expected) :]) == as_sets(sampler.ask(total - len(expected)))
        expected = asked
        answer(tmp_path)
    run_plan(plan, folder, say=quiet)
    assert len(PopEdges.load(folder / "people/answers/edges.parquet")) == len(questions(tmp_path)) == 5


def test_a_killed_batch_is_not_asked_twice(tmp_path: Path) -> None:
    """The questions are in the store, and the stage was killed before it could say so."""
    plan, folder = plan_of_questions(tmp_path, "pop", budget=2, batches=2), tmp_path / "out"
    for stage in ("people/ask-1", "people/ask"):
        with pytest.raises(WaitingError):
            run_plan(plan, folder, say=quiet)
        before = questions(tmp_path)
        (folder / stage / "manifest.json").rename(folder / stage / "begun.json")
        with pytest.raises(WaitingError):
            run_plan(plan, folder, say=quiet)
        assert questions(tmp_path) == before
        answer(tmp_path)
    run_plan(plan, folder, say=quiet)


def test_a_budget_of_more_pairs_than_there_are(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(WaitingError):
        run_plan(plan_of_questions(tmp_path, "pop", budget=50), tmp_path / "out", say=said.append)
    assert len(questions(tmp_path)) == 10 and "10 of 50 questions are asked: there are no other pairs" in " ".join(said)


def wrong_options() -> Iterator[tuple[dict[str, Any], str]]:
    people: dict[str, Any] = {"labels": "people", "store": "labels.db", "ask": "pop", "seed_prompts": 4}
    yield {"labels": "random", "choose": "pairs", "budget": 3}, r"ask people about two preferences.*base\.pop\.sampling"
    yield people | {"choose": "pairs"}, r"needs recipe\.budget"
    yield people | {"choose": "pairs", "budget": 3, "batches": 4}, "at least one question in each batch"
    yield people | {"batches": 2}, r"recipe\.batches has no effect"
    yield {"labels": "random", "project": "mine"}, r"recipe\.project has no effect"


@pytest.mark.parametrize(("options", "sentence"), list(wrong_options()))
def test_options_that_do_not_fit_together(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        IterateOptions(**options)


def test_a_project_of_other_questions_names_the_option_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(WaitingError):
        run_plan(plan_of_questions(tmp_path), tmp_path / "one", say=lambda line: None)
    with pytest.raises(ConfigError, match=r"--recipe\.project NAME"):
        run_plan(plan_of_questions(tmp_path, "pop"), tmp_path / "two", say=lambda line: None)
