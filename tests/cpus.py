"""The series on other processors: PyTorch's libraries told to use an older one's instructions.

`python -m tests.cpus` runs, as each class of processor, the tests of what picks a fast path, one short training, and,
as the common classes, notebooks 07 and 08 against their committed outputs. By hand: `--series` runs all
notebooks and compares them all; `--decoding` writes with GPT-2 124M in every format, and transformers beside it.
Classes may be named. Unless told, all that this processor can play, and this one itself only by hand: `make test`
is its test. A newer processor cannot be played: PyTorch does not ask, and dies of the first instruction it lacks.

Four libraries choose instructions by themselves, so each is told: PyTorch, oneDNN, MKL and FBGEMM.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch

from helpers.base.files import ROOT
from helpers.checkpoint import has_checkpoint
from helpers.data import gpt2_tokenizer, load_corpus
from tests.benchmarks.decoding import BYTES, NEW, teach
from tests.benchmarks.turns import take_turns

CLASSES = {  # name: what each library is told
    "native": {},
    "avx512-vnni": {  # Ice Lake, Zen 4: 8-bit products in hardware; bf16 is left out
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX512_VNNI",
    },
    "avx512": {  # Skylake: the hosts of many cloud GPUs
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "avx2": {  # most laptops
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "sse41": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
LEVELS = ("DEFAULT", "AVX2", "AVX512")  # PyTorch's classes, each with the instructions of those before it
FAST_PATHS = [f"tests/test_{name}.py" for name in ("quantize", "gelu", "optim", "runtime", "memory_kept")]
COMMON = ("avx2", "avx512-vnni")  # what most readers have: the notebooks too; the others, by hand with --series
NOTEBOOKS = ["notebooks/07_generation.ipynb", "notebooks/08_serving.ipynb"]
SPEEDS = ("transformers, fp32", "ours, fp32", "ours, bf16", "ours, int8")
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "600"]


def playable() -> list[str]:
    """The classes that this processor can play, itself first."""
    return [name for name in CLASSES if _level(name) <= _level("native")]


def by_default() -> list[str]:
    """Those of them that differ from this processor: by PyTorch's level, or, on the newest, by what oneDNN is told."""
    return [name for name in playable()[1:] if _level(name) < _level("native") or _level(name) == len(LEVELS) - 1]


def _level(name: str) -> int:
    here = torch.backends.cpu.get_cpu_capability()
    level = CLASSES[name].get("ATEN_CPU_CAPABILITY", here).upper()
    return LEVELS.index(level) if level in LEVELS else 0  # another architecture


def environment(name: str, runs: Path) -> dict[str, str]:
    """What a process of that class is started with."""
    return os.environ | CLASSES[name] | {"RUNS_DIR": str(runs)}


def pytest(name: str, runs: Path, *what: str) -> tuple[float, bool]:
    """Seconds of pytest as that class, and whether all passed."""
    start = time.perf_counter()
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *what]
    done = subprocess.run(line, cwd=ROOT, env=environment(name, runs))
    return time.perf_counter() - start, done.returncode == 0


def fast_paths(name: str) -> dict[str, tuple[float, bool]]:
    """The tests of one class; the notebooks read the checkpoint of the last `make run-all`."""
    results = {"tests": pytest(name, ROOT / "build/cpus" / name, *FAST_PATHS)}
    trained = ROOT / "runs/demo/gpt"
    if name not in COMMON:
        return results
    if not has_checkpoint(trained / "best"):
        sys.exit("error: no demo model to serve: `make run-all` first")
    runs = ROOT / "build/cpus" / name
    shutil.rmtree(runs, ignore_errors=True)
    shutil.copytree(trained, runs / "demo/gpt")
    return results | {"07, 08": pytest(name, runs, *NOTEBOOKS, *NBVAL)}


def series(name: str) -> dict[str, tuple[float, bool]]:
    """Every notebook of the series, executed and compared, as one class."""
    runs = ROOT / "build/cpus-series" / name
    shutil.rmtree(runs, ignore_errors=True)
    return {p.stem[:2]: pytest(name, runs, str(p), *NBVAL) for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def decoding(names: list[str]) -> int:
    """Tokens per second of each of SPEEDS in each class, a token per forward pass, and what they are a share of."""
    with tempfile.TemporaryDirectory() as folder:
        teach(torch.tensor(gpt2_tokenizer().encode(load_corpus("sample").text)), Path(folder))
        for name in names:
            with mock.patch.dict(os.environ, CLASSES[name]):
                turns = take_turns("decoding", SPEEDS, 2, folder)
            reads = max(turn["bandwidth"] for found in turns.values() for turn in found)
            speed = {who: NEW / min(s for turn in found for s in turn["seconds"]) for who, found in turns.items()}
            print(f"{name}: reads {reads / 1e9:.1f} GB/s", flush=True)
            for who, per_second in speed.items():
                share = per_second * 124_439_808 * BYTES[who.split(", ")[1]] / reads
                times = per_second / speed[SPEEDS[0]]
                print(
                    f"  {who:20s}{per_second:7.1f} tokens/s {times:6.2f} {share:5.0%} of the memory's limit", flush=True
                )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cpus", description=__doc__)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"some of {', '.join(CLASSES)}")
    parser.add_argument("--series", action="store_true", help="all notebooks, not only what picks a fast path")
    parser.add_argument("--decoding", action="store_true", help="the speed of writing with GPT-2 124M")
    args = parser.parse_args()
    if unknown := [name for name in args.classes if name not in CLASSES]:
        parser.error(f"{', '.join(unknown)}: none of {', '.join(CLASSES)}")
    if too_new := [name for name in args.classes or CLASSES if name not in playable()]:
        missing = f"{', '.join(too_new)}: this processor lacks the instructions"
        if args.classes:
            parser.error(missing)
        print(f"left out: {missing}", flush=True)
    names = args.classes or (playable() if args.series or args.decoding else by_default())
    if args.decoding:
        return decoding(names)
    table = {name: (series if args.series else fast_paths)(name) for name in names}
    print(f"\n{'seconds':14s}" + "".join(f"{part:>9s}" for part in max(table.values(), key=len, default={})))
    for name, parts in table.items():
        print(f"{name:14s}" + "".join(f"{seconds:8.0f}{' ' if passed else '!'}" for seconds, passed in parts.values()))
    failed = [name for name, parts in table.items() if not all(passed for _, passed in parts.values())]
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed" + f": {', '.join(failed)}" * bool(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
