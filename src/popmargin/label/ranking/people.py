"""Ranking by people: a label project to which the next comparisons are added as the answers come.

Nothing is kept beside the label store. A step replays every prompt with the answers that the store holds and adds the
comparisons that are wanted next, so it can be killed anywhere, and be run by hand, in a loop or on another machine.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from popmargin.data.conversation import Text, prompt_key
from popmargin.data.images import COLUMNS, image_bytes
from popmargin.data.load import load_preferences
from popmargin.data.questions import Verdict
from popmargin.data.responses import Responses
from popmargin.errors import ConfigError, DataError, counted
from popmargin.files import digest
from popmargin.label.projects.same_project import refuse_other_settings
from popmargin.label.ranking.contests import plan_ranking
from popmargin.label.ranking.ranking import PromptRanking, Ranking, fate_of
from popmargin.label.ranking.schemes import Outcome, Pair, Scheme, replay, turned
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project
from popmargin.label.web.guidelines import guidelines_of
from popmargin.rewards.rate_responses import holds_images

PREFIX = "rank-"
"""Of the ids of compared pairs: scheme, and a digest of prompt and responses."""
_COLUMNS = ("kind", "first", "annotator_kind", "verdict", "repeat_of", "swap_first")


@dataclass(frozen=True)
class PeopleStep:
    """Where a ranking by people stands after a step.

    Attributes:
        added: comparisons that the step added.
        waiting: comparisons in the store without all their answers.
        decided: prompts that need no more comparisons.
        prompts: prompts that are ranked.
        ranking: the result, once all are decided; None before.
    """

    added: int
    waiting: int
    decided: int
    prompts: int
    ranking: Ranking | None

    def __str__(self) -> str:
        return (
            f"{self.decided} of {counted(self.prompts, 'prompt')} decided; {counted(self.added, 'comparison')} added, "
            f"{self.waiting} waiting for answers"
        )


def open_ranking(
    store: LabelStore,
    name: str,
    *,
    overlap: int | None = None,
    scheme: Scheme = "champion",
    seed: int = 0,
    images: bool = False,
) -> Project:
    """The project of a ranking, made if there is none of this name.

    Args:
        store: where it is, or will be.
        name: of the project.
        overlap: people per comparison; None is 1 for a new project, and whatever an existing one has.
        scheme, seed: of the ranking. The seed is also that of the order of items, and of their sides on the screen.
        images: the responses are images, which the guidelines of a new project should say.

    Raises:
        ConfigError: an existing project has another overlap, or asks by another scheme or seed.
        DataError: it holds something else.
    """
    found = next((project for project in store.projects() if project.name == name), None)
    if found is None:
        return store.create_project(
            name, overlap=overlap or 1, seed=seed, guidelines=guidelines_of("preference", images=images)
        )
    refuse_other_settings(found, {"overlap": overlap})
    stored = store.preference_columns(found.id)["id"]
    other = [key for key in stored if not key.startswith(PREFIX)]
    if other:
        raise DataError(
            f"{store.name}: project '{name}' holds preferences that are no comparisons of a ranking, such as "
            f"'{other[0]}'. Name another project with --project."
        )
    refuse_other_settings(found, {"seed": seed})
    for key in stored:
        asked_by = key.removeprefix(PREFIX).split("-")[0]
        if asked_by != scheme:
            raise ConfigError(
                f"Project '{name}' asks by the scheme {asked_by}, not {scheme}, which would ask people more. Go on "
                f"with --scheme {asked_by}, or start another project with --project NAME."
            )
    return found


def people_step(
    store: LabelStore, project: Project, responses: Responses, *, scheme: Scheme = "champion", seed: int = 0
) -> PeopleStep:
    """Add the comparisons that are wanted next, from the answers so far; at the end give the ranking.

    A person is shown each pair once, in a random order that the store keeps. Of several people the majority counts, as
    many for either side are a tie, and nobody but "unsure" is no outcome.

    Args:
        store: holds the project and its answers.
        project: see `open_ranking`.
        responses: to each prompt, the same in every step.
        scheme, seed: as in `rank_responses`.

    Raises:
        ConfigError: an unknown scheme.
    """
    plan = plan_ranking(responses, scheme=scheme, seed=seed, orders="one")
    pairs = _Pairs(responses, scheme)
    answers = _answers(store, project)
    known: dict[str, Outcome] = {key: of.outcome for key, of in answers.items() if of.count >= project.overlap}
    ranked: list[PromptRanking] = []
    wanted: dict[str, tuple[int, Pair]] = {}
    for contest in plan.contests:
        keys = {pair: pairs.key(contest.row, pair) for pair in _all_pairs(contest.order)}
        games: dict[Pair, Outcome] = {pair: known[key] for pair, key in keys.items() if key in known}
        standing = replay(scheme, contest.order, games)
        wanted |= {pairs.key(contest.row, _sorted(pair)): (contest.row, _sorted(pair)) for pair in standing.wanted}
        if not standing.wanted:
            asked = {_sorted(pair) for pair, _ in standing.played}
            if standing.direct is not None and standing.best is not None and standing.worst is not None:
                asked.add(_sorted((standing.best, standing.worst)))
            own: dict[Pair, Outcome] = {pair: games[pair] for pair in sorted(asked)}
            given: dict[Pair, Verdict] = {}
            for pair in asked:
                given |= answers[keys[pair]].shown(pair)
            ranked.append(PromptRanking(contest, standing, own, given, fate_of(standing, own)))
    added = _add(store, project, pairs, wanted)
    done = len(ranked) == len(plan.contests)
    calls = len({pairs.key(of.contest.row, pair) for of in ranked for pair in of.games})
    ranking = Ranking(responses, scheme, seed, "one", plan, tuple(ranked), calls) if done else None
    return PeopleStep(added, len(wanted), len(ranked), len(plan.contests), ranking)


@dataclass
class _Answers:
    """The answers to one comparison: verdicts of the stored order, and whether the screen showed the other one."""

    given: list[tuple[Verdict, bool | None]]

    @property
    def count(self) -> int:
        return len(self.given)

    @property
    def outcome(self) -> Outcome:
        votes = Counter(verdict for verdict, _ in self.given)
        if not votes["first"] + votes["second"] + votes["tie"]:
            return "unknown"
        more = votes["first"] - votes["second"]
        return "tie" if more == 0 else "first" if more > 0 else "second"

    def shown(self, pair: Pair) -> dict[Pair, Verdict]:
        """(shown first, shown second) -> which place won; of several answers in one order the last."""
        found: dict[Pair, Verdict] = {}
        other: dict[Verdict, Verdict] = {"first": "second", "second": "first"}
        for verdict, swapped in self.given:
            if swapped is None:  # given elsewhere, on a screen that is not known
                continue
            found[turned(pair) if swapped else pair] = other.get(verdict, verdict) if swapped else verdict
        return found


class _Pairs:
    """Compared pairs by content: the same prompt and responses are one comparison, in whatever row they stand."""

    def __init__(self, responses: Responses, scheme: Scheme) -> None:
        self._scheme = scheme
        self._prompts, self._texts = responses.prompts, responses.texts
        self._starts = [0, *responses.counts.cumsum().tolist()]
        self._images = responses.field("image") if holds_images(responses) else None

    def texts(self, row: int, pair: Pair) -> tuple[Text, Text, Text]:
        """The prompt and both responses."""
        first, second = (self._texts[self._starts[row] + number] for number in pair)
        return self._prompts[row], first, second

    def images(self, row: int, pair: Pair) -> dict[str, Any]:
        """The columns with both images; none if the responses are texts."""
        if self._images is None:
            return {}
        files = [image_bytes(self._images[self._starts[row] + number]) for number in pair]
        return {column: {"bytes": file, "path": None} for column, file in zip(COLUMNS, files, strict=True)}

    def key(self, row: int, pair: Pair) -> str:
        """The id of a pair in the store."""
        parts = (prompt_key(text).encode("utf-8", "surrogatepass") for text in self.texts(row, pair))
        return f"{PREFIX}{self._scheme}-{digest(*parts)[:24]}"


def _sorted(pair: Pair) -> Pair:
    """A pair in the one order in which it is stored."""
    return (min(pair), max(pair))


def _all_pairs(order: Sequence[int]) -> list[Pair]:
    players = sorted(order)
    return [(one, other) for place, one in enumerate(players) for other in players[place + 1 :]]


def _answers(store: LabelStore, project: Project) -> dict[str, _Answers]:
    """Answers of people by the id of the pair."""
    given: defaultdict[str, list[tuple[Verdict, bool | None]]] = defaultdict(list)
    for row in store.labels(project.id, columns=_COLUMNS).to_pylist():
        if row["kind"] == "preference" and row["annotator_kind"] == "person" and row["repeat_of"] is None:
            given[row["first"]].append((row["verdict"], row["swap_first"]))
    return {key: _Answers(answers) for key, answers in given.items()}


def _add(store: LabelStore, project: Project, pairs: _Pairs, wanted: Mapping[str, tuple[int, Pair]]) -> int:
    """Add comparisons that the store does not have; a step that was killed between its two writes is completed."""
    asked = {key for batch in store.items(project.id) for key in batch["first"].to_pylist()}
    new = [key for key in wanted if key not in asked]
    stored = set(store.preference_columns(project.id)["id"])
    rows: list[dict[str, Any]] = []
    for key in (key for key in new if key not in stored):
        prompt, first, second = pairs.texts(*wanted[key])
        texts = {"id": key, "prompt": prompt, "chosen": first, "rejected": second}
        rows.append(texts | pairs.images(*wanted[key]))
    if rows:
        store.import_preferences(project.id, load_preferences(rows))
    if new:
        store.add_items(project.id, "preference", new)
    return len(new)
