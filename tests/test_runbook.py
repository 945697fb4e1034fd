"""docs/runbook.md: every command in it is one that exists, with options and fields that exist."""

from __future__ import annotations

import re
import shlex

import pytest
from torch.distributed.run import get_args_parser

from tests.readme import README, ROOT
from tools.main import VERBS, parsed, parser
from tools.recipes import settle

PAGE = ROOT / "docs" / "runbook.md"
SHELL = {"git", "cd", "make", "source", "export", "for", "done", "tar", "rsync"}
STARTS = ("golf", "torchrun", "mlx.launch")
TAKE_A_RECIPE = ("train", "plan", "rehearse", "bundle")


def commands(text: str) -> list[str]:
    """The lines of all blocks, those that go on joined, the shell's variables filled in."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", text, re.M | re.S))
    lines = re.sub(r" *\\\n *", " ", blocks).replace("$seed", "1").replace("$PWD", ".")
    return [line.strip() for line in lines.splitlines() if line.strip()]


def check(command: str) -> None:
    """Raises, as the command itself would, for an option or a field that there is not."""
    words = shlex.split(command)
    if words[0] == "golf":
        take(words[1:])
    elif words[0] == "torchrun":
        args = get_args_parser().parse_args(words[1:])
        assert (ROOT / args.training_script).is_file()
        take(["train", *args.training_script_args])
    elif words[0] == "mlx.launch":
        after = words[words.index("--") + 1 :]
        assert after[0] == "python" and (ROOT / after[1]).is_file()
        take(["train", *after[2:]])
    else:
        assert words[0] in SHELL, command


def take(words: list[str]) -> None:
    assert words[0] in VERBS, words
    args = parsed(parser(), words)
    if words[0] in TAKE_A_RECIPE:
        settle(args.words, "torch", {}, scale=getattr(args, "scale", None))


def test_every_command_exists() -> None:
    found = commands(PAGE.read_text(encoding="utf-8"))
    assert {line.split()[0] for line in found} >= {*STARTS, "make", "export"}
    for command in found:
        check(command)
    verbs = {line.split()[1] for line in found if line.startswith("golf ")}
    assert verbs >= {"doctor", "data", "rehearse", "submit", "check"}


def test_every_verb_that_a_sentence_names_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in re.findall(r"`golf ([^`]+)`", text):
        assert words.split()[0] in VERBS, words


@pytest.mark.parametrize(
    "wrong",
    [
        "golf rehearse baseline --nonsense 3",
        "golf rehearse baseline schedule.nonsense=3",
        "torchrun --standalone --nproc_per_node=8 --nonsense=2 train_torch.py baseline",
        "torchrun --standalone --nproc_per_node=8 train_torch.py baseline --nonsense",
        "mlx.launch -n 2 -- python train_mlx.py nonsense",
    ],
)
def test_a_command_that_nothing_takes_is_found(wrong: str) -> None:
    with pytest.raises((SystemExit, ValueError)):
        check(wrong)


def test_the_variables_are_those_of_the_code() -> None:
    """What is exported is what the code reads, sets, or a library documents."""
    exported = re.findall(r"^export (\w+)=", PAGE.read_text(encoding="utf-8"), re.M)
    code = "\n".join(path.read_text() for path in (ROOT / "tools" / "rehearsing").glob("*.py"))
    elastic = (ROOT / "tests" / "test_elastic.py").read_text()
    assert len(exported) == 3
    assert all(name in code or name in elastic for name in exported)


def test_the_bill_adds_up() -> None:
    """Minutes times the price, and their sums; the second recipe's too."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d+|3 x \d+) \| .*? \| ([\d.]+) \|$", text, re.M)
    minutes = [eval_times(row[1]) for row in rows]
    dollars = [float(row[2]) for row in rows]
    assert rows[-1][0] == "all" and minutes[-1] == sum(minutes[:-1])
    for spent, cost in zip(minutes, dollars, strict=True):
        assert cost == pytest.approx(spent / 60 * 20, abs=0.006)
    others = sum(m for row, m in zip(rows[:-1], minutes, strict=False) if "seed" not in row[0])
    assert others == 18 and "18 minutes" in text
    assert (66 + others, 84 / 60 * 20) == (84, 28.0) and "84\nminutes, 28 dollars" in text


def eval_times(said: str) -> int:
    """3 x 11 is 33."""
    parts = [int(part) for part in said.split(" x ")]
    return parts[0] if len(parts) == 1 else parts[0] * parts[1]


def test_the_readme_leads_there() -> None:
    assert "docs/runbook.md" in README.read_text(encoding="utf-8")
