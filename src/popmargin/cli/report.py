"""`popmargin report`."""

import argparse
from pathlib import Path
from typing import Any

from popmargin.cli.outputs import add_code, add_overwrite, check_outputs
from popmargin.files import HTML


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("report", help="rebuild a report from finished runs")
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or folders of studies")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="HTML file (default: report.html)")
    add_overwrite(parser)
    add_code(parser)
    parser.add_argument("--title", help="heading")
    parser.add_argument("--baseline", help="arm to compare with (default: the study's, or the first run's)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Collect and write."""
    from popmargin.config import dump_yaml, from_dict, read_saved, to_dict
    from popmargin.report.render import write_report
    from popmargin.study.config import StudyConfig
    from popmargin.study.gather import collect, group_runs

    check_outputs(args, {"--out": args.out}, HTML)
    if len(args.runs) == 1 and (args.runs[0] / "recommend.yaml").is_file():
        from popmargin.report.recommendation_page import write_recommendation_report
        from popmargin.study.recommenders.recommend_study import results_in

        write_recommendation_report(results_in(args.runs[0], title=args.title, baseline=args.baseline), args.out)
        print(f"report: {args.out}")
        return 0
    runs = group_runs(args.runs)
    labels: dict[str, str] = {}
    title, baseline = "Comparison of runs", next(iter(runs))
    configs = {name: to_dict(directories[0].config()) for name, directories in runs.items()}
    text = dump_yaml(configs)
    study_file = args.runs[0] / "study.yaml"
    if len(args.runs) == 1 and study_file.is_file():
        study = from_dict(StudyConfig, read_saved(study_file))
        title, baseline = study.title, study.baseline
        labels = {arm: study.label(arm) for arm in study.arms}
        runs = {arm: runs[arm] for arm in study.arms if arm in runs}
        text = study_file.read_text(encoding="utf-8")
    results = collect(runs, title=args.title or title, baseline=args.baseline or baseline, labels=labels, config=text)
    write_report(results, args.out)
    print(f"report: {args.out}")
    return 0
