"""The projects of a label store: creating and finding them, and changing them while people label."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from popmargin.errors import ConfigError, DataError, counted, did_you_mean
from popmargin.label.language.page_texts import ENGLISH, texts_of
from popmargin.label.store import change_settings, item_list, items, sql_tables
from popmargin.label.store.access import clean_name, project_of
from popmargin.label.store.annotator_store import AnnotatorStore
from popmargin.label.store.answers import clean
from popmargin.label.store.changes import changes, log_change
from popmargin.label.store.criteria import dump_criteria, load_verdicts
from popmargin.label.store.known import Known
from popmargin.label.store.missing_log import missing_part
from popmargin.label.store.project_events import note
from popmargin.label.store.ranked_items import load_others
from popmargin.label.store.records import Change, Criterion, Project
from popmargin.label.store.shown_columns import dump_names


class ProjectStore(AnnotatorStore):
    """The part of a label store that is about projects; every method is one small transaction."""

    @property
    def name(self) -> str:
        """Path or URL, without a password."""
        return self._database.name

    def create_project(
        self,
        name: str,
        *,
        overlap: int = 1,
        seed: int = 0,
        lease_seconds: int = 1800,
        guidelines: str = "",
        repeat_share: float = 0.0,
        scale: int | None = None,
        training: int | None = None,
        passing: float | None = None,
        wording: str = "better",
        grades: bool = False,
        shown: Sequence[str] = (),
        both_bad: bool = False,
        criteria: Sequence[Criterion] = (),
        language: str = ENGLISH,
    ) -> Project:
        """A new project.

        Args:
            name: unique in the store.
            overlap: people who label each item.
            seed: of the items' order and of the order on the screen.
            lease_seconds: how long an item stays with an annotator who does not answer.
            guidelines: Markdown.
            repeat_share: share of an annotator's items that repeat earlier ones.
            scale: ratings go from 1 to this; needed for items of kind "rating".
            training: gold items that everybody gets first, with feedback.
            passing: share of these to get right; who does not waits for the lead.
            wording: what the better response is more of, as a comparative: "better", "more convincing".
            grades: an answer about two responses says by how much one is better.
            shown: columns of the data that people see with a task.
            both_bad: an answer about two responses may be that both are bad.
            criteria: every answer has a verdict on each of these; as of `criteria.criteria_of`.
            language: of the annotators' pages, as of `language.page_texts.read_language`.

        Raises:
            ConfigError: a setting out of range.
            DataError: the name is taken.
        """
        ranged = {
            "overlap": overlap, "seed": seed, "lease_seconds": lease_seconds, "repeat_share": repeat_share,
            "scale": scale, "training": training, "passing": passing,
        }  # fmt: skip
        items.check_settings(**ranged, wording=wording)
        texts_of(language)
        values = {
            **ranged,
            "name": clean_name(name, "project"),
            "guidelines": clean(guidelines),
            "wording": clean(wording.strip()),
            "grades": grades,
            "shown": dump_names(shown),
            "both_bad": both_bad,
            "criteria": dump_criteria(criteria),
            "language": language,
            "created_at": self._clock(),
        }
        try:
            row = self._database.write(
                lambda connection: connection.execute(
                    sql_tables.project.insert().values(**values).returning(sql_tables.project)
                ).one()
            )
        except IntegrityError as error:
            raise DataError(f"Project '{name}' already exists. Choose another name, or use that project.") from error
        return project_of(row)

    def projects(self) -> list[Project]:
        """All projects, oldest first."""
        with self._database.read() as connection:
            return [
                project_of(row)
                for row in connection.execute(select(sql_tables.project).order_by(sql_tables.project.c.id))
            ]

    def project(self, name: str | None = None) -> Project:
        """The project of this name, or the only one.

        Raises:
            DataError: there is none, or there are several and no name.
        """
        known = {found.name: found for found in self.projects()}
        if not known:
            copied = f"\n{missing_part(self.name)}" if self._database.sqlite else ""
            raise DataError(
                f"{self.name} has no project. Create one with: popmargin label import DATA --db {self.name}{copied}"
            )
        if name is None:
            if len(known) > 1:
                raise DataError(
                    f"{self.name} has {counted(len(known), 'project')} ({', '.join(known)}): choose one with --project "
                    f"NAME, or as {self.name}#NAME if there is no --project option."
                )
            return next(iter(known.values()))
        if name not in known:
            raise DataError(f"{self.name}: no project '{name}'. {did_you_mean(name, known)}")
        return known[name]

    def set_guidelines(self, project: int, guidelines: str, *, who: str = "") -> Project:
        """Change a project's guidelines, as Markdown: labels stay, and people acknowledge them before the next task.

        Args:
            project: id of the project.
            guidelines: the new ones.
            who: changes them, for the log.

        Raises:
            DataError: there is no such project.
        """

        def change(connection: Connection) -> Project:
            found, text = items.lock_project(connection, project), clean(guidelines)
            if text == found.guidelines:
                return project_of(found)
            values = {"guidelines": text, "guidelines_version": (found.guidelines_version or 1) + 1}
            now = self._clock()
            log_change(connection, project, who, "guidelines", found.guidelines, text, now)
            note(connection, project, "guidelines.changed", {"version": values["guidelines_version"]}, now)
            changed = sql_tables.project.update().where(sql_tables.project.c.id == project).values(**values)
            return project_of(connection.execute(changed.returning(sql_tables.project)).one())

        return self._database.write(change)

    def change(self, project: int, *, who: str = "", **settings: Any) -> Project:
        """Change settings while people label: what is open is planned again, and no label is lost.

        A new `overlap` holds for all items without a known answer.

        Args:
            project: id of the project.
            who: changes them, for the log.
            settings: some of overlap, repeat_share, lease_seconds, training and passing, as of `create_project`, and
                state, as of `Project`; None for training and passing ends it.

        Raises:
            ConfigError: an unknown setting, or one out of range.
            DataError: there is no such project.
        """
        for name in settings:
            if name not in change_settings.CHANGEABLE:
                raise ConfigError(
                    f"{name} is no setting that can be changed. {did_you_mean(name, change_settings.CHANGEABLE)}"
                )

        def change(connection: Connection) -> Project:
            found = items.lock_project(connection, project)
            change_settings.change_settings(connection, found, settings, who, self._clock())
            return project_of(items.lock_project(connection, project))

        return self._database.write(change)

    def set_gold(self, project: int, answers: Mapping[int, Known | None], *, who: str = "") -> dict[str, int]:
        """Give items a known answer, another one or, with None, none any more; their labels stay.

        An item with a known answer goes to everybody, whatever the overlap.

        Args:
            project: id of the project.
            answers: item -> known answer; with criteria also criterion -> answer, of which those that are not named
                stay.
            who: changes them, for the log.

        Returns:
            How many were "new", "changed" and "removed"; others had this answer.

        Raises:
            DataError: no such project, item or criterion, or an answer is none to its kind.
        """
        return self._database.write(
            lambda c: change_settings.set_gold(c, items.lock_project(c, project), answers, who, self._clock())
        )

    def item_page(self, project: int, *, after: int = 0, limit: int = 100, gold: bool = False) -> list[dict[str, Any]]:
        """Some items in the order they were added: item, kind, first, second, gold, response, others
        and gold_criteria.

        `others` are the ids of a ranking's preferences after the first, `gold_criteria` the known answers by criterion.

        Args:
            project: id of the project.
            after: the last item of the page before.
            limit: how many at most.
            gold: only those with a known answer.
        """
        with self._database.read() as connection:
            rows = item_list.item_page(connection, project, after, limit, gold=gold)
        return [
            {**row, "others": load_others(row["others"]), "gold_criteria": load_verdicts(row["gold_criteria"])}
            for row in rows
        ]

    def guidelines(self, project: int, version: int) -> str:
        """The guidelines of a project as they were in a version, from 1.

        Raises:
            DataError: there is no such project, or no such version of its guidelines in the store.
        """
        with self._database.read() as connection:
            found = connection.execute(
                select(sql_tables.project).where(sql_tables.project.c.id == project)
            ).one_or_none()
            if found is None:
                raise DataError(f"There is no project {project}.")
            texts = [change.before for change in changes(connection, project) if change.setting == "guidelines"]
        newest = found.guidelines_version or 1
        known = dict(enumerate([*texts, found.guidelines], newest - len(texts)))
        if version not in known:
            raise DataError(
                f"The store has versions {min(known)} to {newest} of the guidelines, not {version}. Versions before "
                "changes were logged are not kept."
            )
        return known[version]

    def log_change(self, project: int, who: str, setting: str, before: object, after: object) -> None:
        """Add to the log of a project what was changed in other ways."""
        self._database.write(
            lambda connection: log_change(connection, project, who, setting, before, after, self._clock())
        )

    def changes(self, project: int) -> list[Change]:
        """What was changed in a project while people label, oldest first."""
        with self._database.read() as connection:
            return changes(connection, project)
