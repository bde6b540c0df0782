"""The stages of `make gpu-proof`: each raises where what it proves does not hold, and returns its numbers."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from helpers.base.files import ROOT, read_json
from helpers.base.machine import card
from helpers.checkpoint import load_checkpoint
from helpers.config import pick_profile
from helpers.data import gpt2_tokenizer, load_corpus
from helpers.generate import generate
from helpers.memorization import corpus_loss
from helpers.model import GPT
from helpers.run import experiment, fit, preflight
from helpers.run.evaluation import whole_corpus_loss
from helpers.run.fit import fit_to_machine
from helpers.run.log import read_log
from helpers.run.report import record_run
from helpers.runtime import Runtime
from helpers.serve.decoding import FORMATS, for_decoding
from helpers.train import Trainer

LIMIT_BYTES = 16 * 2**20  # of the folder that is left
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Sizes:
    """What tells a proof on a GPU from the same proof on a CPU: numbers only."""

    name: str
    device: str
    profile: str  # of the model that every stage trains
    windows: int  # in a step of the short stages
    steps: int  # of the short stages
    backend: str  # of torch.compile
    small_memory: float  # bytes that do not hold a whole step; a CPU is told so
    run: tuple[str, ...]  # the full run, as the command line has it
    short: tuple[str, ...] = ()  # what keeps the short stages' runs short

    def machine(self) -> dict[str, str]:
        """Where this ran."""
        name = card() if self.device == "cuda" else platform.processor() or platform.machine()
        count = torch.cuda.device_count() if self.device == "cuda" else 0
        return {"device": name, "cards": count, "torch": torch.__version__, "python": platform.python_version()}


CUDA = Sizes("full size on CUDA", "cuda", "t4", 8, 24, "inductor", 4e9, ("--profile", "t4"))
CPU = Sizes(
    name="small, on the CPU",
    device="cpu",
    profile="demo",
    windows=2,
    steps=6,
    backend="aot_eager",
    small_memory=0.0,
    run=("--profile", "demo", "--steps", "24"),
    short=("--excerpt", "4096", "--set", "window=64"),
)


def pick_sizes() -> Sizes:
    """The sizes for this machine."""
    return CUDA if torch.cuda.is_available() else CPU


@dataclass(frozen=True)
class Place:
    """Where a proof is left, and, beside it, what is too large to leave."""

    out: Path

    @property
    def work(self) -> Path:
        """Checkpoints."""
        return self.out.with_name(self.out.name + "-work")


def require(condition: bool, what: str) -> None:
    """Raise AssertionError, saying what does not hold."""
    if not condition:
        raise AssertionError(what)


def close(ours: list[float], theirs: list[float], share: float) -> None:
    """Raise AssertionError unless every number is within a share of its fellow."""
    far = max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(ours, theirs, strict=True))
    require(far <= share, f"{far:.2%} apart, {share:.2%} allowed:\n{ours}\n{theirs}")


def new_trainer(sizes: Sizes, dtype: torch.dtype, compiles: bool = False, **changes) -> Trainer:
    """A trainer of the profile's model on the bundled scene, computing in `dtype`."""
    scene = replace(pick_profile(sizes.profile).main, excerpt=None)
    runtime = Runtime(torch.device(sizes.device), dtype, (f"{sizes.device}: to be proven",), compiles)
    changes = {"steps": sizes.steps, "batch_size": sizes.windows, **changes}
    return experiment.new_trainer(scene, experiment.tokenize(scene, load_corpus("sample")), 1337, runtime, **changes)


def losses(trainer: Trainer) -> list[float]:
    """Of all its steps."""
    return [step.loss for step in trainer.steps()]


def gpu_tests() -> list[Path]:
    """The files that have tests marked gpu."""
    return [path for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]


def tests(_: Sizes, place: Place) -> dict:
    """The tests marked gpu: skipped, every one, where there is no CUDA."""
    report = place.out / "tests.xml"
    line = [sys.executable, "-m", "pytest", *map(str, gpu_tests()), "-q", "-m", "gpu", f"--junit-xml={report}"]
    code = subprocess.run(line, cwd=ROOT).returncode
    require(code == 0, f"pytest ended with {code}")
    return {"pytest": code}


