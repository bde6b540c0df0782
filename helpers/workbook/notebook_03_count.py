"""What the checks of notebook 3 ask of a count of parameters."""

import torch

from helpers.config import GPTConfig
from helpers.model import GPT
from helpers.workbook.check import expect, refuse


def exercise_3_6(count_parameters) -> str:
    """The number of parameters, from the sizes alone."""
    state, tiny = torch.get_rng_state(), count_parameters(GPTConfig(1, 1, 1, 1, 1))
    refuse(not torch.equal(state, torch.get_rng_state()), "You have built the model: count from its sizes alone.")
    C, V, T, L, N = 768, 50257, 1024, 12, 124_439_808
    found, without = count_parameters(GPTConfig()), N - L * 11 * C - C
    slips = {
        N + V * C: "the LM head is counted, and is the token embedding once more (weight tying)",
        N - V * C: "the token embedding is missing",
        N - T * C: "the position embedding is missing: it is learned, too",
        N - 2 * C: "the last LayerNorm, `ln_f`, is missing",
        N - (2 * L + 1) * C: "each LayerNorm has a scale and a bias, of C numbers each",
        N - L * 4 * C: "the two LayerNorms of each block are missing",
        N - (4 * L + 2) * C: "all LayerNorms are missing",
        N - L * 9 * C: "the biases of a block's four matrices are missing: 3 C, C, 4 C and C",
        N - L * 3 * C: "3 C biases too few: `c_attn` has 3 C, `c_fc` 4 C",
        N - (13 * L + 2) * C: "biases and LayerNorms are missing",
        N + L * 11 * 4 * C**2: "the heads share one `c_attn` and one `c_proj`, so their number does not matter",
    }
    refuse(found in slips, f"GPT-2 has {N:,}, and yours {found}: {slips.get(found)}.")
    far = _how_far(found - N, C, L) if isinstance(found, int | float) else ""
    expect(found, N, f"GPT-2 has {N:,}; yours is {{found}}. {far}")
    found = count_parameters(GPTConfig(bias=False))
    refuse(found == N, "`bias=False` changes nothing in yours: then neither linear layers nor LayerNorms have biases.")
    refuse(found == without - (2 * L + 1) * C, "With `bias=False` a LayerNorm loses its bias, and keeps its scale.")
    refuse(found == without + C, "With `bias=False` the last LayerNorm, `ln_f`, loses its bias, too.")
    refuse(found == without + (2 * L + 1) * C, "With `bias=False` the LayerNorms lose their biases, too.")
    expect(found, without, "GPTConfig(bias=False) has {wanted} parameters; yours is {found}.")
    for config, found in ((GPTConfig(1, 1, 1, 1, 1), tiny), (GPTConfig(8, 11, 3, 2, 10), None)):
        wanted = sum(p.numel() for p in GPT(config).parameters())
        fixed = "Is one of the sizes fixed?"
        expect(found or count_parameters(config), wanted, f"{config} has {{wanted}}; yours is {{found}}. {fixed}")
    return "It counts any GPT-2 from its sizes, and no number twice."


def _how_far(off: float, C: int, n_layer: int) -> str:
    """How far a number of parameters is off, in units of the width, per block where that is whole."""
    which = "many" if off > 0 else "few"
    for unit, size in (("C² per block", C * C * n_layer), ("C per block", C * n_layer)):
        if off and off % size == 0:
            return f"{abs(off) // size:,} {unit} too {which}."
    return f"{abs(off) / C:,.5g} C too {which}."
