"""Sizes of models, recipes of training, and the three profiles that put them together."""

from dataclasses import dataclass, replace

from helpers.base.errors import is_number, is_share_pair, require, require_counts, require_each

IGNORE = -100  # a target with this value is padding: it has no part in the loss
POLICIES = ("grid", "offset", "random")  # which windows of the text an epoch sees
SCHEDULES = ("constant", "linear", "cosine", "onecycle")
OPTIMIZERS = ("adamw", "muon")
LARGE = 512  # width from which on a model does not stay in the caches of a CPU
TARGET = 0.1  # whole-corpus loss to get below, in nats per token


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT-2; the defaults are the 124M model. SettingError on sizes that cannot be."""

    block_size: int = 1024  # longest context, in tokens
    vocab_size: int = 50257  # entries of the vocabulary
    n_layer: int = 12  # blocks
    n_head: int = 12  # attention heads in a block
    n_embd: int = 768  # width of the residual stream
    dropout: float = 0.0  # share of activations zeroed in training; 0 to memorise
    bias: bool = True  # biases in Linear and LayerNorm, as GPT-2 has them

    @property
    def large(self) -> bool:
        """Tens of millions of weights, where half precision pays on a CPU too."""
        return self.n_embd >= LARGE

    def __post_init__(self) -> None:
        require_counts(self, "block_size vocab_size n_layer n_head n_embd")
        require_each(self, "bias", lambda v: isinstance(v, bool), "must be True or False")
        require_each(self, "dropout", lambda v: is_number(v) and 0 <= v < 1, "is no share: 0 <= {name} < 1")
        heads = f"n_embd={self.n_embd} does not divide into n_head={self.n_head} heads"
        require(self.n_embd % self.n_head == 0, heads)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: what a step sees, and how far it moves. SettingError on nonsense."""

    steps: int  # optimizer steps; the schedule ends with the last
    window: int  # T, tokens predicted in a window
    batch_size: int  # B, windows in an optimizer step
    policy: str = "offset"  # window starts: one of POLICIES
    half_windows: float = 0.0  # share of the steps, the first, that see twice as many windows of half the length
    accumulation: int = 1  # forward passes that share an optimizer step (each sees batch_size / accumulation windows)
    optimizer: str = "muon"  # adamw for everything, or muon for the hidden matrices and adamw for the rest
    lr: float = 1e-2  # peak learning rate of AdamW
    muon_lr: float = 0.05  # peak learning rate of Muon
    muon_momentum: float = 0.95  # share of Muon's running mean that stays in a step
    betas: tuple[float, float] = (0.9, 0.95)  # decay rates of AdamW's first and second moment
    beta1_range: tuple[float, float] | None = None  # range of the first where it cycles, as in OneCycleLR
    weight_decay: float = 0.0  # on matrices, never on biases and LayerNorm scales; 0 to memorise
    schedule: str = "linear"  # shape of the learning rate: one of SCHEDULES
    warmup: float = 0.02  # share of the steps in which the rate rises from 0 to its peak
    final_lr: float = 0.0  # rate at the end, as a share of the peak
    initial_lr: float = 0.0  # rate at the start, as a share of the peak
    grad_clip: float = 1.0  # gradients with a larger norm are scaled down to it
    zero_residual: bool = True  # zero-initialised residual projections: every block starts as the identity
    stop_at_target: bool = False  # end with the first whole-corpus loss below the target, else with the last step

    @property
    def halved_steps(self) -> int:
        """Steps, the first, whose windows have half the length."""
        return round(self.half_windows * self.steps)

    def __post_init__(self) -> None:
        require_counts(self, "steps batch_size accumulation")
        require_counts(self, "window", least=2)  # every text is measured at two grids at least
        rates = "lr muon_lr muon_momentum half_windows grad_clip warmup initial_lr final_lr weight_decay"
        require_each(self, rates, is_number, "must be a number")
        require_each(self, "lr muon_lr grad_clip", lambda v: v > 0, "must be positive")
        shares = "half_windows warmup initial_lr final_lr"
        require_each(self, shares, lambda v: 0 <= v <= 1, "is no share: 0 <= {name} <= 1")
        require_each(self, "weight_decay", lambda v: v >= 0, "must not be negative")
        for name, known in (("policy", POLICIES), ("schedule", SCHEDULES), ("optimizer", OPTIMIZERS)):
            require_each(self, name, known.__contains__, f"is none of {', '.join(known)}")
        require_each(self, "betas", is_share_pair, "must be two numbers, 0 <= beta < 1")
        ascending = "must be the lowest and the highest first beta, 0 <= beta < 1"
        require_each(self, "beta1_range", lambda v: v is None or (is_share_pair(v) and v[0] <= v[1]), ascending)
        require_each(self, "muon_momentum", lambda v: 0 <= v < 1, "is no share: 0 <= {name} < 1")
        require_each(self, "zero_residual stop_at_target", lambda v: isinstance(v, bool), "must be True or False")
        fits = not self.half_windows or (self.window % 2 == 0 and self.window >= 4 and self.halved_steps < self.steps)
        require(fits, f"half_windows={self.half_windows} needs an even window from 4 on, and whole ones at the end")
        parts = f"batch_size={self.batch_size} does not divide into accumulation={self.accumulation} parts"
        require(self.batch_size % self.accumulation == 0, parts)


