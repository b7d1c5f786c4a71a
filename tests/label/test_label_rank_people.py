"""Ranking by people: each step adds what the answers so far call for, in whatever process it runs."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from label_stores import preferences

from popmargin.cli.main import main
from popmargin.data.images import encode_png, image_name
from popmargin.data.load import load_preferences
from popmargin.data.questions import Verdict
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError
from popmargin.label.ranking.people import PeopleStep, open_ranking, people_step
from popmargin.label.ranking.rank import rank_responses
from popmargin.label.ranking.ranking import EVEN
from popmargin.label.ranking.ranking_report import ranking_report
from popmargin.label.ranking.schemes import Scheme, comparisons_of
from popmargin.label.store.label_store import LabelStore
from popmargin.rewards.rate_responses import holds_images

Says = Callable[[str, str], Verdict]


@pytest.fixture
def responses() -> Responses:
    """Longer is better; the third prompt repeats the first one."""
    texts = [["a" * size for size in sizes] for sizes in ((3, 1, 4, 2, 5), (2, 1), (3, 1, 4, 2, 5))]
    return Responses(["q", "r", "q"], texts)


def longer(first: str, second: str) -> Verdict:
    return "first" if len(first) > len(second) else "second"


def answer_all(store: LabelStore, who: int, says: Says) -> int:
    """One person answers until nothing is left for them; what they see may be turned round."""
    count = 0
    while (now := store.next_assignment(who)) is not None:
        assert now.kind == "preference" and isinstance(now.first.chosen, str) and isinstance(now.first.rejected, str)
        store.record(who, now.id, says(now.first.chosen, now.first.rejected), request=uuid.uuid4().hex)
        count += 1
    return count


def rank(store: LabelStore, responses: Responses, *says: Says, **settings: Any) -> tuple[PeopleStep, int]:
    """Step and answer in turns; the last step, and all answers."""
    overlap = settings.pop("overlap", 1)
    own: dict[str, Any] = {key: settings[key] for key in ("scheme", "seed") if key in settings}
    project = open_ranking(store, "ranking", overlap=overlap, images=holds_images(responses), **own)
    people = [store.add_annotator(project.id, f"P{number}")[0].id for number in range(len(says))]
    answers = 0
    for _ in range(40):
        step = people_step(store, project, responses, **settings)
        if step.ranking is not None:
            return step, answers
        again = people_step(store, project, responses, **settings)
        assert again.added == 0 and again.waiting == step.waiting > 0  # a step without answers changes nothing
        for who, say in zip(people, says, strict=True):
            answers += answer_all(store, who, say)
    raise AssertionError("the ranking does not end")


@pytest.mark.parametrize("scheme", ["champion", "pairs", "round_robin"])
def test_a_person_is_asked_what_the_scheme_needs_and_nothing_twice(
    tmp_path: Path, responses: Responses, scheme: Scheme
) -> None:
    """The result is that of a judge who says the same; a repeated prompt is asked once."""
    with LabelStore.open(tmp_path / "labels.db") as store:
        step, answers = rank(store, responses, longer, scheme=scheme, seed=4)
        assert step.ranking is not None

        def judge(prompts: Any, first: Any, second: Any) -> list[Verdict]:
            return [longer(a, b) for a, b in zip(first, second, strict=True)]

        machine = rank_responses(responses, judge, scheme=scheme, seed=4)
        assert [of.standing for of in step.ranking.prompts] == [of.standing for of in machine.prompts]
        assert answers == step.ranking.calls <= comparisons_of(scheme, 5) + 1 + 1
        assert step.ranking.preferences()[0]["chosen"] == "aaaaa" and len(step.ranking.preferences()) == 3
        assert store.progress(store.project("ranking").id).labels_done == answers
        own = ranking_report(step.ranking)
        assert own.ties.estimate == 0.0 and 0 < own.first_place.estimate < 1  # the screen's order is random


def test_the_majority_of_several_people_counts(tmp_path: Path) -> None:
    """Two of three prefer the longer one; a comparison waits until all have answered."""
    with LabelStore.open(tmp_path / "labels.db") as store:
        few = Responses(["q"], [["a", "aaa", "aa"]])
        step, answers = rank(store, few, longer, lambda a, b: "tie", longer, overlap=3)
        assert step.ranking is not None and answers == 3 * step.ranking.calls == 9
        with pytest.raises(ConfigError, match="has overlap 3, not 2"):
            open_ranking(store, "ranking", overlap=2)
        assert step.ranking.preferences()[0]["rejected"] == "a"


def test_ties_and_unsure_people(tmp_path: Path, responses: Responses) -> None:
    few = responses.select([1])
    with LabelStore.open(tmp_path / "ties.db") as store:
        ranking = rank(store, few, lambda a, b: "tie")[0].ranking
        assert ranking is not None and {of.fate for of in ranking.prompts} == {EVEN}
    with LabelStore.open(tmp_path / "unsure.db") as store:
        ranking = rank(store, few, lambda a, b: "unsure")[0].ranking
        assert ranking is not None and ranking_report(ranking).no_outcome > 0
        assert all("no readable answer" in of.fate for of in ranking.prompts)


def test_a_step_that_was_killed_half_way_is_completed(tmp_path: Path, responses: Responses) -> None:
    """Preferences without their items, as a kill between the two writes leaves them."""
    with LabelStore.open(tmp_path / "labels.db") as store, LabelStore.open(tmp_path / "other.db") as whole:
        project, other = open_ranking(store, "ranking"), open_ranking(whole, "ranking")
        people_step(whole, other, responses)
        columns = whole.preference_columns(other.id)
        names = ("id", "prompt", "chosen", "rejected")
        rows = [dict(zip(names, values, strict=True)) for values in zip(*(columns[n] for n in names), strict=True)]
        store.import_preferences(project.id, load_preferences(rows))
        step = people_step(store, project, responses)
        assert step.added == len(rows) == sum(len(batch) for batch in store.items(project.id))


def test_another_project_is_left_alone(tmp_path: Path) -> None:
    with LabelStore.open(tmp_path / "labels.db") as store:
        project = store.create_project("mine")
        store.import_preferences(project.id, preferences(3))
        with pytest.raises(DataError, match="project 'mine' holds preferences that are no comparisons"):
            open_ranking(store, "mine")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [({"scheme": "pairs"}, "asks by the scheme champion, not pairs"), ({"seed": 5}, "has seed 4, not 5")],
)
def test_a_ranking_goes_on_as_it_began(
    tmp_path: Path, responses: Responses, other: dict[str, Any], sentence: str
) -> None:
    """Another scheme or order of play would ask people about other pairs, on top of those they have answered."""
    with LabelStore.open(tmp_path / "labels.db") as store:
        project = open_ranking(store, "ranking", seed=4)
        people_step(store, project, responses, seed=4)
        open_ranking(store, "ranking", seed=4)
        with pytest.raises(ConfigError, match=sentence):
            open_ranking(store, "ranking", **{"seed": 4} | other)


def test_the_command_goes_on_step_by_step(
    tmp_path: Path, responses: Responses, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call is a step; the last one writes the files. Somebody else answers meanwhile."""
    monkeypatch.chdir(tmp_path)
    responses.save("responses.jsonl")
    words = ["label", "rank", "responses.jsonl", "--judge", "people", "--out", "pairs.parquet"]
    assert main([*words, "--dry-run"]) == 0 and not Path("labels.db").exists()
    assert "15 comparisons, 15 calls" in capsys.readouterr().out
    assert main(words) == 0
    assert "0 of 3 prompts decided; 2 comparisons added" in capsys.readouterr().out
    with LabelStore.open("labels.db") as store:
        who = store.add_annotator(store.project("ranking").id, "Ann")[0].id
        while not Path("pairs.parquet").exists():
            answer_all(store, who, longer)
            assert main(words) == 0
    assert "wrote 3 preferences" in capsys.readouterr().out
    assert all(row["asked"] for row in pq.read_table("pairs.comparisons.parquet").to_pylist()[:3])
    for more in (["--limit", "3"], ["--workers", "2"], ["--orders", "one"]):
        assert main([*words, "--overwrite", *more]) == 2
        assert f"{more[0]} is for judges" in capsys.readouterr().err
    assert main(["label", "rank", "responses.jsonl", "--judge", "m:f", "--out", "o.jsonl", "--db", "x.db"]) == 2
    assert "--db is for --judge people" in capsys.readouterr().err


