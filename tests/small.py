"""A scale small enough for tests, on real text: a few modules of the standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

MODULES = ("abc", "bisect", "calendar", "cmd", "code", "colorsys", "copy", "csv", "fnmatch", "glob", "heapq", "keyword",
           "linecache", "numbers", "operator", "queue", "reprlib", "sched", "shelve", "shlex", "stat", "string", "this",
           "timeit", "token", "types", "uuid", "warnings", "weakref", "zipapp")  # fmt: skip

SCALE = """
about = "tests"
corpus = "path:{text}"
tokenizer = "bpe:320"
evaluation_sequences = 8
probe_sequences = 8
log_every = 2
evaluate_at = [0.5]
checkpoint_every = 3

[lengths]
"1024" = 8
"4096" = 24

[tokens]
"10B" = 1152
teacher = 1152

[roles."300M"]
layers = 1
width = 16
ffn = 32
heads = 2
kv_heads = 2
length = "4096"
optimiser = {{ peak_rate = 3e-3, final_rate = 3e-4, warmup = 0.1, batch = 4 }}

[roles."3B"]
layers = 1
width = 32
ffn = 64
heads = 2
kv_heads = 1
length = "4096"
optimiser = {{ peak_rate = 3e-3, final_rate = 3e-4, warmup = 0.1, batch = 4 }}
"""


def write_text(folder: Path) -> Path:
    folder.mkdir(parents=True)
    library = Path(sysconfig.get_path("stdlib"))
    for name in MODULES:
        (folder / f"{name}.txt").write_text((library / f"{name}.py").read_text())
    return folder


def write_scale(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text(SCALE.format(text=write_text(folder / "text")))
    return path
