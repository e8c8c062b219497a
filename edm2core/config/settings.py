"""Typed settings of a recipe, section by section."""

import math
import re
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator, model_validator

from edm2core.config.fields import (
    Choosing,
    Colour,
    Compile,
    Count,
    Digest,
    Ema,
    GroupNormKind,
    Init,
    Listed,
    NoiseSchedule,
    NotEmpty,
    Own,
    PixelEpsilon,
    Positive,
    Precision,
    Seeds,
    Settings,
    Share,
    Shares,
    Weights,
    Widths,
    contradiction,
    described,
    falls,
    once,
    one_of,
    own_settings,
    unkeyed,
)
from edm2core.registry import AUGMENTATIONS, FORMATS, NETWORKS, OPTIMIZERS, SCHEDULES, SOLVERS, WEIGHTINGS, WEIGHTS, DataFormat, is_own

STORED_AVERAGES = 64  # in a training that does not set average_every


def check_exact(exact: bool, precision: Precision) -> None:
    """Raises an error if `exact` is set together with half precision."""
    if exact and precision != "fp32":
        raise contradiction(f"exact means fp32, it is {precision}; leave one of them out", "exact", "precision")


class DataSettings(Settings):
    """Where images come from and how they become arrays."""

    format: Annotated[str, one_of(FORMATS)] = described(..., "Format of the images, which decides how they are read.", "data set")
    source: str | None = unkeyed(None, "Path or URL of the images; digits come with scikit-learn and need none.", "source of the data")
    digest: Digest | None = described(None, "Digest that the source must have; a URL needs one.", "digest of the source")
    resolution: Count | None = described(None, "Side of the square images in pixels, after a centre crop and a resize.")
    test_share: Share = described(0.2, "Share of each class kept for testing, for digits and for images without a test folder.")
    background: Colour = described((255, 255, 255), "Colour behind transparent pixels of images: red, green and blue, each 0 to 255.")
    channels: Literal[1, 3] = described(3, "Colour channels of images; 1 makes them grey, and unset it follows network.image_channels.")
    standardize: bool = described(
        False,
        "Whether images are brought to mean 0 and standard deviation sigma_data instead of the range [-1, 1].",
        "images at the network's scale",
    )

    own: Own = own_settings()

    @property
    def needs_source(self) -> bool:
        """Whether there is a source to read. Own code may make images without one."""
        return self.source is not None if is_own(self.format) else not self.facts.builtin

    @property
    def facts(self) -> DataFormat:
        """The format's line in the registry, which is known before any data are opened."""
        return FORMATS[self.format]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.needs_source and not self.source:
            raise contradiction(f"the format '{self.format}' needs a path or URL", "source")
        if self.facts.shape is None and self.resolution is None and not is_own(self.format):
            brought = "images are brought to" if self.facts.resized else "its images have"
            raise contradiction(f"the format '{self.format}' needs the side in pixels that {brought}", "resolution")
        if self.source and self.source.startswith(("http://", "https://")) and not self.digest:
            raise contradiction("a URL needs 'sha256:…' or 'md5:…' of what it must deliver", "digest")
        return self


class NetworkShape(Settings):
    """What every network says of itself and of its images."""

    use: str
    resolution: Count = described(..., "Side of the square input in pixels.", "side of an image")
    image_channels: Count = described(3, "Colour channels of an image.", "channels of an image")
    classes: Annotated[int, Field(ge=0)] = described(0, "Classes that the network is conditioned on; 0 makes it unconditional.")
    augment_labels: Annotated[int, Field(ge=0)] = described(
        0, "Numbers by which the network is told how its images were augmented; they follow from `training.augment`.", "augmentation labels"
    )


