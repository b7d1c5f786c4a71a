"""The languages of a site's pages: each project has its own, and a page without a project takes the one of them all."""

from collections.abc import Sequence

from popmargin.label.language.page_texts import ENGLISH, PageTexts, shipped, texts_of
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


class Languages:
    """Languages of projects as they were last seen, for pages without a session, also while the database is away.

    Raises:
        ConfigError: a project's language lacks texts that this version needs.
    """

    def __init__(self, store: LabelStore) -> None:
        self._seen = dict[int, str]()
        for project in store.projects():
            self.of(project)

    def of(self, project: Project) -> PageTexts:
        """The language of a project."""
        self._seen[project.id] = project.language
        return texts_of(project.language, f"project '{project.name}'")

    def of_all(self, projects: Sequence[Project]) -> PageTexts:
        """The language of several projects: the one that they have in common, or else English."""
        return self._common({project.language for project in projects})

    def without_session(self, number: int | None) -> PageTexts:
        """The language of a page that only names its project, or does not belong to any."""
        if number is not None and number in self._seen:
            return texts_of(self._seen[number])
        return self._common(set(self._seen.values()))

    @staticmethod
    def _common(kept: set[str]) -> PageTexts:
        return texts_of(kept.pop()) if len(kept) == 1 else shipped(ENGLISH)
