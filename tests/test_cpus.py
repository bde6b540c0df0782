"""Which processors this one can play."""

import pytest
import torch

from tests import cpus


@pytest.fixture
def here(monkeypatch):
    """Call it with the class that PyTorch finds."""
    return lambda level: monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)


@pytest.mark.parametrize(
    ("level", "expected", "default"),
    [
        ("AVX512", ["native", "avx512-vnni", "avx512", "avx2", "sse41"], ["avx512-vnni", "avx512", "avx2", "sse41"]),
        ("AVX2", ["native", "avx2", "sse41"], ["sse41"]),
        ("DEFAULT", ["native", "sse41"], []),
        ("SVE256", ["native", "sse41"], []),
    ],
)
def test_a_processor_plays_older_ones_only(here, level, expected, default):
    here(level)
    assert cpus.playable() == expected
    assert cpus.by_default() == default


def test_a_newer_processor_is_refused_by_name_and_left_out_otherwise(here, monkeypatch, capsys):
    here("AVX2")
    run = []
    monkeypatch.setattr(cpus, "fast_paths", lambda name: run.append(name) or {"tests": (1.0, True)})
    monkeypatch.setattr("sys.argv", ["cpus", "avx512"])
    with pytest.raises(SystemExit):
        cpus.main()
    assert "avx512: this processor lacks the instructions" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["cpus"])
    assert cpus.main() == 0
    assert run == ["sse41"]
    assert "left out: avx512-vnni, avx512: this processor lacks" in capsys.readouterr().out


def test_the_oldest_processor_plays_none(here, monkeypatch, capsys):
    here("DEFAULT")
    monkeypatch.setattr("sys.argv", ["cpus"])
    assert cpus.main() == 0
    assert "0 passed, 0 failed" in capsys.readouterr().out