def half(sizes: Sizes, _: Place) -> dict:
    """Losses in bf16, and in fp16 with loss scaling, follow those in fp32."""
    found, speed = {}, {}
    for name, dtype in DTYPES.items():
        trainer = new_trainer(sizes, dtype)
        require(trainer.scaler.is_enabled() == (name == "fp16"), "loss scaling is for fp16")
        steps = list(trainer.steps())
        found[name] = [step.loss for step in steps]
        middle = sorted(steps, key=lambda step: step.seconds)[len(steps) // 2]
        speed[name] = middle.tokens / middle.seconds
    for name in ("bf16", "fp16"):
        close(found[name], found["fp32"], 0.1)
    require(found["fp32"][-1] < found["fp32"][0], "the loss does not fall")
    return {"losses": found, "tokens/s, not compiled": speed}


def compiled(sizes: Sizes, _: Place) -> dict:
    """A compiled run takes an eager one's steps, and a compiler that fails costs no more than speed."""
    dtype, plain, numbers = DTYPES["fp16"], torch.compile, {}
    again = 0.05 if sizes.device == "cuda" else 0.02  # between two eager runs: a GPU adds in another order each time
    eager = losses(new_trainer(sizes, dtype))

    def broken(*_, **__):
        raise RuntimeError("no compiler, for a test")

    ways = {"compiled": partial(plain, backend=sizes.backend), "fallback": lambda *_, **__: broken}
    for name, compiler in ways.items():
        with mock.patch.object(torch, "compile", compiler), mock.patch.object(fit, "COMPILE_PAYS", 1):
            trainer, start = new_trainer(sizes, dtype, compiles=True), time.perf_counter()
            said = fit_to_machine(trainer)
            numbers[f"{name}: seconds to prepare"] = time.perf_counter() - start
            require(trainer.compiled == (name == "compiled"), f"{name}: {said}")
            steps = list(trainer.steps())
            close([step.loss for step in steps], eager, 0.1 if name == "compiled" else again)
            numbers[f"{name}: seconds a step"] = min(step.seconds for step in steps)
    return numbers


@contextmanager
def limited(sizes: Sizes, trainer: Trainer, limit: float, windows: int) -> Iterator[None]:
    """A device with `limit` bytes; on a CPU, one that holds no more than so many windows."""
    if sizes.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / torch.cuda.get_device_properties(0).total_memory))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    loss = trainer.model.loss

    def limited_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if len(x) > windows:
            raise torch.OutOfMemoryError("pretended")
        return loss(x, y)

    always = replace(trainer.runtime, compiles=True)  # a CPU tries its first batch out only where it compiles
    with (
        mock.patch.object(trainer, "runtime", always),
        mock.patch.object(trainer.model, "loss", limited_loss),
        mock.patch.object(torch, "compile", lambda model, **_: model),
        mock.patch.object(fit, "COMPILE_PAYS", 1),
    ):
        yield


def left(limit: float, _: Runtime) -> float:
    """What this process may still take, of so many bytes."""
    return limit - torch.cuda.memory_allocated()


