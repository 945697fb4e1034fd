"""What a source would reach beside its folder: told, left open, harmless."""

from __future__ import annotations

import ast
import time

import pytest

from tools.checks.reach import reaches

TOLD = (  # FAIL
    "import os\nos.system('curl -O https://example.com/w.bin')",
    "import subprocess\nsubprocess.run(['curl', '-O', 'https://example.com/w.bin'])",
    "import subprocess\nsubprocess.run('wget http://a/b -O w.bin', shell=True)",
    "import os as t\nrun = t.system\nrun('pip install x')",
    "getattr(__import__('os'), 'system')('git clone x')",
    "from os import system\nsystem('wget x')",
    "import torch\ntorch.hub.load_state_dict_from_url('https://example.com/w.pt')",
    "__import__('requests').get('http://a.b/c')",
    "import importlib\nimportlib.import_module('urllib.request')",
    "from urllib import request",
    "from transformers import AutoModel\nAutoModel.from_pretrained('gpt2')",
    "import pandas as pd\npd.read_csv('https://x/y')",
    "open('/weights.bin', 'rb').read()",
    "open('/proc/self/root/home/other/w.bin', 'rb')",
    "open('/bin/../home/other/w.bin', 'rb')",
    "open('/dev/shm/w.bin', 'rb')",
    "open(b'/home/other/w.bin', 'rb')",
    "open(f'/home/{1}/w.bin')",
    "open('/home/' + name + '/w.bin')",
    "open('/home/%s/w.bin' % name)",
    "open('/home/{}/w.bin'.format(name))",
    "P = '/mnt/other/w.bin'\nopen(P)",
    "read = open\nread('/w.bin')",
    "import glob\nglob.glob('/home/*/w.bin')",
    "import numpy as np\nnp.load('/my data/other/w.npy')",
    "from pathlib import Path\n(Path.home() / 'w.bin').read_bytes()",
    "from pathlib import Path as P\nP('/').joinpath('home').iterdir()\nopen('/home')",
    "import os\nopen(os.path.join('data', '/home/w.bin'))",
    "import os\nopen(os.path.expanduser('~') + '/w.bin')",
    "import os\nopen(os.pardir + '/w.bin')",
    "import os\nos.chdir('..')",
    "open(f'{folder}/../../w.bin')",
)
LEFT_OPEN = (  # UNDECIDED
    "import subprocess\nsubprocess.run(command)",
    "import subprocess\nsubprocess.Popen(['lrzip', '-d', 'model.lrz'])",
    "import os\nlist(map(os.system, commands))",
    "import importlib\nimportlib.import_module(name)",
    "import os\ngetattr(os, name)('x')",
    "import os\nopen(os.environ['HOME'] + '/w.bin')",
    "import os\nos.path.expanduser(name)",
    "import ctypes\nctypes.CDLL(name)",
    "import socket",
    "model.from_pretrained(name)",
    "default = '/workspace/data/w.bin'",
)
HARMLESS = (
    "open(f'{folder}/model.bin')",
    "open(folder + '/weights/x.bin')",
    "open('data/x')\nopen('./data/datasets/x')\nopen('/dev/null')\nopen('/proc/cpuinfo')",
    "import subprocess\nsubprocess.run(['nvidia-smi'], stdout=-1, text=True)",
    "'/'.join(parts)\nnames.append('/s')\nnames.insert(0, '/')",
    "import re\nre.compile(r'/home')",
    "import os\nos.environ.get('DATA_PATH', './data')\nos.path.join(a, 'b')",
    "from pathlib import Path\n(Path(__file__).parent / 'x').read_text()",
    "getattr(torch, name)\ngetattr(model, 'run')(x)",
    "import sys\nsys.path.insert(0, '.')",
)


def statuses(source: str) -> set[str]:
    return {one.status for one in reaches(ast.parse(source))}


@pytest.mark.parametrize("source", TOLD)
def test_what_is_told_fails(source: str) -> None:
    assert "FAIL" in statuses(source)


@pytest.mark.parametrize("source", LEFT_OPEN)
def test_what_is_not_told_stays_open(source: str) -> None:
    assert statuses(source) == {"UNDECIDED"}


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_harmless_is_not_named(source: str) -> None:
    assert statuses(source) == set()


@pytest.mark.parametrize(
    "source",
    [
        "\n".join(f"a{at} = a{at + 1} + a{at + 1}" for at in range(3000)) + "\nopen(a0)",
        "\n".join(f"a{at} = a{at + 1}" for at in range(5000)) + "\na0('x')",
        "open(" * 90 + "x" + ")" * 90,
        "open(" + " + ".join(["'/x'"] * 900) + ")",
    ],
)
def test_no_source_takes_long(source: str) -> None:
    tree, before = ast.parse(source), time.monotonic()
    list(reaches(tree))
    assert time.monotonic() - before < 5
