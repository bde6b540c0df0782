"""The series on other processors: PyTorch's libraries told to use an older one's instructions.

`python -m tests.cpus` runs, as each class of processor, the tests of what picks a fast path, one short training, and
notebooks 05 and 06 against their committed outputs. `python -m tests.cpus --series` runs all notebooks and compares
them all: by hand, before a release. Classes may be named; all but the native one, whose tests `make test` runs, unless.

Four libraries choose instructions by themselves, so each is told: PyTorch, oneDNN, MKL and FBGEMM.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from helpers.checkpoint import has_checkpoint
from helpers.runs import ROOT

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
FAST_PATHS = ["tests/test_quantize.py", "tests/test_optim.py", "tests/test_runtime.py", "tests/test_memory_kept.py"]
NOTEBOOKS = ["notebooks/05_generation.ipynb", "notebooks/06_serving.ipynb"]
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "600"]


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
    if name == "sse41":  # once, and the tests alone: nobody trains on such a machine
        return results
    if not has_checkpoint(trained / "best"):
        sys.exit("error: no demo model to serve: `make run-all` first")
    runs = ROOT / "build/cpus" / name
    shutil.rmtree(runs, ignore_errors=True)
    shutil.copytree(trained, runs / "demo/gpt")
    return results | {"05, 06": pytest(name, runs, *NOTEBOOKS, *NBVAL)}


def series(name: str) -> dict[str, tuple[float, bool]]:
    """Every notebook of the series, executed and compared, as one class."""
    runs = ROOT / "build/cpus-series" / name
    shutil.rmtree(runs, ignore_errors=True)
    return {p.stem[:2]: pytest(name, runs, str(p), *NBVAL) for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cpus", description=__doc__)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"some of {', '.join(CLASSES)}")
    parser.add_argument("--series", action="store_true", help="all notebooks, not only what picks a fast path")
    args = parser.parse_args()
    if unknown := [name for name in args.classes if name not in CLASSES]:
        parser.error(f"{', '.join(unknown)}: none of {', '.join(CLASSES)}")
    names = args.classes or [name for name in CLASSES if args.series or name != "native"]
    table = {name: (series if args.series else fast_paths)(name) for name in names}
    print(f"\n{'seconds':14s}" + "".join(f"{part:>9s}" for part in max(table.values(), key=len)))
    for name, parts in table.items():
        print(f"{name:14s}" + "".join(f"{seconds:8.0f}{' ' if passed else '!'}" for seconds, passed in parts.values()))
    failed = [name for name, parts in table.items() if not all(passed for _, passed in parts.values())]
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed" + f": {', '.join(failed)}" * bool(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
