"""Whether the people of a project can give all the labels that it asks for."""

from popmargin.errors import counted
from popmargin.label.store.label_store import LabelStore
from popmargin.label.store.records import Project


def out_of_reach(store: LabelStore, project: Project) -> str:
    """A sentence if an item is to be labelled by more people than there are; empty otherwise, and without people.

    People count who are active, or whose labels count.
    """
    people = [who for who in store.annotators(project.id) if who.kind == "person" and not who.discarded]
    count = sum(who.active or store.progress(project.id, who.id).own_done > 0 for who in people)
    if not count or count >= project.overlap:
        return ""
    return (
        f"each item asks for labels by {counted(project.overlap, 'person', 'people')}, but the project has {count}: "
        "not all labels can be reached. Add people (popmargin label annotators add)."
    )