# What the recipes named for public set-ups change in a profile's own: until the target, in ten times the steps.
_PUBLIC = {"policy": "grid", "optimizer": "adamw", "zero_residual": False, "stop_at_target": True}
_CONSTANT = _PUBLIC | {"lr": 3e-4, "betas": (0.9, 0.999), "schedule": "constant", "warmup": 0.0}
_ONECYCLE = {"schedule": "onecycle", "warmup": 0.1, "initial_lr": 0.1, "final_lr": 0.002, "beta1_range": (0.85, 0.95)}
RECIPES: dict[str, dict] = {
    "own": {},
    "constant": _CONSTANT,
    "cosine": _PUBLIC | {"lr": 3e-4, "schedule": "cosine", "final_lr": 0.1},
    "onecycle": _PUBLIC | _ONECYCLE | {"lr": 2e-4, "betas": (0.9, 0.999), "grad_clip": 0.5},
    "small": _CONSTANT | {"window": 32, "batch_size": 4},
}
# Their steps and windows at full size, where they are published or logs imply them (of onecycle's batch, the product).
_PUBLISHED = {
    "constant": {"steps": 9_600, "window": 512, "batch_size": 8},
    "cosine": {"steps": 14_950, "window": 128, "batch_size": 16},
    "onecycle": {"steps": 20_000, "window": 512, "batch_size": 4},
    "small": {"steps": 50_000},
}


@dataclass(frozen=True)
class Experiment:
    """A GPT-2, the text it is to learn by heart, and how."""

    gpt: GPTConfig  # all but its vocab_size, which is the tokenizer's
    recipe: Recipe
    excerpt: int | None = None  # characters of the corpus, from its start; None: all
    full_vocab: bool = True  # all 50,257 tokens, or only those that the text uses and the 256 bytes

    def __post_init__(self) -> None:
        window, longest = self.recipe.window, self.gpt.block_size
        require(window <= longest, f"window={window} is longer than the model's context, block_size={longest}")


@dataclass(frozen=True)
class Profile:
    """One size of the whole series. Profiles differ in numbers only: every notebook runs the same code."""

    name: str
    corpus: str  # what `load_corpus` is asked for
    main: Experiment  # the model that memorises
    lesson: Experiment  # the small one of the experiments on the way
    char_gpt: GPTConfig  # the character baseline; its vocab_size is the text's
    char_recipe: Recipe
    char_target: float  # validation loss that the baseline must reach, in nats per character
    variant_recipe: Recipe  # of each model variant on the way to the baseline
    recall_target: float  # share of random places from which the main model must recite 32 -> 32
    target: float = TARGET
    measured: bool = True  # whether a run has reached these; where none has, a check says what came of it, and goes on
    published_sizes: bool = False  # the named recipes take the steps and windows they were published with

    def __post_init__(self) -> None:
        for window in (self.main.recipe.window, self.lesson.recipe.window):
            require(window >= 64, f"window={window} holds no recall of 32 -> 32 tokens, which every profile measures")

    def recipe(self, name: str = "own") -> Recipe:
        """The recipe called `name` at this profile's size; SettingError where there is none."""
        require(name in RECIPES, f"recipe {name!r} is none of {', '.join(RECIPES)}")
        if name == "own":
            return self.main.recipe
        changes = {"steps": 10 * self.main.recipe.steps, "accumulation": 1} | RECIPES[name]
        return replace(self.main.recipe, **changes | (_PUBLISHED.get(name, {}) if self.published_sizes else {}))


_SMALL = GPTConfig(block_size=128, n_layer=4, n_head=4, n_embd=128)
_SMALL_RECIPE = Recipe(steps=420, window=128, batch_size=8, lr=7e-3, muon_lr=0.04)
_DEMO_RECIPE = replace(_SMALL_RECIPE, steps=340, lr=9e-3)
_CHAR_RECIPE = Recipe(steps=200, window=64, batch_size=16, policy="random", lr=6e-3, muon_lr=0.045, weight_decay=0.1)
_VARIANT = Recipe(steps=300, window=32, batch_size=32, policy="random", optimizer="adamw", lr=1e-2, schedule="cosine")
_DEMO = Profile(
    name="demo",
    corpus="sample",
    main=Experiment(_SMALL, _DEMO_RECIPE, full_vocab=False),
    lesson=Experiment(_SMALL, _DEMO_RECIPE, full_vocab=False),
    char_gpt=GPTConfig(block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False),
    char_recipe=_CHAR_RECIPE,
    char_target=1.80,
    variant_recipe=_VARIANT,
    recall_target=0.95,
)
_LAPTOP = replace(
    _DEMO,
    name="laptop",
    corpus="tinyshakespeare",
    main=Experiment(_SMALL, _SMALL_RECIPE, excerpt=16_384),
    lesson=Experiment(_SMALL, _SMALL_RECIPE, excerpt=16_384, full_vocab=False),
    char_recipe=replace(_CHAR_RECIPE, steps=600, batch_size=32, muon_lr=0.03),
    char_target=1.70,
    recall_target=0.90,
)
_T4 = replace(
    _LAPTOP,
    name="t4",
    # 80 epochs in windows of 256; a pass of 8,192 tokens takes some 5 of a T4's 15 GB, and is split where it must be.
    main=Experiment(GPTConfig(), Recipe(steps=3300, window=256, batch_size=32, lr=2e-3, muon_lr=0.02)),
    char_gpt=GPTConfig(block_size=256, n_layer=6, n_head=6, n_embd=384, dropout=0.2, bias=False),
    char_recipe=replace(_CHAR_RECIPE, steps=2000, window=256, batch_size=64, lr=3e-3, muon_lr=0.02),
    char_target=1.50,
    recall_target=0.99,
    measured=False,
    published_sizes=True,
)
PROFILES = {profile.name: profile for profile in (_DEMO, _LAPTOP, _T4)}


def pick_profile(name: str) -> Profile:
    """The profile called `name`; SettingError that lists them where there is none."""
    require(name in PROFILES, f"profile {name!r} is none of {', '.join(PROFILES)}")
    return PROFILES[name]
