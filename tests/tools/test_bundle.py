"""The bundle: an empty folder, one file, and the payload of the toolkit, on both engines."""

from __future__ import annotations

import ast
import json
import lzma
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from core.train.recipe import Recipe, from_json, to_json, with_changes
from core.train.recipes import RECIPES, named
from core.train.scale import scaled
from tests.conftest import Text
from tests.parity.engines import ENGINES
from tools.bundling.closed import settle
from tools.bundling.constants import Constants
from tools.bundling.flatten import flatten
from tools.bundling.script import (
    FILTERS,
    bundle,
    code_bytes,
    elsewhere,
    literal,
    packed,
    quoted,
    readable,
)
from tools.bundling.shaking import Shaker
from tools.main import main

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
STEPS = '[{"at":0,"train_batch_tokens":256,"seq_len":32},'
STEPS += '{"at":0.5,"train_batch_tokens":512,"seq_len":64}]'
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def start(folder: Path, command: list[str], text: Text, **environ: str) -> str:
    """Run a command in `folder` without this project on its path; stdout."""
    keep = ("PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS")
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **{name: os.environ[name] for name in keep if name in os.environ},
            "OMP_NUM_THREADS": "1",
            "GOLF_DEVICE": "cpu",
            "DATA_PATH": str(text.shards),
            "TOKENIZER_PATH": str(text.model),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def identity_in(lines: str) -> str:
    found = re.search(r"^identity:(\w+)$", lines, re.M)
    assert found, lines
    return found[1]


@pytest.mark.parametrize("name", ENGINES)
def test_bundle_and_toolkit_give_the_same_payload(text: Text, tmp_path: Path, name: str) -> None:
    recipe = text.recipe()
    script = bundle(recipe, name).script
    (tmp_path / "train_gpt.py").write_bytes(script)
    lines = start(tmp_path, [sys.executable, "train_gpt.py"], text, RUN_ID="alone")
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    ours = [sys.executable, str(ROOT / f"train_{name}.py"), "recipe.json", "--runs", "toolkit"]
    told = start(tmp_path, ours, text, PYTHONPATH=str(ROOT))
    assert identity_in(lines) == identity_in(told)
    assert f"Code size: {len(script)} bytes\n" in lines
    assert f"Code size: {code_bytes(recipe)} bytes\n" in told
    files = {path.name for path in (tmp_path / "runs/alone").iterdir()}
    assert files == {"recipe.json", "log.txt", "log.jsonl", "model.bin"}
    models = [path.read_bytes() for path in tmp_path.glob("*/*/model.bin")]
    assert len(models) == 2 and models[0] == models[1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["r1061", "r1081", "ternary", "universal"])
