"""The task's rules as data: what each asks of a records folder or a scorer, and its source."""

from __future__ import annotations

from pathlib import Path

from core.data.findings import Finding, Status
from core.score.ruling import Rule, ScorerRule

RUNS = 3  # of one configuration, for a record
TRAIN_S = 600.0
ACCEPTED_S = 0.137  # over them, the most of an accepted log
OVERRUN_S = 1.0  # at most, of the step that crosses the cap: 601.1 s had to be done again
EVAL_S = 600.0
WORLD_SIZE = 8
# Implied bytes of every public log of the whole split lie within these, whatever the tokenizer.
VALIDATION_BYTES = (151_020_000, 151_090_000)
# Its targets by the tokenizers of those logs: sp1024, 4096, 8192, 8192 of cased text, bytes.
VALIDATION_TOKENS = (62_021_632, 45_508_608, 40_540_160, 47_853_343, 151_130_112)
# The tokenizer that the task publishes; any other travels with its submission.
TASK_TOKENIZERS = {
    "4f5e8adb109c66b4886963bc75a7befd73bda36d27fd7102df8e9e66503b0e2a": "fineweb_1024_bpe.model"
}


RULES = (
    Rule(
        id="files",
        what="README.md, submission.json and train_gpt.py are there, and the folder is small",
        source="task README, submission process; pull request 2124",
        status="organiser",
    ),
    Rule(
        id="links",
        what="nothing but files and folders: no links, no devices",
        source="task README, a folder that can be run by itself",
    ),
    Rule(
        id="hidden files",
        what="no hidden files and no leavings of tools",
        source="task README, a pull request adds one folder of its files",
    ),
    Rule(
        id="foreign data",
        what="no weights, shards or archives in the folder",
        source="task README, artifact = code + compressed model; issue 168",
        status="organiser",
    ),
    Rule(
        id="json",
        what="submission.json is one JSON object, within bounds, each name once",
        source="task README, submission process",
        status="organiser",
    ),
    Rule(
        id="schema",
        what="submission.json has the fields of the reference records, of their types",
        source="fields of the public records; pull request 2124",
        status="organiser",
    ),
    Rule(
        id="script",
        what="train_gpt.py decodes without running it, and parses",
        source="task README, all counted code lives in train_gpt.py; pull request 1413",
        status="organiser",
    ),
    Rule(
        id="self-contained",
        what="the code names no path outside its folder and loads nothing from the network",
        source="task README, artifact is self-contained; pull request 1603",
        status="organiser",
    ),
    Rule(
        id="code bytes",
        what="the code that is claimed is the code that is shipped, file by file",
        source="pull requests 1835 and 1412",
        status="organiser",
    ),
    Rule(
        id="model bytes",
        what="sizes in submission.json are those of the logs; none is smaller than it was",
        source="pull requests 1835 and 1557",
        status="organiser",
    ),
    Rule(
        id="cap",
        what="code as shipped and compressed model: at most 16,000,000 bytes for every seed",
        source="task README; pull request 1809",
        status="organiser",
    ),
    Rule(
        id="logs",
        what="a log for every seed, whole to its last line",
        source="task README, submission process; pull requests 2071 and 2124",
        status="organiser",
    ),
    Rule(
        id="seeds",
        what="three or more runs, of different seeds",
        source="task README, statistical evidence; pull requests 561 and 1143",
        status="organiser",
    ),
    Rule(
        id="configuration",
        what="all runs are of one configuration but for the seed",
        source="task README, statistical evidence; pull request 2124",
        status="organiser",
    ),
    Rule(
        id="identity",
        what="each score is bound to one artifact, and no two runs to the same",
        source="this toolkit, identity = SHA-256 of the payload; pull request 86",
    ),
    Rule(
        id="score",
        what="the scores claimed, README included, are those of the logs' last lines",
        source="pull requests 86 and 2124",
        status="organiser",
    ),
    Rule(
        id="numbers",
        what="every number of submission.json is, to its digits, what the log of its seed says",
        source="pull requests 86, 2071 and 2124",
        status="organiser",
    ),
    Rule(
        id="whole split",
        what="the score is of the whole validation split and of the model as it was trained",
        source="task README; pull requests 1854, 1881 and 2039",
        status="organiser",
    ),
    Rule(
        id="lossless",
        what="the score is of the text itself: the tokenizer gives back what it was given",
        source="issue 1604; pull requests 1578 and 1670",
        status="community",
    ),
    Rule(
        id="implied bytes",
        what="val_loss / ln 2 * tokens / val_bpb is the byte count of the validation text",
        source="pull requests 1271, 1719, 2071 and 2138",
        status="community",
    ),
    Rule(
        id="training time",
        what="600 s of training, and not more than the step that crosses them",
        source="task README; accepted logs reach 600.137 s; pull request 1300",
        status="organiser",
    ),
    Rule(
        id="evaluation time",
        what="600 s of evaluation beside the training",
        source="task README; pull requests 1945 and 1972",
        status="organiser",
    ),
    Rule(
        id="hardware",
        what="a record is made on 8xH100",
        source="task README",
        status="organiser",
    ),
    Rule(
        id="only this folder",
        what="the branch changes nothing outside of the folder",
        source="task README, a pull request only adds a folder to records",
        status="organiser",
    ),
    Rule(
        id="starts",
        what="the script starts in a copy of its folder, and prints a step of training",
        source="task README, the script must compile and run within the records folder",
        status="organiser",
    ),
)
BY_ID = {rule.id: rule for rule in RULES}
SCORER_RULES = (
    ScorerRule(
        id="causality",
        what="a token's distribution depends on the artifact and the tokens before it alone",
        source="issue 1017, condition 1; pull request 1240; no hint or gate by the token, 720, 982",
        status="organiser",
    ),
    ScorerRule(
        id="normalised",
        what="a distribution over all tokens, with the sum 1, is fixed before the token is seen",
        source="issue 1017, condition 2; pull requests 720, 886, 978 and 982",
        status="organiser",
    ),
    ScorerRule(
        id="score first",
        what="nothing that a score depends on is updated from tokens that are not scored yet",
        source="task README; issue 1017, condition 3; pull requests 402 and 1972",
        status="organiser",
    ),
    ScorerRule(
        id="single pass",
        what="a scorer that adapts goes once from left to right",
        source="issue 1017, condition 4; issue 140; pull request 991",
        status="relayed",
    ),
    ScorerRule(
        id="once",
        what="each target is scored once, and the first score stands",
        source="issue 1017, condition 4; pull requests 568, 573 and 991",
        status="relayed",
    ),
    ScorerRule(
        id="blind to the token",
        what="no gate, weight, hint, expert or hash key knows the token that is to be scored",
        source="pull requests 659, 720, 982 and 1785",
        status="organiser",
    ),
    ScorerRule(
        id="own distribution",
        what="the nats of a token are those of the distribution, and of its bytes together",
        source="pull requests 1785, 1795, 1905 and 1916",
        status="community",
    ),
    ScorerRule(
        id="isolated documents",
        what="where it is claimed, nothing of a document reaches the scores of the next ones",
        source="pull requests 1797, 1855 and 1902; contested in 1988",
        status="organiser",
    ),
    ScorerRule(
        id="repeatable",
        what="a fresh start gives the same scores again, whatever was asked",
        source="this toolkit: two answers that differ by chance cannot be compared",
        status="toolkit",
    ),
    ScorerRule(
        id="no validation inside",
        what="validation text is not in the artifact",
        source="task README; issue 168; pull request 262",
        status="organiser",
    ),
    ScorerRule(
        id="before the clock",
        what="no validation file is opened before the scoring clock starts",
        source="task README; pull requests 1376 and 1972",
        status="organiser",
    ),
    ScorerRule(
        id="no network",
        what="scoring loads nothing from the network",
        source="task README, artifact is self-contained; pull request 1603",
        status="organiser",
    ),
    ScorerRule(
        id="own files",
        what="scoring uses the submission's files alone, and no training data",
        source="task README, artifact is self-contained",
        status="organiser",
    ),
    ScorerRule(
        id="context alone",
        what="optimising on the context alone before scoring (SLOT) is an open question",
        source="issue 1336; pull request 1240",
        status="open",
    ),
)
SCORER_BY_ID = {rule.id: rule for rule in SCORER_RULES}
NOT_SEEN = (
    "causality of the scorer",
    "normalised distributions",
    "score before update",
    "training and validation documents apart",
    "validation text inside the artifact",
)


def found(rule: str, status: Status, subject: str | Path, evidence: str) -> Finding:
    """What the rule of this id says of a subject."""
    source = BY_ID[rule].source
    return Finding(rule=rule, status=status, subject=str(subject), evidence=evidence, source=source)
