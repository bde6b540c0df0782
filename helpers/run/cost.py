"""What a GPT costs: its parameters, and the operations of a token."""

from helpers.config import GPTConfig


def n_params(config: GPTConfig) -> int:
    """Parameters of a GPT of these sizes, the tied table counted once: 124,439,808 of the default ones."""
    C, L = config.n_embd, config.n_layer
    vectors = (2 * L + 1) * C + config.bias * (11 * L + 1) * C  # LayerNorm's scales; its biases and those of Linear
    return (config.vocab_size + config.block_size) * C + n_block_matrices(config) + vectors


def n_block_matrices(config: GPTConfig) -> int:
    """Weights in the matrices of the blocks: (C, 3C) and (C, C) of attention, (C, 4C) and (4C, C) of the MLP."""
    return 12 * config.n_layer * config.n_embd**2


def flops_per_token(config: GPTConfig, window: int) -> int:
    """Floating-point operations of a training step, forward and backward, per token.

    Six per weight that multiplies (the tied table counts once, as the head), and attention's 12 * n_layer * T * C, of
    which the causal mask is not subtracted: PaLM's convention (arXiv 2204.02311, appendix B).
    """
    matrices = n_block_matrices(config) + config.vocab_size * config.n_embd
    return 6 * matrices + 12 * config.n_layer * window * config.n_embd
