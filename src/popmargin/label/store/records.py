"""Records returned by the label store: projects, annotators, assignments and labels, plain and immutable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from popmargin.data.questions import Kind, PreferenceText, Side, Verdict

Wrong = Literal["first", "second", "both"]
State = Literal["leased", "done", "skipped", "expired"]
Adjudication = Literal["wins", "ignore"]
"""Of items that an adjudicator has decided: only that label counts, or only the others do."""
ProjectState = Literal["open", "paused", "archived"]
AnnotatorKind = Literal["person", "ratings", "reward", "judge"]

WRONGS: tuple[Wrong, ...] = ("first", "second", "both")
ApiRole = Literal["lead", "read"]
API_ROLES: tuple[ApiRole, ...] = ("lead", "read")
STATES: tuple[ProjectState, ...] = ("open", "paused", "archived")
ANNOTATOR_KINDS: tuple[AnnotatorKind, ...] = ("person", "ratings", "reward", "judge")


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One of several questions about each task; the name is that of its column."""

    name: str
    question: str


@dataclass(frozen=True, kw_only=True)
class Project:
    """Items of one set of preferences, and how they are assigned.

    Attributes:
        overlap: people who label an item, unless the item has its own.
        seed: of the order of items and of all shuffling on the screen.
        lease_seconds: how long an item stays with an annotator who does not answer.
        guidelines: Markdown for the annotators.
        guidelines_version: 1, and one more with every change.
        repeat_share: share of an annotator's items that repeat earlier ones, to measure self-consistency.
        items: number of items, including gold ones.
        conversational: whether texts are lists of messages; None before the first import.
        scale: ratings go from 1 to this; None if nothing is rated.
        images: whether responses are images.
        training: gold items that everybody gets first, with feedback; None for none.
        passing: share of them to get right; who does not waits for the lead. None for no limit.
        state: a paused one gives out no tasks, but takes answers to those that are open; an archived one takes none.
        votes_hidden: adjudicators decide without seeing the votes.
        wording: what the better response is more of, as a comparative: "better", "more convincing".
        grades: whether an answer about two responses says by how much one is better.
        shown: columns of the data that people see with a task.
        both_bad: an answer about two responses may be that both are bad.
        criteria: every answer has a verdict on each; the first is that of `Label.verdict`. Empty: one question.
        language: of the annotators' pages, as `language.page_texts.read_language` gives it.
    """

    id: int
    name: str
    overlap: int
    seed: int
    lease_seconds: int
    guidelines: str
    repeat_share: float
    items: int
    gold_items: int
    preferences: int
    conversational: bool | None
    scale: int | None
    created_at: datetime
    images: bool = False
    guidelines_version: int = 1
    training: int | None = None
    passing: float | None = None
    state: ProjectState = "open"
    votes_hidden: bool = False
    wording: str = "better"
    grades: bool = False
    shown: tuple[str, ...] = ()
    both_bad: bool = False
    criteria: tuple[Criterion, ...] = ()
    language: str = "en"


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """What is known of an image in a project without reading it.

    Attributes:
        name: `image:` and 32 hex digits, as in the preferences.
        width: in pixels, as it is shown.
        height: the same.
        reduced: it is so large that pages first show a smaller copy.
    """

    name: str
    width: int
    height: int
    reduced: bool

    @property
    def digits(self) -> str:
        """The hex digits of the name, which stand in addresses."""
        return self.name.removeprefix("image:")


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """An annotator: a person, or a model under its own name.

    Attributes:
        active: may label.
        discarded: the answers are kept but do not count.
        guidelines_seen: version of the guidelines that was acknowledged; 0 before the first.
        held: got too few training items right, and gets no tasks before the lead decides.
        adjudicator: gets the items on which others disagree, and no others.
        quota: answers, with repeated items, after which there are no more tasks; None for no limit.
        lead: sees the admin pages of the project.
        weight: how much each label counts in soft labels, mean ratings, scales and edges: above 0 and at most 1.
        example_seen: has gone on from the worked example.
    """

    id: int
    name: str
    kind: AnnotatorKind
    active: bool
    discarded: bool = False
    guidelines_seen: int = 0
    held: bool = False
    adjudicator: bool = False
    quota: int | None = None
    example_seen: bool = False
    lead: bool = False
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The order on the screen; derived from the project's seed, the annotator and the item, and stored.

    Attributes:
        swap_pairs: the second preference was on the left.
        swap_first: the rejected response of the first preference came before its chosen one.
        swap_second: the same for the second preference.
        order: of a ranking, the numbers of its preferences from left to right; empty in other kinds. In all of them the
            rejected response comes first if `swap_first`.
    """

    swap_pairs: bool
    swap_first: bool
    swap_second: bool
    order: tuple[int, ...] = ()


SWAPS = ("swap_pairs", "swap_first", "swap_second")
"""The swaps of `Shown`, which every answer has."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One revision of an answer; the newest revision of an assignment is its current label.

    Attributes:
        revision: 1 for the first answer; each change and each withdrawal adds one.
        verdict: None if `undo` withdrew the answer.
        seconds: from the item's first appearance to the answer, without idle time.
        idle: seconds in which the item was not open, or the annotator was away.
        request: the client's own id of the answer, by which a repeated request is recognised.
        guidelines_version: version of the guidelines that the annotator had acknowledged; None without one.
        grade: by how much the better response is better, 1 (slightly) to 3 (much); None if that was not said.
        criteria: verdicts on the project's criteria after the first, by name.
    """

    id: int
    assignment: int
    revision: int
    verdict: Verdict | None
    wrong: Wrong | None
    confidence: float | None
    note: str
    seconds: float | None
    request: str
    created_at: datetime
    idle: float | None = None
    guidelines_version: int | None = None
    grade: int | None = None
    criteria: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a project while people label.

    Attributes:
        who: made it: a person's name, "admin" on the admin page, or the user of the command line.
        setting: what was changed, such as "overlap" or "guidelines".
        before: its value, as text.
        after: the new one.
    """

    at: datetime
    who: str
    setting: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One item given to one annotator.

    Attributes:
        second: the second preference; None unless kind is "pop".
        others: of a ranking, the preferences after the first.
        response: which response of `first` is rated; None unless kind is "rating".
        expires_at: end of the lease; None unless leased.
        label: the current label, if there was any answer.
        number: this annotator's n-th assignment, from 1.
        shown_at: when it was first sent.
        idle: seconds since then in which it was not open: skipped, expired or answered.
        images: the images that its preferences name, by name; None if the responses are texts.
        training: it is a training item: the known answer is shown after the own one.
        adjudicates: others disagree on the item, and the answer decides.
        gold: the known answer of an answered training item, to the only question or on the first criterion; None
            before, and for other items.
        gold_criteria: the same on the other criteria, by name.
    """

    id: int
    item: int
    kind: Kind
    annotator: int
    first: PreferenceText
    second: PreferenceText | None
    shown: Shown
    expires_at: datetime | None
    state: State
    label: Label | None
    number: int
    response: Side | None = None
    images: Mapping[str, ShownImage] | None = None
    shown_at: datetime | None = None
    idle: float = 0.0
    training: bool = False
    adjudicates: bool = False
    gold: Verdict | None = None
    gold_criteria: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])
    others: tuple[PreferenceText, ...] = ()

    @property
    def preferences(self) -> tuple[PreferenceText, ...]:
        """All of them, in the order of the data."""
        return tuple(one for one in (self.first, self.second, *self.others) if one is not None)

    @property
    def revision(self) -> int:
        """Number of the current revision of the answer, 0 before the first: what a page shows."""
        return 0 if self.label is None else self.label.revision


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a project, and one annotator in it, is.

    Attributes:
        labels_wanted: overlap summed over items; a gold item is wanted once from each active person.
        labels_done: current answers of people, excluding repeated items and people who are discarded.
        leased: items that people have open now.
        own_done: answers of this annotator, including repeated items.
        own_skipped: items this annotator skipped, which come back last.
        own_left: items this annotator may still get, at most.
        own_given: of these, given to them by the lead.
    """

    items: int
    labels_wanted: int
    labels_done: int
    leased: int
    own_done: int
    own_skipped: int
    own_left: int
    own_given: int = 0


@dataclass(frozen=True, kw_only=True)
class ApiToken:
    """Whoever may use the lead's API; the token itself is not stored.

    Attributes:
        role: "lead" changes projects, "read" only reads them.
    """

    id: int
    name: str
    role: ApiRole
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where the events of a project are sent, and what waits.

    Attributes:
        secret: signs each delivery; whoever can read the store can read it.
        private: addresses of the own network and machine are allowed.
        waiting: events that are not delivered yet.
        attempts: failures since the last success.
        error: the last failure; empty after a success.
        given_up: events that were never delivered and are sent no more.
    """

    id: int
    project: int
    url: str
    secret: str
    private: bool
    waiting: int
    attempts: int
    due_at: datetime
    error: str
    given_up: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event that waits to be delivered; `body` is JSON."""

    id: int
    event: str
    body: str
    created_at: datetime
