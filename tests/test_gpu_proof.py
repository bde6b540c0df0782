"""The proof that a GPU owes, run small on a CPU: so that it works on the day when there is a GPU."""

import pytest
import torch

from helpers.base.files import ROOT, read_json
from helpers.run.report import FILES
from tests.gpu_proof import __main__ as program
from tests.gpu_proof.stages import CPU, CUDA, LIMIT_BYTES, STAGES

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu-proof runs it at full size here")


@pytest.fixture(scope="module")
def proof():
    """What `make gpu-proof` left, which CI runs before the tests: two minutes are too long for one of them."""
    out = ROOT / "build/gpu-proof"
    if not (out / "stages.json").is_file():
        pytest.skip("`make gpu-proof` has not been run here")
    if read_json(out / "stages.json").get("code") != program.fingerprint():
        pytest.skip("`make gpu-proof` has been run with other code")
    return out


def test_every_stage_passes_and_leaves_its_numbers_and_no_weights(proof):
    out = proof
    stages = read_json(out / "stages.json")["stages"]
    assert all(stages[name]["passed"] and stages[name]["seconds"] > 0 for name in STAGES)
    assert all((out / f"{name}.json").is_file() and (out / f"{name}.log").is_file() for name in STAGES)
    assert sorted(path.name for path in (out / "run").iterdir()) == sorted(FILES)
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) < LIMIT_BYTES
    assert not [*out.rglob("*.safetensors"), *out.rglob("*.pt")]
    assert read_json(out / "memory.json")["less"]["windows"] < read_json(out / "memory.json")["15 GB"]["windows"]
    head, rule, row = (out / "table.md").read_text(encoding="utf-8").splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")


def test_what_has_passed_is_not_run_again(proof, monkeypatch, capsys):
    out = proof
    monkeypatch.setattr(program, "run_stage", lambda *_: pytest.fail("a second time"))
    assert program.main(["--out", str(out)]) == 0
    assert "not nothing" in capsys.readouterr().out


def test_what_has_passed_with_other_code_is_run_again(tmp_path, monkeypatch):
    out, run = tmp_path / "proof", []
    monkeypatch.setattr(program, "run_stage", lambda name, *_: run.append(name) or {"passed": True, "seconds": 1.0})
    for code, again in (("one", True), ("one", False), ("another", True)):
        monkeypatch.setattr(program, "fingerprint", lambda code=code: code)
        run.clear()
        assert program.main(["--out", str(out)]) == 0
        assert run == (list(STAGES) if again else [])


def test_a_stage_that_fails_is_told_with_its_traceback_and_stops_no_other(tmp_path, capsys):
    out = tmp_path / "proof"
    assert program.main(["table", "half", "--out", str(out), "--limit", "0.01"]) == 1
    said = capsys.readouterr().out
    assert said.count("FAILED") == 2
    assert "took longer than 0 s" in said
    assert program.main(["table", "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "FileNotFoundError" in said
    stages = read_json(out / "stages.json")["stages"]
    assert "Traceback" in stages["table"]["error"]
    assert not stages["half"]["passed"]


def test_both_sizes_run_the_same_stages_and_the_full_one_is_the_t4_profile():
    assert CUDA.run == ("--profile", "t4")
    assert (CUDA.device, CPU.device) == ("cuda", "cpu")
    assert all(0 < limit <= 7200 for _, limit in STAGES.values()), "no stage can hang for ever"
    with pytest.raises(SystemExit):
        program.main(["nothing"])