def test_bundles_of_the_frontier(text: Text, tmp_path: Path, name: str, engine: str) -> None:
    """What is left out of them was not reached: the same payload as the toolkit's."""
    small = text.recipe()
    arch = replace(scaled(named(name), small).arch, vocab_size=small.arch.vocab_size)
    recipe = replace(small, arch=arch, optim=replace(named(name).optim, ns_precision="fp32"))
    (tmp_path / "train_gpt.py").write_bytes(bundle(recipe, engine).script)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    lines = start(tmp_path, [sys.executable, "train_gpt.py"], text)
    ours = [sys.executable, str(ROOT / f"train_{engine}.py"), "recipe.json", "--runs", "toolkit"]
    assert identity_in(lines) == identity_in(start(tmp_path, ours, text, PYTHONPATH=str(ROOT)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_with_blocks_apart_and_random_matrices(
    text: Text, tmp_path: Path, engine: str
) -> None:
    words = ["arch.num_layers=2", 'arch.phases=[{"at":0,"order":[0,{"attn":1,"mlp":0}]}]']
    words += ["arch.linear=random", "arch.adapter_rank=4", "arch.visit_scale=true"]
    recipe = text.recipe(*words)
    (tmp_path / "train_gpt.py").write_bytes(bundle(recipe, engine).script)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    lines = start(tmp_path, [sys.executable, "train_gpt.py"], text)
    ours = [sys.executable, str(ROOT / f"train_{engine}.py"), "recipe.json", "--runs", "toolkit"]
    assert identity_in(lines) == identity_in(start(tmp_path, ours, text, PYTHONPATH=str(ROOT)))


SOLVED = "quant.solver=gptq quant.mlp=int6 quant.keep_below=256 quant.calibration_batches=2"
ADAPTED = "score.limit_tokens=1500 score.sgd.chunk_tokens=256 score.lora.rank=4"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("torch", "quant.mlp=int6 quant.mlp_sigmas=3"),
        ("torch", "quant.codec=rans score.limit_tokens=2000 data.loader=shuffled"),
        ("torch", "quant.step_scale=0.01 quant.keep_below=0"),
        ("mlx", "quant.step_scale=0.02 quant.keep_below=0 quant.codec=rans"),
        ("mlx", "quant.codec=best score.subset=spread-262k data.loader=packed"),
        ("torch", "qat.form=noise score.protocol=sliding score.stride=32"),
        ("torch", "score.protocol=sliding score.seq_len=128 score.allow_lossy=true"),
        (
            "mlx",
            "optim.ema_decay=0 optim.swa_every_steps=2 data.loader=coprime score.protocol=docs",
        ),
        ("torch", "score.protocol=strided-docs score.stride=16 score.adapt=phased " + ADAPTED),
        ("mlx", "score.protocol=sliding score.stride=32 score.adapt=sgd " + ADAPTED),
        ("torch", SOLVED),
        ("torch", f"{SOLVED} quant.trellis=8 quant.steps=columns"),
        ("mlx", f"{SOLVED} quant.trellis=4"),
        ("torch", f"optim.matrix_wd=0.1 optim.z_loss=0.0001 data.batch_schedule={STEPS}"),
    ],
)
def test_bundles_of_other_settings(text: Text, tmp_path: Path, engine: str, words: str) -> None:
    """The same artifact and the same scores as the toolkit's, whatever was worked out of them."""
    recipe = text.recipe(*words.split())
    (tmp_path / "train_gpt.py").write_bytes(bundle(recipe, engine).script)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    lines = start(tmp_path, [sys.executable, "train_gpt.py"], text)
    ours = [sys.executable, str(ROOT / f"train_{engine}.py"), "recipe.json", "--runs", "toolkit"]
    told = start(tmp_path, ours, text, PYTHONPATH=str(ROOT))
    models = [path.read_bytes() for path in tmp_path.glob("*/*/model.bin")]
    assert len(models) == 2 and models[0] == models[1]
    scores = [re.findall(r"val_loss:\S+ val_bpb:\S+", said) for said in (lines, told)]
    assert len(scores[0]) >= 3 and scores[0] == scores[1]


@pytest.mark.slow
def test_techniques_that_are_off_are_not_in_it() -> None:
    plain, rich = readable(named("baseline"), "torch"), readable(named("r1061"), "torch")
    for word in ("smear_gate", "self.gate", "* self.norm_scale"):
        assert word in rich and word not in plain, word
    for word in ("class Random", "frozen_matrix", "self.visit_scale"):
        assert word not in rich + plain, word


def test_its_size_is_of_the_order_of_a_record() -> None:
    source = readable(named("baseline"), "torch")
    assert code_bytes(named("baseline")) < 16_000
    for word in ("class Recipe", "RECIPE", "checkpoint", "shuffled", "brotli"):
        assert word not in source, word


