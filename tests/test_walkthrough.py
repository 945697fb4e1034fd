"""The README's commands are what the verbs take, and docs/walkthrough.md is what they print now."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Text
from tests.readme import README
from tests.walkthrough import DOCS, STEPS, commands, in_shell, transcript
from tools.main import VERBS, parsed, parser
from tools.recipes import settle

SAYS = "printf '%s\\037' golf"  # instead of golf: what it was given
WORDS = 3  # of a sentence; the rest depends on the text


def path_commands() -> list[list[str]]:
    """What golf is given on the path, loops and patterns undone by a shell."""
    done = in_shell(commands(), Path(), SAYS, {})
    assert done.returncode == 0, done.stdout
    return [command.split("\037")[:-1] for command in done.stdout.split("golf\037")[1:]]


def other_commands(text: str) -> list[list[str]]:
    """What stands in the other blocks; the entry scripts take what `golf train` takes."""
    blocks = re.findall(r"^```\n(.*?)^```$", text.replace(commands(), ""), re.M | re.S)
    lines = re.sub(r" *\\\n *", " ", "\n".join(blocks)).splitlines()
    starts = re.compile(r"(golf|(python|torchrun) .*?train_\w+\.py)(?= |$)")
    found = [(match, line) for line in lines if (match := starts.match(line))]
    assert len(found) >= 6
    verbs: list[list[str]] = [[] if match[1] == "golf" else ["train"] for match, _ in found]
    rest = [shlex.split(line[match.end() :], comments=True) for match, line in found]
    return [[*verb, *words] for verb, words in zip(verbs, rest, strict=True)]


def test_the_readme_has_the_whole_path() -> None:
    assert commands() in README.read_text(encoding="utf-8"), "run python -m tests.readme"
    verbs = [words[0] for words in path_commands()]
    assert verbs[:4] == ["tokenizer", "data", "plan", "train"] and verbs.count("train") == 6
    assert verbs[9:] == ["pack", "score", "compare", "bundle", "submit", "check"]


def test_the_verbs_take_every_command_of_the_readme() -> None:
    """Options by the verbs' own parsers, fields of recipes by the recipes."""
    for words in [*path_commands(), *other_commands(README.read_text(encoding="utf-8"))]:
        assert words[0] in VERBS, words
        args = parsed(parser(), words)
        if words[0] in ("train", "plan"):
            settle(args.words, "torch", {}, scale=args.scale)


def test_a_command_that_no_verb_takes_is_found() -> None:
    page = "```\n" + "golf pack X --nonsense 3\n" * 6 + "```\n"
    with pytest.raises(SystemExit):
        parsed(parser(), other_commands(page)[0])


def shape(page: str) -> dict[str, list[str]]:
    """Of each step its command, and the keys of the lines it prints: digits do not count."""
    found = {}
    for title, block in re.findall(r"^## \d+\. (.*?)\n\n```\n(.*?)^```$", page, re.M | re.S):
        command = re.match(r"\$ (.*\n(?:    .*\n|done\n)*)", block)
        assert command, title
        found[title] = [command[1], *map(key, block[command.end() :].splitlines())]
    return found


def key(line: str) -> str:
    """A line without its values: `name  value`, `name:value name:value`, a sentence's beginning."""
    line = re.sub(r"\d[\d,.]*(e[-+]?\d+)?", "#", re.sub(r"\b[0-9a-f]{12,}\b", "#", line))
    if field := re.match(r"(\S+)\s{2,}\S", line):
        return field[1]
    if pairs := re.findall(r"(?<!\S)(\w+):(?=\S)", line):
        return " ".join(pairs)
    return " ".join(line.split()[:WORDS])


KEYS = {
    "val_bpb     1.72983529": "val_bpb",
    "step:5/60 val_loss:4.2 tokens:119,187": "step val_loss tokens",
    "identity:853f0bb217ceafed7edbcc7af": "identity",
    "24 PASS, 0 FAIL": "# PASS, #",
    "model_params:154472": "model_params",
}


def test_keys_of_lines() -> None:
    assert {line: key(line) for line in KEYS} == KEYS


@pytest.mark.slow
def test_the_page_has_what_is_printed_now(text: Text, tmp_path: Path) -> None:
    """The path walked again on a small text: `python -m tests.walkthrough` renews the page."""
    rows = [json.dumps({"text": document}) + "\n" for document in text.documents * 2]
    (tmp_path / "documents.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))
    walked, page = shape(transcript(tmp_path)), shape(DOCS.read_text(encoding="utf-8"))
    assert list(page) == [title for title, _ in STEPS], "run python -m tests.walkthrough"
    stale = [title for title, lines in walked.items() if page[title] != lines]
    assert not stale, "run python -m tests.walkthrough"
