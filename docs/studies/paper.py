"""A study whose runs each take several GPUs: one run after another, under a launcher.

    python docs/studies/paper.py docs/studies/paper.yaml --base.model.path models/llama-8b-sft --output runs/paper-8b \\
        --launch "accelerate launch --config_file fsdp2.yaml --num_processes 8 -m popmargin"

Each run is `popmargin train … --resume auto`, so the script can be killed and started again; finished runs are kept.
`--plan` trains nothing: each arm's rows, steps and memory (`popmargin train --dry-run`). On one GPU `popmargin compare`
with the same file does all of it.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from popmargin.config.written import commented_yaml
from popmargin.study.config import load_study


def main() -> int:
    """Train and evaluate every run that is not finished, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--launch", default="popmargin", help="what starts popmargin on several GPUs")
    parser.add_argument("--plan", action="store_true", help="only say what each arm takes")
    args, overrides = parser.parse_known_args()
    study = load_study(args.study, overrides)
    output = Path(study.output)
    files = output / "configurations"
    files.mkdir(parents=True, exist_ok=True)
    runs: list[str] = []
    for arm, configs in study.run_configs().items():
        for config in configs[:1] if args.plan else configs:
            file = files / f"{arm}-{config.seed}.yaml"
            file.write_text(commented_yaml(config), encoding="utf-8")
            if args.plan:
                print(f"## {study.label(arm)}", flush=True)
                _call(["popmargin", "train", str(file), "--dry-run"])
                continue
            if not (Path(config.output) / "run.json").is_file():
                _call([*shlex.split(args.launch), "train", str(file), "--resume", "auto"])
            if not (Path(config.output) / "evaluation" / "metrics.json").is_file():
                _call(["popmargin", "eval", config.output])
            runs.append(config.output)
    if runs:
        page = ["--out", str(output / "report.html"), "--overwrite", "--title", study.title]
        _call(["popmargin", "report", *runs, *page, "--baseline", study.baseline])
    return 0


def _call(words: list[str]) -> None:
    """Run a command; what fails stops the study, and the next start goes on there."""
    print("$", shlex.join(words), flush=True)
    own = [sys.executable, "-m", "popmargin", *words[1:]] if words[0] == "popmargin" else words
    if subprocess.run(own, check=False).returncode:
        sys.exit(f"This failed: {shlex.join(words)}. Mend it and start again; finished runs are kept.")


if __name__ == "__main__":
    sys.exit(main())
