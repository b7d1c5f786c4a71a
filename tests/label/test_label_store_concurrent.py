"""Many annotators at once, from several processes with several threads each: exact overlap, no lock error, no loss."""

import multiprocessing
import os
import threading
from collections import Counter

import pytest
from label_stores import preferences

from popmargin.label.store.label_store import LabelStore

PROCESSES = 4


def label(url: str, people: list[int], labels: int) -> None:
    """What each process does: a thread an annotator."""
    failures: list[BaseException] = []

    def work(who: int) -> None:
        try:
            for number in range(labels):
                now = store.next_assignment(who)
                if now is None:
                    break
                store.record(who, now.id, "first" if number % 3 else "second", request=f"{now.id}", seconds=1.0)
        except BaseException as error:
            failures.append(error)

    with LabelStore.open(url) as store:
        threads = [threading.Thread(target=work, args=(who,)) for who in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def run_everybody(url: str, *, people: int, labels: int, overlap: int, chained: bool = False) -> None:
    """Items for exactly people × labels answers; all of them must come, and every item must be full.

    With an overlap of 1 everybody finds `labels` items; else they go on until they are told that nothing is left. Where
    tasks are chained, every answer also waits for a webhook.
    """
    items = people * labels // overlap
    with LabelStore.open(url) as store:
        project = store.create_project("crowd", overlap=overlap)
        store.import_preferences(project.id, preferences(items + 1))
        ids = [f"p{row}" for row in range(items + 1)]
        store.add_items(project.id, "pop", ids[:-1], ids[1:], chained=chained)
        if chained:
            store.webhooks.set(project.id, "https://example.org/hook")
        numbers = [store.add_annotator(project.id, f"person {number}")[0].id for number in range(people)]
    limit = labels if overlap == 1 else items
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=label, args=(url, numbers[start::PROCESSES], limit)) for start in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    with LabelStore.open(url) as store:
        table = store.label_history(project.id)
        assert table.num_rows == people * labels
        assert len(set(table["assignment"].to_pylist())) == people * labels
        assert set(Counter(table["item"].to_pylist()).values()) == {overlap}
        answered = set(zip(table["item"].to_pylist(), table["annotator"].to_pylist(), strict=True))
        assert len(answered) == people * labels
        if overlap == 1:
            assert set(Counter(table["annotator"].to_pylist()).values()) == {labels}
        progress = store.progress(project.id)
        assert (progress.labels_done, progress.labels_wanted, progress.leased) == (people * labels, people * labels, 0)
        hook = store.webhooks.of(project.id)
        told = 2 * people * labels + 1  # every label, every item that is full, and the end
        assert (0 if hook is None else hook.waiting) == (told if chained else 0)


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [1, 3])
def test_overlap_holds_when_everybody_labels_at_once(url: str, overlap: int) -> None:
    """The last places are fought for: an annotator may find none left only when all are taken."""
    run_everybody(url, people=8, labels=30, overlap=overlap)


@pytest.mark.slow
def test_32_annotators_at_once(url: str) -> None:
    """POPMARGIN_PEOPLE=64 POPMARGIN_LABELS=500 asks for more of both, which takes many minutes a database."""
    people, labels = (int(os.environ.get(f"POPMARGIN_{name}", few)) for name, few in (("PEOPLE", 32), ("LABELS", 100)))
    run_everybody(url, people=people, labels=labels, overlap=1, chained=True)