def test_images_are_ranked_with_their_files(store: LabelStore, tmp_path: Path) -> None:
    files = [encode_png(np.full((3, 4, 3), 40 * number, np.uint8)) for number in range(4)]
    names = [image_name(file) for file in files]
    responses = Responses(["red 3"], [names], fields={"image": [files]})
    brighter = {name: number for number, name in enumerate(names)}
    step, _ = rank(store, responses, lambda one, other: "first" if brighter[one] > brighter[other] else "second")
    found = store.project("ranking")
    assert found.images and "image" in found.guidelines
    assert store.image_file(found.id, names[2]) == ("image/png", files[2])
    assert step.ranking is not None
    assert not any("longer" in line for line in ranking_report(step.ranking).lines())  # names have no length
    step.ranking.preferences().save(tmp_path / "pairs.parquet")
    row = load_preferences(tmp_path / "pairs.parquet")[0]
    assert (row["chosen"], row["rejected"]) == (names[3], names[0])
    assert [row[f"{side}_image"]["bytes"] for side in ("chosen", "rejected")] == [files[3], files[0]]
    responses.save(tmp_path / "responses.parquet")
    asked = ["label", "rank", str(tmp_path / "responses.parquet"), "--judge", "judge:x@http://127.0.0.1:1/v1"]
    assert main([*asked, "--out", str(tmp_path / "out.parquet")]) == 2
    assert not (tmp_path / "out.parquet").exists()
