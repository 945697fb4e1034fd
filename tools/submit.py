"""A records folder from three or more runs of one configuration, and a branch that adds it.

README.md, submission.json, the packed script as train_gpt.py, train_seed<k>.log, requirements.txt,
and the tokenizer where it is not the task's own. The same runs give the same bytes; no path of this
machine is in any of them. The folder is checked as `golf check` does before it is left.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from core.data.findings import Finding
from tools.check import check
from tools.checks.plain_json import is_date
from tools.checks.report import plain
from tools.say import UsageError, note, print_fields, print_json
from tools.submission.files import NON_RECORD, RECORD, TRACKS, About, folder_files, track_of
from tools.submission.fork import add_branch
from tools.submission.runs import Run, load_runs

UNKNOWN = "unknown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs/<run id>")
    parser.add_argument("--author", default=UNKNOWN)
    parser.add_argument("--github-id", default=UNKNOWN)
    parser.add_argument("--name", help="of the submission (default: the recipe's)")
    parser.add_argument("--blurb", default="", help="a few sentences on what is new")
    parser.add_argument(
        "--track",
        type=lambda word: word.removeprefix("track_"),
        choices=TRACKS,
        help=f"default: {RECORD} for runs of 8 ranks on the task's validation text",
    )
    parser.add_argument("--date", help="as 2026-03-18 (default: when the last run was written)")
    parser.add_argument("--hardware", default="", help="as 8xH100 80GB SXM (default: the log's)")
    parser.add_argument("--few", action="store_true", help="fewer than three runs: no record")
    parser.add_argument(
        "--unlimited-compute", action="store_true", help="say so: more than 600 s, no record"
    )
    parser.add_argument("--tokenizer", type=Path, help="where it is now, if not where the runs say")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: records/track_<track>/<date>_<name>"
    )
    parser.add_argument("--fork", type=Path, metavar="PATH", help="a clone to add a branch to")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run, more_words="runs")


def run(args: argparse.Namespace) -> int:
    runs = load_runs([Path(word) for word in args.runs], args.few)
    about = _about(args, runs)
    files = folder_files(runs, about, args.tokenizer)
    out = args.out or Path(about.place)
    _need_new(out)
    findings = _checked(files, about)
    place = f"{about.place.rsplit('/', 1)[0]}/{out.resolve().name}" if args.out else about.place
    branch = None
    if args.fork is not None:
        message = f"{about.name}: val_bpb {_mean(runs):.5f}"
        branch = add_branch(args.fork, place, files, message, about.date)
    _write(out, files)
    for one in findings:
        note(f"{one.status} {one.rule}, {plain(one.subject)}: {plain(one.evidence)}")
    (print_json if args.json else print_fields)(
        {
            "folder": str(out),
            "track": about.track,
            "val_bpb": _mean(runs),
            "seeds": [one.seed for one in runs],
            "files": {name: len(content) for name, content in files.items()},
            "branch": branch.name if branch else None,
            "commit": branch.commit if branch else None,
        }
    )
    return 0


def _about(args: argparse.Namespace, runs: Sequence[Run]) -> About:
    track = args.track or (NON_RECORD if args.few or args.unlimited_compute else track_of(runs))
    for asked, word in ((args.few, "--few"), (args.unlimited_compute, "--unlimited-compute")):
        if asked and track == RECORD:
            raise UsageError(f"{word} is for submissions that are no record, not --track {track}")
    if track == RECORD and runs[0].backend != "torch":
        raise ValueError(f"a record is trained with torch, these runs with {runs[0].backend}")
    lossy = [one for one in runs if one.log.lossy]
    if track == RECORD and lossy:
        raise ValueError(
            f"{lossy[0].folder}: its score is lossy ({lossy[0].log.lossy:.80}): no record"
        )
    if args.date and not (len(args.date) == 10 and is_date(args.date)):
        raise UsageError(f"--date {args.date}: expected a day, as 2026-03-18")
    return About(
        author=args.author,
        github_id=args.github_id,
        name=args.name or runs[0].recipe.name,
        blurb=args.blurb,
        track=track,
        date=args.date or _written(runs),
        hardware=args.hardware,
        unlimited=args.unlimited_compute,
    )


def _written(runs: Sequence[Run]) -> str:
    """The day, in UTC, on which the last of the logs was written."""
    last_s = max((one.folder / "log.txt").stat().st_mtime for one in runs)
    return datetime.fromtimestamp(last_s, UTC).strftime("%Y-%m-%d")


def _checked(files: Mapping[str, bytes], about: About) -> list[Finding]:
    """What stays open of the folder's check; ValueError where a rule fails."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / about.place
        _write(folder, files)
        _, findings = check(folder)
    failed = [one for one in findings if one.status == "FAIL"]
    if failed:
        said = "; ".join(f"{x.rule}: {plain(x.subject)}: {plain(x.evidence)}" for x in failed[:5])
        raise ValueError(f"the folder would fail golf check, so nothing is written: {said}")
    return [one for one in findings if one.status == "UNDECIDED"]


def _need_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; expected a new or empty folder")


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)


def _mean(runs: Sequence[Run]) -> float:
    return sum(one.score.val_bpb for one in runs) / len(runs)