def memory(sizes: Sizes, _: Place) -> dict:
    """15 GB hold the recipe's own pass; less than that splits it, and training and measuring go on."""
    numbers = {}
    whole = pick_profile(sizes.profile).main.recipe.batch_size
    for name, limit, windows in (("15 GB", 15e9, whole), ("less", sizes.small_memory, whole // 4)):
        trainer = new_trainer(sizes, DTYPES["fp16"], batch_size=whole, steps=2)
        with limited(sizes, trainer, limit, windows):
            with mock.patch.object(preflight, "free_memory", partial(left, limit)):
                trainer.micro_batch = preflight.first_micro_batch(trainer.model.config, trainer.recipe, trainer.runtime)
            said = fit_to_machine(trainer)
            first = losses(trainer)
            with trainer.runtime.autocast():
                measured = whole_corpus_loss(trainer.model, trainer.windows.tokens.cpu(), trainer.recipe.window)
        split = trainer.micro_batch < whole
        require(split == (name == "less"), f"{name}: {trainer.micro_batch} windows at a time ({said})")
        peak = torch.cuda.max_memory_allocated() if sizes.device == "cuda" else None
        numbers[name] = {"windows": trainer.micro_batch, "losses": first, "corpus": measured, "peak bytes": peak}
        del trainer
    close(numbers["less"]["losses"], numbers["15 GB"]["losses"], 0.02)
    return numbers


def command(sizes: Sizes, folder: Path, *more: str, processes: int | None = None) -> list[str]:
    """The command line that trains the profile's model on the bundled scene for a few steps."""
    python = [sys.executable]
    if processes:
        python += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    train = ["-m", "helpers", "train", "--profile", sizes.profile, "--corpus", "sample", "--device", sizes.device]
    train += ["--steps", str(sizes.steps), "--save-every", "2", *(sizes.short or ["--set"])]
    train += [f"batch_size={sizes.windows}"]
    return [*python, *train, "--out", str(folder), *more]


def logged(folder: Path) -> list[float]:
    """The losses in a run's log so far."""
    return [row["loss"] for row in read_log(folder / "log.csv")] if (folder / "log.csv").is_file() else []


def calm(sizes: Sizes, place: Place) -> Path:
    """A run that nothing disturbed: made once."""
    folder = place.work / "calm"
    if not (folder / "metrics.json").is_file():
        subprocess.run(command(sizes, folder, "--fresh"), cwd=ROOT, check=True)
    return folder


def resume(sizes: Sizes, place: Place) -> dict:
    """A run that was killed goes on, and ends as one that was not."""
    folder, expected = place.work / "killed", logged(calm(sizes, place))
    victim = subprocess.Popen(command(sizes, folder, "--fresh"), cwd=ROOT)
    while victim.poll() is None and len(logged(folder)) < 3:
        time.sleep(0.02)
    struck = victim.poll() is None
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    require(struck, "the run had ended before it could be killed")
    subprocess.run(command(sizes, folder, "--resume"), cwd=ROOT, check=True)
    require(len(logged(folder)) == sizes.steps, "the log has a gap")
    close(logged(folder), expected, 0.05 if sizes.device == "cuda" else 1e-6)
    return {"losses": logged(folder), "not killed": expected}


def processes(sizes: Sizes, place: Place) -> dict:
    """torchrun with one process, and with as many as there are cards, takes the same steps."""
    expected, cards = logged(calm(sizes, place)), torch.cuda.device_count() if sizes.device == "cuda" else 2
    found = {}
    for count in sorted({1, min(cards, sizes.windows)}):
        folder = place.work / f"processes-{count}"
        subprocess.run(command(sizes, folder, "--fresh", processes=count), cwd=ROOT, check=True)
        found[str(count)] = logged(folder)
        close(found[str(count)], expected, 0.05 if sizes.device == "cuda" else 0.02)
    return found


def writing(sizes: Sizes, place: Place) -> dict:
    """Generation on the device in each format: the cache changes no word, 8 bits cost next to no loss."""
    model, meta = load_checkpoint(calm(sizes, place) / "best", GPT)
    text = load_corpus("sample").text[: meta["excerpt"]]
    tokens = torch.tensor(gpt2_tokenizer(meta["rows"]).encode(text))[:2048]
    numbers, prompt = {}, tokens[None, :16].to(sizes.device)
    for name in FORMATS:
        twin = for_decoding(model.to(sizes.device), name)
        text, start = generate(twin, prompt, 48, temperature=0, window=meta["window"]), time.perf_counter()
        again = generate(twin, prompt, 48, temperature=0, window=meta["window"])
        seconds = time.perf_counter() - start
        require(torch.equal(text, again), f"{name}: the same request, another text")
        with torch.no_grad():  # a word that two scores nearly share may fall either way in 16 bits
            scores = twin(text[:, :-1])[0][0, 15:].float()
        chosen = scores.gather(1, text[0, 16:, None])[:, 0]
        require(bool((scores.amax(1) - chosen < 0.1 * scores.std()).all()), f"{name}: the cache chose other words")
        loss = corpus_loss(twin, tokens, meta["window"]).mean
        numbers[name] = {"tokens/s": 48 / seconds, "loss": loss}
    close([numbers[name]["loss"] for name in ("bf16", "int8")], [numbers["fp32"]["loss"]] * 2, 0.02)
    return numbers


def run(sizes: Sizes, place: Place) -> dict:
    """The full run, from the command line, and its record."""
    folder = place.work / "run"
    go_on = "--resume" if (folder / "checkpoint").exists() else "--fresh"
    line = [sys.executable, "-m", "helpers", "train", *sizes.run, "--device", sizes.device, "--out", str(folder), go_on]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    subprocess.run(line, cwd=ROOT, check=True, env=environment)
    print(record_run(folder, place.out / "run"))
    return read_json(place.out / "run/metrics.json")


def table(_: Sizes, place: Place) -> dict:
    """The full run's row for the table in data/runs; and the folder is small and holds no weights."""
    m, r = (read_json(place.out / f"run/{name}.json") for name in ("metrics", "run"))
    e, recipe = r["environment"], r["recipe"]
    what = (
        f"{recipe['batch_size']} x {recipe['window']}, {m['steps']:,}, {m['epochs']:.0f}, {m['seconds'] / 60:.0f} min"
    )
    loss = f"{m['loss_grid']:.3f} / {m['loss_shift_half']:.3f} / {m['loss_random']:.3f} ({m['floor_random']:.3f})"
    recall = f"{m['recall_32_32']:.1%} / {m['recall_50_50']:.1%}"
    peak = f"{m['peak_bytes'] / 2**30:.1f} GiB"
    head = ("windows, steps, epochs, time", "loss: grid / shifted by half a window / random (floor)", "positions >= 32")
    head += ("32 → 32 / 50 → 50 verbatim", "recites from the opening", "tokens/s", "peak memory", "machine")
    speed = f"{m['tokens_seen'] / m['seconds']:,.0f}"
    machine = f"{e['hardware']}, {e['dtype']}{', compiled' if e['compiled'] else ''}"
    row = (what, loss, f"{m['loss_from_32']:.4f}", recall, f"{m['longest_recitation']:,} tokens", speed, peak, machine)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), row)]
    (place.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [path for path in place.out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    require(size < LIMIT_BYTES, f"{size:,} bytes are too many to leave")
    weights = [path.name for path in files if path.suffix in (".safetensors", ".pt")]
    require(not weights, f"weights in the folder: {weights}")
    return {"bytes": size}


STAGES: dict[str, tuple[Callable[[Sizes, Place], dict], float]] = {  # and the seconds that end one that hangs
    "tests": (tests, 600),
    "half": (half, 600),
    "compiled": (compiled, 600),
    "memory": (memory, 600),
    "resume": (resume, 600),
    "processes": (processes, 600),
    "writing": (writing, 600),
    "run": (run, 2 * 3600),  # a T4 needs more than half an hour, an H100 three minutes
    "table": (table, 60),
}
