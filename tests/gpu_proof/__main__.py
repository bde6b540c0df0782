"""`make gpu-proof`: on a CUDA machine, unattended, everything of the series that only a GPU can prove.

One folder comes of it, without weights: a log and the numbers of every stage, the record of the full run and its row
for the table in data/runs. A stage that fails or takes too long does not stop the others; one that has passed in the
folder, with the same code and PyTorch, is not run again. Without CUDA the same stages run at a small size on the CPU,
so that this program cannot rot.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from hashlib import sha256
from pathlib import Path

import torch

from helpers.base.files import ROOT, read_json, write_json
from tests.gpu_proof.stages import LIMIT_BYTES, STAGES, Place, gpu_tests, pick_sizes


def run_stage(name: str, out: Path, limit: float) -> dict:
    """Run a stage in a process group of its own: whether it passed, its seconds, and the end of its log if not."""
    log, found, start = out / f"{name}.log", out / f"{name}.json", time.perf_counter()
    found.unlink(missing_ok=True)
    line = [sys.executable, "-m", "tests.gpu_proof", "--inside", name, "--out", str(out)]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(line, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = f"took longer than {limit:.0f} s"
        finally:
            _end(process)
    text = log.read_text(encoding="utf-8", errors="replace")
    log.write_text(text[-LIMIT_BYTES // 64 :], encoding="utf-8")  # a stage that talks much must not fill the folder
    passed = code == 0
    status = {"passed": passed, "seconds": round(time.perf_counter() - start, 1)}
    return status if passed else {**status, "ended with": code, "error": text[-4000:]}


def _end(process: subprocess.Popen) -> None:
    """End what a stage has left running, too."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    process.kill()
    process.wait()


def fingerprint() -> str:
    """Of what decides what a stage finds: the code of the series, the stages and the GPU's tests; PyTorch's build."""
    digest = sha256(torch.__version__.encode())
    for path in sorted([*(ROOT / "helpers").rglob("*.py"), *(ROOT / "tests/gpu_proof").glob("*.py"), *gpu_tests()]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def inside(name: str, place: Place) -> int:
    """A stage itself, in its own process; its numbers go to NAME.json."""
    try:
        numbers = STAGES[name][0](pick_sizes(), place)
    except Exception:
        traceback.print_exc()
        return 1
    write_json(place.out / f"{name}.json", numbers)
    print(numbers)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_proof", description=__doc__)
    parser.add_argument("stages", nargs="*", help=f"only these: {', '.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-proof", help="the folder to leave")
    parser.add_argument("--fresh", action="store_true", help="run again what has passed")
    parser.add_argument("--limit", type=float, help="seconds for each stage, instead of its own")
    parser.add_argument("--inside", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    place = Place(args.out.resolve())
    if args.inside:
        return inside(args.inside, place)
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}: say some of {', '.join(STAGES)}")
    sizes, summary = pick_sizes(), place.out / "stages.json"
    before = read_json(summary) if summary.is_file() else {}
    this = {"sizes": sizes.name, "code": fingerprint()}
    if args.fresh or any(before.get(name) != value for name, value in this.items()):
        shutil.rmtree(place.out, ignore_errors=True)
        shutil.rmtree(place.work, ignore_errors=True)
        before = {}
    place.out.mkdir(parents=True, exist_ok=True)
    done = {**this, "machine": sizes.machine(), "stages": before.get("stages", {})}
    for name, (_, limit) in STAGES.items():
        if (args.stages and name not in args.stages) or done["stages"].get(name, {}).get("passed"):
            continue
        print(f"{name:12s}", end="", flush=True)
        done["stages"][name] = run_stage(name, place.out, args.limit or limit)
        write_json(summary, done)
        status = done["stages"][name]
        print(f"{status['seconds']:8.1f} s  {'passed' if status['passed'] else 'FAILED'}", flush=True)
        if not status["passed"]:
            print(f"  ended with {status['ended with']}: {place.out / name}.log\n{status['error']}", flush=True)
    passed = [name for name in STAGES if done["stages"].get(name, {}).get("passed")]
    failed = [name for name in STAGES if name not in passed]
    said = (f"{word} {', '.join(names) or 'nothing'}" for word, names in (("passed", passed), ("not", failed)))
    print(f"{sizes.name}, in {place.out}: {'; '.join(said)}")
    return 1 if any(name in failed for name in args.stages or STAGES) else 0


if __name__ == "__main__":
    sys.exit(main())