def test_two_ranks_and_another_seed(text: Text, tmp_path: Path) -> None:
    recipe = text.recipe()
    (tmp_path / "train_gpt.py").write_bytes(bundle(recipe, "torch").script)
    ours = [*TORCHRUN, "2", str(ROOT / "train_torch.py"), "recipe.json", "--runs", "toolkit"]
    (tmp_path / "recipe.json").write_text(to_json(with_changes(recipe, ["seed=7"])))
    lines = start(tmp_path, [*TORCHRUN, "2", "train_gpt.py"], text, SEED="7")
    assert "world_size:2" in lines and lines.count("identity:") == 1
    assert (tmp_path / "runs" / "seed7" / "model.bin").is_file()
    told = start(tmp_path, ours, text, PYTHONPATH=str(ROOT))
    assert identity_in(lines) == identity_in(told)


@pytest.mark.slow
def test_readable_is_the_same_program(text: Text, tmp_path: Path) -> None:
    recipe = text.recipe("schedule.steps=2")
    (tmp_path / "packed.py").write_bytes(bundle(recipe, "torch").script)
    (tmp_path / "plain.py").write_text(readable(recipe, "torch"))
    told = [
        identity_in(start(tmp_path, [sys.executable, name], text, RUN_ID=name))
        for name in ("packed.py", "plain.py")
    ]
    assert told[0] == told[1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_only_what_is_reached(backend: str) -> None:
    source = readable(named("baseline"), backend)
    other = {"torch": "mlx", "mlx": "torch"}[backend]
    assert not re.search(rf"^(import|from) {other}\b", source, re.M)
    assert not re.search(r"^(import|from) (core|tools|backend)", source, re.M)
    assert not re.search(r"^def (open_run|tokenize|train_tokenizer|load_state)\b", source, re.M)
    imports = set(re.findall(r"^(?:import|from) (\w+)", source, re.M))
    assert imports - set(sys.stdlib_module_names) - {"safetensors"} <= {backend, "numpy"}


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes_whatever_the_seed() -> None:
    code = "import hashlib\nfrom core.train.recipes import named\n"
    code += "from tools.bundling.script import bundle\n"
    code += "print(hashlib.sha256(bundle(named('small'), 'torch').script).hexdigest())"
    hashes = {
        subprocess.check_output(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
    seeds = [with_changes(named("baseline"), [f"seed={seed}"]) for seed in (1, 42, 123_456)]
    scripts = [bundle(recipe, "torch").script for recipe in seeds]
    assert len({len(script) for script in scripts}) == 1
    assert b"SEED='42        '" in scripts[1]


def test_no_path_of_this_machine_is_in_it() -> None:
    words = ["data.path=/home/me/secret/shards", "data.tokenizer=/home/me/mine.model"]
    data = elsewhere(with_changes(named("baseline"), words)).data
    assert (data.path, data.tokenizer) == ("data/datasets/shards", "data/tokenizers/mine.model")
    kept = with_changes(named("baseline"), ["data.path=my/shards"])
    assert elsewhere(kept) == kept


@pytest.mark.parametrize("name", RECIPES)
def test_the_literal_is_the_recipe(name: str) -> None:
    from core.arch.depth import Pair, Phase
    from core.arch.spec import ModelSpec
    from core.artifact.quant import Quant
    from core.data.batches import Data
    from core.score.adaptation import Sgd
    from core.score.scoring import Score
    from core.train.recipe import Optim, Schedule

    classes = (Recipe, ModelSpec, Phase, Pair, Optim, Schedule, Data, Quant, Score, Sgd)
    scope = {kind.__name__: kind for kind in classes}
    assert eval(literal(named(name)), scope) == named(name)


def test_every_byte_can_stand_in_the_script() -> None:
    data = bytes(range(256)) * 2 + b"\r\n\\'\0\0001" + b"'''\\\r\0x'''"
    source = f"#coding:latin1\nfound='''{quoted(data)}'''\n".encode("latin-1")
    scope: dict[str, str] = {}
    exec(compile(source, "script", "exec"), scope)
    assert scope["found"].encode("latin-1") == data


def test_its_functions_have_their_source(tmp_path: Path) -> None:
    """Triton compiles a kernel from the text that inspect finds."""
    source = "import inspect\ndef kernel(x):\n    return x + 1\nprint(inspect.getsource(kernel))\n"
    (tmp_path / "train_gpt.py").write_bytes(packed(source, 1))
    told = subprocess.check_output([sys.executable, "train_gpt.py"], cwd=tmp_path, text=True)
    assert told == "def kernel(x):\n    return x + 1\n\n"


def test_an_error_shows_its_line_and_not_the_packed_text(tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_bytes(packed("def f():\n    raise ValueError(3)\nf()", 1))
    done = subprocess.run(
        [sys.executable, "train_gpt.py"], cwd=tmp_path, capture_output=True, check=False
    )
    assert b'"<train_gpt>", line 2, in f' in done.stderr and len(done.stderr) < 2000


def test_the_verb(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", "small", "--json", "schedule.steps=9"]) == 0
    fields = json.loads(capsys.readouterr().out)
    script = (tmp_path / "train_gpt.py").read_bytes()
    recipe = with_changes(named("small"), ["schedule.steps=9"])
    assert fields["code_bytes"] == len(script) == code_bytes(recipe)
    assert main(["bundle", "small", "--readable", "--out", "plain.py"]) == 0
    assert "the packed one" in capsys.readouterr().err
    assert compile((tmp_path / "plain.py").read_text(), "plain.py", "exec")
    assert main(["bundle", "nothing"]) == 2
    again = from_json(to_json(named("small")), "small")
    assert again == named("small")


def test_docs_have_the_sizes_of_every_recipe() -> None:
    """Within a few parts in a hundred: a line of code moves them a little, xz's version too."""
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d,]+) \|", (ROOT / "docs/bundle.md").read_text(), re.M)
    told = {name: int(size.replace(",", "")) for name, size in rows}
    assert told.keys() == RECIPES.keys(), "golf bundle --table prints it"
    for name in ("baseline", "r1061"):
        assert abs(code_bytes(named(name)) / told[name] - 1) < 0.05, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "held", "not_held"),
    [
        ("zlib", ["zlib", "lzma"], ["import brotli", "import zstandard", "def rans_decode"]),
        ("rans", ["def rans_decode", "def rans_encode"], ["import brotli", "def _trits_pack"]),
        ("best", ["def rans_decode", "def _trits_pack"], ["import brotli", "import zstandard"]),
        ("brotli", ["import brotli"], ["import zstandard", "def rans_decode"]),
        ("any", ["import brotli", "import zstandard", "def rans_decode"], []),
    ],
)
def test_a_bundle_has_the_codecs_of_its_recipe(codec: str, held: list, not_held: list) -> None:
    source = readable(with_changes(named("baseline"), [f"quant.codec={codec}"]), "torch")
    assert all(words in source for words in held)
    assert not any(words in source for words in not_held)


def test_a_table_that_is_filled_is_not_taken_for_empty() -> None:
    """It is set once, and read by .get: but not as it was."""
    program = """
def counts(words):
    found = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found
say(counts(WORDS))
"""
    said: list[object] = []
    settled = ast.unparse(settle(ast.parse(program), Constants().visit, []))
    exec(settled, {"WORDS": ["a", "b", "a"], "say": said.append})
    assert said == [{"a": 2, "b": 1}]


def test_the_decoder_of_the_entropy_coder_is_small() -> None:
    """As the bundler emits it: shaken, minified, compressed as the script is."""
    from python_minifier import minify

    shaker = Shaker(ROOT)
    shaker.reach("core.artifact.rans", "rans_decode")
    source = ast.unparse(flatten(shaker.sources()))
    small = minify(source, rename_globals=True, preserve_globals=["rans_decode"])
    filters = [{**FILTERS, "preset": 9 | lzma.PRESET_EXTREME}]
    assert len(lzma.compress(small.encode(), lzma.FORMAT_RAW, filters=filters)) < 700
