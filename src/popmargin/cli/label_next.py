"""popmargin label next: what an annotator's next hour is best spent on."""

import argparse
import json
from typing import Any

from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import ConfigError
from popmargin.label.store.address import open_store


def add_parser(subparsers: Any) -> None:
    """Add `label next` to the command line."""
    parser = subparsers.add_parser(
        "next",
        description="Say what an annotator's next hour is best spent on, from the project's labels, times and "
        "agreement, and the budget studies (docs/studies/budget.md).",
    )
    add_store_arguments(parser)
    parser.add_argument("--hours", type=float, default=1.0, help="of one annotator (default: 1)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    parser.set_defaults(func=_next)


def _next(args: argparse.Namespace) -> int:
    from popmargin.label.quality.annotators import COLUMNS, annotator_quality
    from popmargin.label.quality.next_question import COLUMNS as NEXT_COLUMNS
    from popmargin.label.quality.next_question import next_hour, standing
    from popmargin.label.quality.next_words import next_sentences
    from popmargin.label.quality.next_words import next_table as table_of

    if not 0 < args.hours < 100_000:
        raise ConfigError(f"--hours is {args.hours:g}; give a number above 0, such as 1.")
    with open_store(args.db) as store:
        project = store.project(args.project)
        labels = store.labels(project.id, columns=tuple(dict.fromkeys((*COLUMNS, *NEXT_COLUMNS))))
        has = standing(store, project, labels, annotator_quality(labels)[1])
    if has is None:
        print(f"project '{project.name}' asks nothing yet")
        return 0
    found = next_hour(has, args.hours)
    if args.json:
        print(json.dumps(_json(found, table_of(found)), ensure_ascii=False, indent=2))
        return 0
    print("\n".join(next_sentences(found)))
    rows = table_of(found)
    if rows:
        print("\n" + "\n".join(_lines(rows, [said.study.name for said in found.said])))
    return 0


def _lines(rows: list[dict[str, Any]], studies: list[str]) -> list[str]:
    from popmargin.label.quality.next_words import points

    cells = [["", "s each", "an hour", *studies]]
    for row in rows:
        cells.append([
            row["words"] + ("" if row["possible"] else " (none left)"),
            f"{row['seconds']:.1f}",
            f"{row['an_hour']:.0f}",
            *(points(gain.points) + ("" if not gain.beyond else " beyond the study") for gain in row["gains"]),
        ])  # fmt: skip
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _json(found: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    has = found.standing
    return {
        "labelled": has.labelled,
        "unlabelled": has.unlabelled,
        "agreement": has.agreement.to_dict(),
        "hours": found.hours,
        "source": "docs/studies/budget.md",
        "options": [
            {
                "option": row["option"],
                "seconds": row["seconds"],
                "possible": row["possible"],
                "gains": {
                    said.study.name: gain.points.to_dict() | {"budget": gain.budget, "beyond": gain.beyond}
                    for said, gain in zip(found.said, row["gains"], strict=True)
                },
            }
            for row in rows
        ],
        "studies": [
            {
                "name": said.study.name,
                "outside": said.study.outside(has.labelled),
                "not_told_apart": said.ties,
                "not_told_apart_without_new": said.old[1],
            }
            for said in found.said
        ],
    }