class NetworkSettings(NetworkShape):
    """The U-Net. Defaults are FutureXiang/edm2's config C; switches make the others and the paper's (docs/explanation/recipes.md)."""

    use: Annotated[str, one_of(NETWORKS, own=True)] = described("unet", "Family of networks.", "network")
    channels: Count = described(..., "Channels of the first level.", "channels of the first level")
    multipliers: NotEmpty[Count] = described(
        ...,
        "Channels of each level, as multiples of `channels`; each level has half the side of the one before.",
        "channels of the levels, times the first's",
    )
    blocks: Annotated[int, Field(ge=2)] = described(
        ..., "Decoder blocks at each level; the encoder has one fewer.", "decoder blocks a level"
    )
    attention_resolutions: Listed[Count] = described(
        (), "Sides, in pixels, of the levels whose blocks have self-attention.", "attention at sides"
    )
    attention_head_channels: Count | None = described(
        None, "Channels of one attention head; null makes one head of all channels.", "attention heads"
    )
    attention_norm: Literal["pixel", "group"] = described(
        "pixel", "How attention is normalised: queries, keys and values by pixel norm, or their input by group norm as in ADM.", "attention"
    )
    dropout: Share = described(0.0, "Probability with which dropout sets an activation to zero.", "dropout")
    weights: Weights = described(
        "plain",
        "Whether weights are used as stored, normalised in the forward (rung D), or kept normalised too (rung E).",
        "learned weights",
    )
    init: Init | None = described(
        None,
        "How plain weights begin: null as PyTorch's, `he` by He's uniform rule, `adm` with zero where a branch ends.",
        "learned weights start",
    )
    biases: bool = described(False, "Whether layers have biases, which then replace the constant-one input channel.", "offsets")
    noise_features: Literal["fourier", "positional"] = described(
        "fourier", "Features by which the network is told the noise level.", "features of the noise level"
    )
    embedding_width: Literal["fourfold", "widest"] = described(
        "fourfold", "Channels of the noise embedding: four times `channels`, or those of the widest level.", "width of the embedding"
    )
    embedding_gain: float = described(
        1.0, "Value at which the learned gains on the embedding begin (rung G).", "gains on the embedding start at"
    )
    conditioning: Literal["scale", "scale_and_shift"] = described(
        "scale", "What the embedding does to each channel of a block.", "the embedding"
    )
    norm: GroupNormKind | Literal["pixel"] = described(
        "group", "Normalisation of activations; `group_rms` only scales (rung C), and `pixel` has no group norm (rung F).", "normalisation"
    )
    pixel_epsilon: PixelEpsilon = described(
        "inside", "Where pixel norm adds its small constant: inside the square root, or outside.", "pixel norm of x"
    )
    middle: Literal["encoder", "decoder"] = described(
        "encoder", "Kind of the two blocks between encoder and decoder.", "the two blocks in the middle"
    )
    magnitude_preserving: bool = described(
        False,
        "Whether SiLU, sums, concatenations and Fourier features preserve magnitudes, with learned gains (rung G).",
        "fixed functions",
    )
    clip: Positive | None = described(
        None, "Absolute value at which each block's output is clamped, for half precision; null clamps nothing.", "activations clamped to ±"
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.resolution % 2 ** (len(self.multipliers) - 1):
            words = f"{self.resolution} cannot be halved {len(self.multipliers) - 1} times"
            raise contradiction(words, "resolution", "multipliers")
        if self.norm != "pixel" and self.channels % 32:
            raise contradiction(f"{self.channels} is not a multiple of 32, which GroupNorm needs", "channels", "norm")
        sides = [self.resolution >> level for level in range(len(self.multipliers))]
        for side in self.attention_resolutions:
            if side not in sides:
                raise contradiction(f"no level has side {side}; the levels have {sides}", "attention_resolutions", "resolution")
        widths = [self.channels * self.multipliers[sides.index(side)] for side in (*self.attention_resolutions, sides[-1])]
        for width in widths:  # the lowest level attends in the middle
            if width % (self.attention_head_channels or width):
                words = f"{width} channels cannot be cut into heads of {self.attention_head_channels}"
                raise contradiction(words, "attention_head_channels", "channels")
        if self.init is not None and self.weights != "plain":
            raise contradiction(f"{self.weights} weights start as N(0, 1); leave init out, or say null", "init", "weights")
        if self.attention_norm == "group" and self.norm == "pixel":
            raise contradiction("where the norm is 'pixel', that of attention must be 'pixel' too", "attention_norm", "norm")
        return self


class OwnNetworkSettings(NetworkShape):
    """A network of the user's own code (docs/how-to/own-code.md)."""

    use: str = described(..., "Address of the network's class or function, as module:callable.", "network")
    own: Own = own_settings()

    @property
    def dropout(self) -> float:
        """The U-Net's dropout, which it has not: what it drops is its own affair."""
        return 0.0


def _whose_network(values: Any) -> str:
    """Which settings of a network these are: the U-Net's, or those of own code."""
    return OWN_NETWORK if is_own(values.get("use") if isinstance(values, dict) else getattr(values, "use", None)) else UNET


UNET, OWN_NETWORK = "[U-Net]", "[own network]"
AnyNetworkSettings = Annotated[
    Annotated[NetworkSettings, Tag(UNET)] | Annotated[OwnNetworkSettings, Tag(OWN_NETWORK)], Discriminator(_whose_network)
]
_NETWORK: TypeAdapter[NetworkSettings | OwnNetworkSettings] = TypeAdapter(AnyNetworkSettings)


def network_settings(values: Any) -> NetworkSettings | OwnNetworkSettings:
    """A network's settings from their stored form. Raises pydantic's ValidationError for others."""
    return _NETWORK.validate_python(values)


class DiffusionSettings(Choosing):
    """Preconditioning and the noise levels of training (EDM, table 1)."""

    choices = {"weighting": (WEIGHTINGS, "weighting")}

    sigma_data: Positive = described(0.5, "Standard deviation of the images that preconditioning assumes.")
    p_mean: float = described(-1.2, "Mean of ln σ over the noise levels of training.", "mean of ln σ in training")
    p_std: Positive = described(
        1.2, "Standard deviation of ln σ over the noise levels of training.", "standard deviation of ln σ in training"
    )
    weighting: Annotated[str, one_of(WEIGHTINGS)] = described(
        "edm", "Weight λ(σ) of the loss by noise level.", "weight of the loss by noise level"
    )
    snr_limit: Positive = described(5.0, "Largest weight γ of min_snr.", "largest weight of the loss")
    log_variance_features: Annotated[int, Field(ge=0)] = described(
        256,
        "Fourier features of the learned weighting exp(-u(σ)) (rung B), which evens any `weighting` out; 0 leaves it out.",
        "learned log-variance u(σ) of the loss",
    )

    own: Own = own_settings()

    @model_validator(mode="after")
    def _evened(self) -> Self:
        if self.weighting == "min_snr" and self.log_variance_features:
            words = "the learned weighting evens min_snr out again; set log_variance_features to 0, or choose weighting: edm"
            raise contradiction(words, "log_variance_features", "weighting")
        return self


def _in_order(transforms: tuple[str, ...]) -> tuple[str, ...]:
    """The transforms in the order in which images go through them, which no list changes."""
    return tuple(name for name in AUGMENTATIONS if name in transforms)


class AugmentSettings(Settings):
    """EDM's augmentation: images are moved about at random, and the network is told how, so that samples are not (EDM, appendix F.2)."""

    probability: Annotated[float, Field(gt=0, le=1)] = described(
        0.12,
        "Probability of each transform, except xflip, which mirrors half of all images; 0.12 is EDM's for CIFAR-10.",
        "augmented with probability",
    )
    transforms: Annotated[NotEmpty[Annotated[str, one_of(AUGMENTATIONS)]], AfterValidator(once), AfterValidator(_in_order)] = described(
        tuple(AUGMENTATIONS), "What may happen to an image; the order plays no part.", "augmented by"
    )

    @property
    def labels(self) -> int:
        """How many numbers tell the network what happened."""
        return sum(AUGMENTATIONS[name].labels for name in self.transforms)


class TrainingSettings(Choosing):
    """One optimisation: schedule, optimiser, averages. One epoch is one pass over the training images."""

    choices = {"lr_changes": (SCHEDULES, "schedule"), "optimizer": (OPTIMIZERS, "optimizer")}

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = unkeyed(
        ..., "Length of the training in epochs; an experiment may look at any epoch up to it.", "epochs"
    )
    snapshot_every: Count = unkeyed(100, "Epochs between snapshots, if the experiment names no epochs.", "epochs between snapshots")
    batch: Count = described(..., "Images in one optimiser step, over all processes.", "batch")
    lr: Positive = described(..., "Learning rate after the warm-up.", "learning rate")
    warmup_epochs: Annotated[float, Field(ge=0)] = described(
        0.0, "Epochs over which the learning rate rises from 0; whole if lr_changes is every_epoch.", "warm-up, in epochs"
    )
    t_ref_epochs: Positive | None = described(
        None,
        "Epoch after which the rate falls as lr / √(epoch / t_ref_epochs); null keeps it constant.",
        "learning rate falls with the root of the time from epoch",
    )
    lr_changes: Annotated[str, one_of(SCHEDULES)] = described(
        "every_epoch",
        "Schedule of the learning rate: falling with t_ref_epochs, by whole epochs or at every step; `cosine`; or `constant`.",
        "learning rate changes",
    )
    lr_end: Annotated[float, Field(ge=0, le=1)] = described(0.0, "Share of `lr` at which `cosine` ends.", "learning rate ends at the share")
    lr_end_epoch: Positive | None = described(
        None,
        "Epoch at which `cosine` has come to its end, and after which the rate stays; null is `epochs`.",
        "learning rate ends at epoch",
    )
    loss_reduction: Literal["mean", "sum"] = described(
        "mean",
        "Whether the loss is averaged or summed over an image's elements; a sum needs no loss scaling in fp16.",
        "loss over an image's elements",
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = described(
        "adam", "Way from gradients to steps; `muon` is for matrices and kernels, beside Adam for all else.", "optimizer"
    )
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = described((0.9, 0.999), "Adam's two betas.", "Adam's betas")
    momentum: Share = described(0.95, "Muon's momentum.", "Muon's momentum")
    weight_decay: Annotated[float, Field(ge=0)] = described(
        0.0, "Share of matrices and kernels that a step takes away, times the learning rate; adamw has 0.01 by default.", "weight decay"
    )
    clip_norm: Positive | None = described(
        None,
        "Norm of the gradient of all weights together above which it is scaled down to it; null leaves it.",
        "gradient clipped to norm",
    )
    flip: bool = described(False, "Whether images are mirrored at random.", "random flips")
    augment: AugmentSettings | None = described(
        None, "Augmentation of which the network is told; null leaves images as they are.", "augmentation"
    )
    label_dropout: Share = described(
        0.0, "Share of images that a class-conditional network sees without their class, for classifier-free guidance.", "classes left out"
    )
    ema_beta: Share | None = described(
        0.9993, "Decay per step of the fixed EMA, which begins with ema-pytorch's warm-up; null keeps no such average.", "fixed EMA's beta"
    )
    ema_sigma_rel: Widths = described((0.05, 0.10), "Relative widths of the power-function averages that snapshots hold (EDM2, section 3).")
    average_every: Count | None = unkeyed(
        None, "Epochs between averages stored for mixing other widths; null spreads 64 over the training.", "epochs between stored averages"
    )
    precision: Precision = described("fp32", "Precision of the network's forward and backward in training.", "precision of training")
    exact: bool = described(
        False, "Whether training is plain float32 without TF32, by deterministic kernels, with nothing compiled.", "exactly in float32"
    )
    compile: Compile = unkeyed("auto", "Whether torch.compile is used in training; `auto` does so on a GPU where it saves time.")
    micro_batch: Count | None = unkeyed(None, "Images that a process holds at once; null is its whole share of the batch.")
    grad_checkpoint: bool = unkeyed(False, "Whether activations are computed again in the backward, which needs less memory and more time.")

    own: Own = own_settings()

    @model_validator(mode="before")
    @classmethod
    def _ends(cls, values: Any) -> Any:
        """The cosine ends with the training."""
        if isinstance(values, dict) and values.get("lr_changes") == "cosine" and values.get("lr_end_epoch") is None:
            return {**values, "lr_end_epoch": values.get("epochs")}
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_exact(self.exact, self.precision)
        if self.lr_changes == "every_epoch" and self.warmup_epochs % 1:
            words = f"{self.warmup_epochs:g} is not whole; choose a whole number, or lr_changes: every_step"
            raise contradiction(words, "warmup_epochs")
        if self.lr_end_epoch is not None and self.lr_end_epoch <= self.warmup_epochs:
            words = f"the warm-up of {self.warmup_epochs:g} epochs is not over when the rate is to end, at epoch {self.lr_end_epoch:g}"
            raise contradiction(words, "lr_end_epoch", "warmup_epochs")
        if self.flip and self.augment:
            words = "flips would be random without the network knowing; augment has xflip, of which it is told, so leave flip out"
            raise contradiction(words, "flip", "augment")
        if self.exact and self.optimizer == "muon":
            words = "torch's Muon computes in bfloat16, which exact rules out; choose another optimizer, or leave exact out"
            raise contradiction(words, "exact", "optimizer")
        return self

    def stored_epochs(self, last: int) -> list[int]:
        """The epochs up to `last` at whose end averages are stored for mixing others: evenly over the training, at most one an epoch."""
        spacing = float(self.average_every or max(self.epochs / STORED_AVERAGES, 1))
        return [epoch for number in range(1, int(last / spacing) + 2) if (epoch := int(number * spacing + 0.5)) <= last]


class GuideSettings(Settings):
    """The guide of autoguidance: a snapshot of the same training, or of another one of the experiment."""

    recipe: str | None = described(
        None, "Recipe of the experiment whose training the guide is of; null is the guided one.", "guide's recipe"
    )
    seed: Annotated[int, Field(ge=0)] | None = described(None, "Seed of the guide's training; null is the guided one's.", "guide's seed")
    epoch: Count | None = described(None, "Completed epochs of the guide; null is as many as the guided network has.", "guide's epoch")
    ema: Ema | None = described(None, "Average that guides; null is the one that is sampled from.", "guide's average")

    @property
    def words(self) -> str:
        """What it names, in words: digits/E, epoch 200, EMA 0.100."""
        named = {"": self.recipe, "seed ": self.seed, "epoch ": self.epoch, "EMA ": self.ema}
        return ", ".join(f"{what}{value}" for what, value in named.items() if value is not None)

    @model_validator(mode="after")
    def _another(self) -> Self:
        if not self.words:
            raise ValueError("it names nothing, so the network would guide itself; name an epoch, an average, a recipe or a seed")
        return self


class GuidanceSettings(Settings):
    """Denoised images are pushed away from those of a guide: guide + weight · (denoised − guide)."""

    weight: Annotated[float, Field(ge=0)] = described(..., "How far; 1 is drawn without guidance.", "guidance's weight")
    guide: GuideSettings | None = described(
        None, "A worse network that guides (autoguidance); null is the network itself without the class (classifier-free).", "guide"
    )
    interval: Annotated[tuple[Annotated[float, Field(ge=0)], Positive], Field(strict=False)] | None = described(
        None, "Lowest and highest noise level σ at which images are guided; null guides at all.", "guided noise levels"
    )

    def applies_at(self, level: float) -> bool:
        """Whether images are guided at this noise level σ."""
        return self.interval is None or self.interval[0] <= level <= self.interval[1]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.interval and self.interval[0] > self.interval[1]:
            raise contradiction("the lowest noise level stands first", "interval")
        return self


class SampleSettings(Choosing):
    """The sampler and how many images it draws."""

    choices = {"solver": (SOLVERS, "solver")}

    count: Count = described(50_000, "Images in one set of samples.", "samples")
    solver: Annotated[str, one_of(SOLVERS)] = described(
        "heun", "Way from noise to an image; `heun` is EDM's algorithm 2, `euler` is DDIM (docs/explanation/evaluation.md).", "solver"
    )
    order: Annotated[int, Field(ge=1, le=3)] = described(3, "Order of unipc's predictor.", "order of the solver's predictor")
    steps: Annotated[int, Field(ge=2)] = described(
        18,
        "Noise levels of the sampler; heun evaluates the network 2 · steps − 1 times, other built-in solvers `steps` times.",
        "sampler's steps",
    )
    schedule: NoiseSchedule = described(
        "karras",
        "Spacing of the noise levels; `uniform_logsnr` is even in ln σ; or all levels, such as [80, 5, 0.1].",
        "spacing of the sampler's noise levels",
    )
    sigma_min: Positive = described(0.002, "Lowest noise level σ above 0.")
    sigma_max: Annotated[float, Field(gt=0, le=1e6)] = described(80.0, "Highest noise level σ, at which sampling begins.")
    rho: Positive = described(7.0, "Exponent ρ that spaces the noise levels of `karras`; a larger one puts more of them at low noise.")
    eta: Annotated[float, Field(ge=0)] = described(
        0.0, "Share of the noise of heun's churn, or of dpmpp_2m_sde's diffusion (there 1 by default); 0 is deterministic."
    )
    s_min: Annotated[float, Field(ge=0)] = described(0.01, "Lowest σ at which heun churns noise.")
    s_max: Positive = described(1.0, "Highest σ at which heun churns noise.")
    s_noise: Positive = described(1.007, "Standard deviation of the noise that churning adds.")
    guidance: GuidanceSettings | None = described(None, "Guidance while sampling; null draws without.", "guidance")
    clip: bool = described(
        True, "Whether denoised images are clipped to the data's range at every evaluation.", "denoised images clipped while sampling"
    )
    state: Literal["fp64", "fp32"] = described(
        "fp64", "Precision in which the sampler adds up its steps; the network's input is float32.", "precision of the sampler's state"
    )
    seed: Annotated[int, Field(ge=0, lt=2**64)] = described(0, "Seed of the latents, which is independent of the training's seed.")
    draws: Annotated[int, Field(ge=1, le=1000)] = described(1, "Independent sets of `count` images.")
    ema: NotEmpty[Ema] = described(
        ("fixed",), "Averages to sample from: `fixed`, or relative widths such as 0.05.", "averages sampled from"
    )
    precision: Precision = described("fp32", "Precision of the network while sampling.", "precision of sampling")
    exact: bool = described(
        False,
        "Whether sampling is plain float32 without TF32, by deterministic kernels, with nothing compiled.",
        "sampled exactly in float32",
    )
    compile: Compile = unkeyed("auto", "Whether torch.compile is used in sampling; `auto` does so on a GPU where it saves time.")
    batch: Count = unkeyed(400, "Images that one process draws at once.")
    shard: Count = unkeyed(2000, "Images in one stored file.")
    own: Own = own_settings()

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels above 0, to rounding, for counting; those that the sampler goes through are `levels_of` in diffusion."""
        if isinstance(self.schedule, tuple):
            return self.schedule
        into, back = (math.log, math.exp) if self.schedule == "uniform_logsnr" else (lambda s: s ** (1 / self.rho), lambda s: s**self.rho)
        high, low = into(self.sigma_max), into(self.sigma_min)
        return tuple(back(high + i / (self.steps - 1) * (low - high)) for i in range(self.steps))

    @property
    def guided_evaluations(self) -> int:
        """How many of an image's evaluations are guided, and so are two. Churn, which raises noise levels a little, is left out.

        Raises ValueError for an own solver, whose evaluations are counted instead (`evaluated_levels` in diffusion/solvers.py).
        """
        if self.guidance is None:
            return 0
        inside = [self.guidance.applies_at(level) for level in self.levels]
        return inside[0] + SOLVERS[self.solver].each_step * sum(inside[1:])

    @property
    def evaluations(self) -> int:
        """The network's evaluations for an image; each guided one counts double. Raises ValueError for an own solver."""
        return SOLVERS[self.solver].total(self.steps) + self.guided_evaluations

    @field_validator("guidance")
    @classmethod
    def _guides(cls, guidance: GuidanceSettings | None) -> GuidanceSettings | None:
        """A weight of 1 is drawing without guidance, whatever the guide and the noise levels."""
        return None if guidance is None or guidance.weight == 1 else guidance

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, values: Any) -> Any:
        """The number and both ends of noise levels given as a list."""
        levels = values.get("schedule") if isinstance(values, dict) else None
        if levels is not None and falls(levels):
            return {"steps": len(levels), "sigma_max": levels[0], "sigma_min": levels[-1], **values}
        return values

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise contradiction(f"{self.sigma_min} is not below {self.sigma_max}", "sigma_min", "sigma_max")
        if isinstance(self.schedule, tuple):
            for name, value in (("steps", len(self.schedule)), ("sigma_max", self.schedule[0]), ("sigma_min", self.schedule[-1])):
                if getattr(self, name) != value:
                    raise contradiction(f"the listed noise levels have {name} {value:g}; leave {name} out", name, "schedule")
        check_exact(self.exact, self.precision)
        if self.schedule != "karras" and self.rho != type(self).model_fields["rho"].default:
            raise contradiction("the schedule 'karras' alone has one; leave it out", "rho", "schedule")
        return self


_FX: dict[str, Any] = {"epochs": 15, "batch": 512, "lr": 4e-3, "flip": True, "crop": 0, "validation_share": 0.1, "features": "fresh"}
PROTOCOLS = {"fx": _FX, "ddae": {**_FX, "crop": 4}}  # published probes, and the settings that they fix
PROTOCOLS_IN_WORDS = {
    "fx": "FutureXiang/edm2's: 4 GPUs of 128 images, flips, fresh noise, nothing held out",
    "ddae": "DDAE's: FutureXiang/edm2's, with random crops out of 4 pixels of padding",
}


class ProbeSettings(Settings):
    """Linear probe on the denoiser's features (DDAE); more than one t or block makes it a grid."""

    protocol: Literal["own", "fx", "ddae"] = described(
        "own", "How a grid's cell is chosen: on held-out training images, or on the test images as `fx` and `ddae` do.", "probe's protocol"
    )
    t: NotEmpty[Annotated[int, Field(ge=1, le=18)]] = described(
        (4,), "Noise levels, each counted from the smallest positive one of the 18-step schedule.", "probe's noise levels t"
    )
    blocks: NotEmpty[str] = described(
        ("out_6",), "Decoder blocks whose features are probed: out_1, out_2 and so on, or `all`.", "probe's blocks"
    )
    epochs: Count = described(15, "Epochs that a linear head trains for.", "probe's epochs")
    batch: Count = described(512, "Images in one step of a head, over all processes.", "probe's batch")
    lr: Positive = described(
        4e-3, "Learning rate of a head for that batch; 4e-3 is FX's 1e-3 on 4 GPUs of 128 images.", "probe's learning rate"
    )
    flip: bool = described(True, "Whether images are mirrored at random.", "probe's random flips")
    crop: Annotated[int, Field(ge=0)] = described(
        0, "Pixels of black padding out of which images are cropped at random; 0 crops nothing.", "probe's random crops, pixels of padding"
    )
    features: Literal["cached", "fresh"] | None = described(
        None, "Whether features are computed once or anew in every epoch; null caches them for a grid.", "probe's features"
    )
    cached_draws: Count = described(2, "Draws of noise for which features are cached, every second one mirrored if `flip` is on.")
    validation_share: Annotated[float, Field(gt=0, lt=1)] = described(
        0.1, "Share of the training images, alike in each class, on which a grid's cell is chosen."
    )
    seeds: Seeds = described((0,), "Seeds of heads, order and noise; results are means over them.", "probe's seeds")
    ema: Ema = described("fixed", "Average that is probed.", "average probed")
    precision: Precision = described("fp32", "Precision of the network while probing.", "precision of probing")
    exact: bool = described(False, "Whether probing is plain float32 without TF32, by deterministic kernels.", "probed exactly in float32")
    knn: Annotated[int, Field(ge=0)] = described(0, "Neighbours of a k-NN classifier on the same features, 20 as DINO's; 0 leaves it out.")
    few_shot: Shares = described((), "Shares of the training labels; for each, one more probe knows only so many.")

    @property
    def grid(self) -> bool:
        """Whether a cell has to be chosen."""
        return len(set(self.t)) > 1 or len(set(self.blocks)) > 1 or "all" in self.blocks

    @property
    def cached(self) -> bool:
        """Whether heads are trained on features that are computed once."""
        return self.features == "cached" or (self.features is None and self.holds_out)

    @property
    def holds_out(self) -> bool:
        """Whether part of the training images serves only to choose the cell."""
        return self.grid and self.protocol == "own"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """A protocol's crops are its own default."""
        if isinstance(values, dict) and (protocol := PROTOCOLS.get(str(values.get("protocol")))):
            return {"crop": protocol["crop"], **values}
        return values

    @model_validator(mode="after")
    def _as_published(self) -> Self:
        if protocol := PROTOCOLS.get(self.protocol):
            here = self.model_copy(update={"features": self.features or "fresh"})
            fixed = {name: value for name, value in protocol.items() if getattr(here, name) != value}
            if fixed:
                has = ", ".join(f"{name} {_in_yaml(value)}" for name, value in fixed.items())
                set_to = ", ".join(f"{name} {_in_yaml(getattr(self, name))}" for name in fixed)
                words = f"protocol '{self.protocol}' has {has}, and here stands {set_to}; leave one of them out"
                raise ValueError(f"{words} (it is {PROTOCOLS_IN_WORDS[self.protocol]})")
        check_exact(self.exact, self.precision)
        return self


def _in_yaml(value: float | str) -> str:
    return str(value).lower() if isinstance(value, bool | str) else f"{value:g}"


class DiagnosticsSettings(Settings):
    """A look into a snapshot: magnitudes by level, u(σ), the loss by noise level on training and held-out images."""

    images: Count = described(1024, "Images of each split, training and test.")
    levels: Annotated[int, Field(ge=2)] = described(16, "Noise levels from 0.002 to 80, evenly in ln σ.")
    ema: Ema | None = described(None, "Average that is looked into; null takes the probe's.", "average looked into")
    batch: Count = unkeyed(256, "Images that one process holds at once.")


class StartSettings(Settings):
    """A checkpoint of FutureXiang/edm2 that training goes on from instead of beginning anew."""

    checkpoint: str = unkeyed(..., "Path of the checkpoint, a model_<epoch>.pth.")
    epoch: Count | None = described(
        None, "Completed epochs of the checkpoint; null takes them from the file's name (model_9.pth has 10), else from its step."
    )

    @property
    def completed(self) -> int | None:
        """The completed epochs, if they are known without opening the file."""
        name = re.search(r"(?:^|/)model_(\d+)\.pth$", self.checkpoint)
        return self.epoch or (int(name[1]) + 1 if name else None)


class ReferenceSettings(Settings):
    """Statistics that others took of the same images, instead of our own: an .npz with mu and sigma, as NVlabs and pytorch-fid write."""

    source: str = unkeyed(..., "Path of the .npz file, with mu and sigma.")
    extractor: Annotated[str, one_of(WEIGHTS)] = described(..., "Extractor whose features the statistics are of.")
    count: Count = described(..., "Images that the statistics were taken of, which must be all training images.")
    resolution: Count = described(..., "Side of those images in pixels.")
    origin: Annotated[str, Field(min_length=1)] = unkeyed(..., "Where the statistics come from, in words for every table.")


class CalibrationSettings(Settings):
    """What an extractor's features and our own reference are compared with."""

    against: Literal["statistics", "test", "images"] = described(
        ..., "What ours are compared with: others' statistics of the training images, the test images, or a model's images."
    )
    name: str = described("", "What the statistics or images are and where they come from, in words.")
    expected: float | None = described(None, "Distance that was published for the images.")
    tolerance: Positive | None = described(None, "Difference from the published distance that is accepted.")


class Recipe(Settings):
    """Everything about one training and how its snapshots are evaluated."""

    name: str = described(..., "Name of the recipe, such as cifar10/E.")
    data: DataSettings = described(..., "Where images come from.")
    network: AnyNetworkSettings = described(..., "The network.")
    diffusion: DiffusionSettings = described(DiffusionSettings(), "Preconditioning and noise levels of training.")
    training: TrainingSettings = described(..., "One optimisation.")
    start: StartSettings | None = described(None, "Checkpoint that training goes on from; null begins anew.")
    sample: SampleSettings = described(SampleSettings(), "How images are drawn.")
    reference: ReferenceSettings | None = described(None, "Others' statistics to compare with; null takes our own of the training images.")
    probe: ProbeSettings = described(ProbeSettings(), "Linear probes on the features.")
    diagnostics: DiagnosticsSettings = described(DiagnosticsSettings(), "A look into a snapshot.")

    @property
    def unet(self) -> NetworkSettings:
        """The settings of the network, where it is the U-Net, as in every bundled recipe. Raises TypeError for own code."""
        if isinstance(self.network, OwnNetworkSettings):
            raise TypeError(f"{self.name} has a network of own code")
        return self.network

    @property
    def diagnosed_ema(self) -> str:
        """The average that diagnostics look into."""
        return self.diagnostics.ema or self.probe.ema

    @property
    def starts_after(self) -> int:
        """Completed epochs of the checkpoint that training starts from; 0 if it begins anew or the file alone knows them."""
        return (self.start.completed if self.start else None) or 0

    def is_mixed(self, ema: str) -> bool:
        """Whether an average has to be mixed from stored ones, since snapshots do not hold it."""
        return ema not in ("fixed", *(f"{width:.3f}" for width in self.training.ema_sigma_rel))

    @model_validator(mode="before")
    @classmethod
    def _told(cls, values: Any) -> Any:
        """Augmentation tells the network how many labels it has."""
        training, network = (values.get(section) if isinstance(values, dict) else None for section in ("training", "network"))
        augment = training.get("augment") if isinstance(training, dict) else None
        if not isinstance(augment, dict) or not isinstance(network, dict):
            return values
        with suppress(ValidationError):  # which is told where it stands
            return {**values, "network": {"augment_labels": AugmentSettings.model_validate(augment).labels, **network}}
        return values

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        labels = self.training.augment.labels if self.training.augment else 0
        if self.network.augment_labels != labels:
            words = f"it follows from training.augment, which has {labels}; leave it out"
            raise contradiction(words, "network.augment_labels", "training.augment")
        if self.start and labels:
            words = "such a checkpoint's network cannot be told of augmentation; leave one of them out"
            raise contradiction(words, "training.augment", "start")
        emas = {"sample": self.sample.ema, "probe": (self.probe.ema,), "diagnostics": (self.diagnosed_ema,)}
        for section, names in emas.items():
            if self.training.ema_beta is None and "fixed" in names:
                words = "there is no fixed EMA where its beta is none; name a width, such as '0.050'"
                raise contradiction(words, f"{section}.ema", "training.ema_beta")
        if self.training.label_dropout and not self.network.classes:
            words = "an unconditional network has no classes to leave out; set network.classes"
            raise contradiction(words, "training.label_dropout", "network.classes")
        if self.sample.guidance and not self.sample.guidance.guide and not self.training.label_dropout:
            words = (
                "without a guide it takes a network that also saw images without their class; set network.classes and "
                "training.label_dropout: 0.1, or name a guide, such as guide: {epoch: 10}"
            )
            raise contradiction(words, "sample.guidance", "training.label_dropout")
        if self.start and self.data.standardize:
            words = "such a checkpoint was trained on images in [-1, 1], which standardising changes"
            raise contradiction(words, "start", "data.standardize")
        if self.start and self.training.ema_beta is None:
            words = "such a checkpoint's average is the fixed EMA, which a beta of none leaves out"
            raise contradiction(words, "start", "training.ema_beta")
        if self.reference and self.reference.resolution != self.network.resolution:
            words = f"the statistics are of images of {self.reference.resolution} pixels, the network of {self.network.resolution}"
            raise contradiction(words, "reference.resolution", "network.resolution")
        images = self.data.facts.train
        if self.reference and images and self.reference.count != images:
            words = f"it is of {self.reference.count} images, {self.data.format} has {images} for training"
            raise contradiction(words, "reference.count")
        return self

    @property
    def dataset(self) -> str:
        """The data set's name in titles and tables: the part before the last of the recipe's name."""
        return self.name.rpartition("/")[0].rpartition("/")[2] or self.name


class TrajectorySettings(Settings):
    """What decides a training, whatever its length and wherever it runs."""

    network: AnyNetworkSettings
    diffusion: DiffusionSettings
    training: TrainingSettings
    seed: int


class CheckpointSettings(Settings):
    """What decides how another implementation's checkpoint is read."""

    network: AnyNetworkSettings
    diffusion: DiffusionSettings
    epoch: int | None  # completed; none: by its step
