"""Typed settings of a recipe, section by section."""

import re
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from edm2core.config.fields import (
    Colour,
    Compile,
    Count,
    Counts,
    Digest,
    Ema,
    GroupNormKind,
    Init,
    Levels,
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
    one_of,
    unkeyed,
)
from edm2core.registry import FORMATS, NETWORKS, SCHEDULES, SOLVERS, WEIGHTINGS, WEIGHTS, DataFormat

STORED_AVERAGES = 64  # in a training that does not set average_every


def check_exact(exact: bool, precision: Precision) -> None:
    """Raises an error if `exact` is set together with half precision."""
    if exact and precision != "fp32":
        raise contradiction(f"exact means fp32, it is {precision}; leave one of them out", "exact", "precision")


class DataSettings(Settings):
    """Where images come from and how they become arrays."""

    format: Annotated[str, one_of(FORMATS)]
    source: str | None = unkeyed(None)  # path or URL; digits come with scikit-learn
    digest: Digest | None = None
    resolution: Count | None = None  # images: side after centre crop and resize
    test_share: Share = 0.2  # of each class, kept for test: of digits, and of images without a test folder
    background: Colour = (255, 255, 255)  # images: the colour behind transparent pixels
    channels: Literal[1, 3] = 3  # images: 1 makes them grey; not set: as many as network.image_channels
    standardize: bool = False  # to mean 0 and standard deviation sigma_data instead of [-1, 1]

    @property
    def facts(self) -> DataFormat:
        """The format's line in the registry, which is known before any data are opened."""
        return FORMATS[self.format]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.facts.builtin and not self.source:
            raise contradiction(f"the format '{self.format}' needs a path or URL", "source")
        if self.facts.shape is None and self.resolution is None:
            brought = "images are brought to" if self.facts.resized else "its images have"
            raise contradiction(f"the format '{self.format}' needs the side in pixels that {brought}", "resolution")
        if self.source and self.source.startswith(("http://", "https://")) and not self.digest:
            raise contradiction("a URL needs 'sha256:…' or 'md5:…' of what it must deliver", "digest")
        return self


class NetworkSettings(Settings):
    """The U-Net. Defaults are FutureXiang/edm2's config C; switches make the other configs and the paper's (docs/recipes.md)."""

    use: Annotated[str, one_of(NETWORKS)] = "unet"  # the family of networks
    resolution: Count  # side of the square input, pixels
    image_channels: Count = 3
    classes: Annotated[int, Field(ge=0)] = 0  # class-conditional with so many classes; 0: unconditional
    channels: Count  # width of the first level
    multipliers: Counts  # width of each level, times `channels`
    blocks: Annotated[int, Field(ge=2)]  # decoder blocks a level; the encoder has one fewer
    attention_resolutions: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    attention_head_channels: Count | None = None  # none: one head with all channels
    attention_norm: Literal["pixel", "group"] = "pixel"  # pixel norm of queries, keys and values; or group norm before them, as in ADM
    dropout: Share = 0.0
    weights: Weights = "plain"  # normalized: in the forward (rung D); forced: there, and in place before a training step (rung E)
    init: Init | None = None  # of plain weights; none: torch's; he: uniform of variance 2/fan_in; adm: as torch's, zero where a branch ends
    biases: bool = False  # of every map; they replace the constant-one input channel
    noise_features: Literal["fourier", "positional"] = "fourier"
    embedding_width: Literal["fourfold", "widest"] = "fourfold"  # 4 x channels, or those of the widest level
    embedding_gain: float = 1.0  # start of the learned gains on the embedding (rung G)
    conditioning: Literal["scale", "scale_and_shift"] = "scale"  # what the embedding does to each channel
    norm: GroupNormKind | Literal["pixel"] = "group"  # group_rms: it only scales (rung C); pixel: no GroupNorm (rung F)
    pixel_epsilon: PixelEpsilon = "inside"  # sqrt(mean square + 1e-8), or outside: 1e-4 + root mean square
    middle: Literal["encoder", "decoder"] = "encoder"  # the kind of the two blocks between encoder and decoder
    magnitude_preserving: bool = False  # mp-SiLU, mp-sum, mp-concat, sqrt(2) Fourier, learned gains (rung G)
    clip: Positive | None = None  # clamp of every block's output, for half precision

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


class DiffusionSettings(Settings):
    """Preconditioning and the noise levels of training (EDM, table 1)."""

    sigma_data: Positive = 0.5
    p_mean: float = -1.2  # mean of ln sigma
    p_std: Positive = 1.2  # standard deviation of ln sigma
    weighting: Annotated[str, one_of(WEIGHTINGS)] = "edm"  # of the loss by noise level: lambda(sigma)
    log_variance_features: Annotated[int, Field(ge=0)] = 256  # Fourier features of the learned u(sigma) (rung B); 0: no u(sigma)


class TrainingSettings(Settings):
    """One optimisation: schedule, optimiser, averages. One epoch is one pass over the training images."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = unkeyed(...)  # length; an experiment may evaluate any epoch up to it
    snapshot_every: Count = unkeyed(100)  # epochs between snapshots, if the experiment names no epochs
    batch: Count  # images in one optimiser step, over all processes
    lr: Positive
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0  # a whole number if lr_changes is every_epoch
    t_ref_epochs: Positive | None = None  # lr / sqrt(max(epoch / t_ref, 1)) after warm-up; none: constant
    lr_changes: Annotated[str, one_of(SCHEDULES)] = "every_epoch"  # every_step: the schedule follows the images seen
    loss_reduction: Literal["mean", "sum"] = "mean"  # over an image's elements; sum: larger gradients, so fp16 needs no loss scaling
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.999)
    flip: bool = False  # random horizontal flips
    ema_beta: Share | None = 0.9993  # of the fixed EMA (ema-pytorch's, its warm-up included); none: no such average
    ema_sigma_rel: Widths = (0.05, 0.10)  # power-function averages (EDM2, section 3)
    average_every: Count | None = unkeyed(None)  # epochs between averages stored for mixing others; none: 64 over `epochs`
    precision: Precision = "fp32"  # of the network's forward and backward (autocast)
    exact: bool = False  # float32 without TF32, deterministic kernels, nothing compiled
    compile: Compile = unkeyed("auto")  # torch.compile; auto: on a GPU, if it saves more time than it takes
    micro_batch: Count | None = unkeyed(None)  # images a process holds at once; none: its whole share of the batch
    grad_checkpoint: bool = unkeyed(False)  # each block's activations are computed again in the backward instead of being kept

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_exact(self.exact, self.precision)
        if self.lr_changes == "every_epoch" and self.warmup_epochs % 1:
            words = f"{self.warmup_epochs:g} is not whole; choose a whole number, or lr_changes: every_step"
            raise contradiction(words, "warmup_epochs")
        return self

    def stored_epochs(self, last: int) -> list[int]:
        """The epochs up to `last` at whose end averages are stored for mixing others: evenly over the training, at most one an epoch."""
        spacing = float(self.average_every or max(self.epochs / STORED_AVERAGES, 1))
        return [epoch for number in range(1, int(last / spacing) + 2) if (epoch := int(number * spacing + 0.5)) <= last]


class SampleSettings(Settings):
    """The sampler and how many images it draws."""

    count: Count = 50_000
    solver: Annotated[str, one_of(SOLVERS)] = "heun"  # EDM, algorithm 2
    steps: Annotated[int, Field(ge=2)] = 18  # noise levels; heun evaluates the network 2 * steps - 1 times
    sigma_min: Positive = 0.002
    sigma_max: Annotated[float, Field(gt=0, le=1e6)] = 80.0
    rho: Positive = 7.0
    eta: Annotated[float, Field(ge=0)] = 0.0  # share of the stochastic churn; 0 is deterministic
    s_min: Annotated[float, Field(ge=0)] = 0.01
    s_max: Positive = 1.0
    s_noise: Positive = 1.007
    clip: bool = True  # denoised images clipped to the data's range in every evaluation
    state: Literal["fp64", "fp32"] = "fp64"  # precision of what the steps add up; the network's input is float32
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0  # of the latents; never the training seed
    draws: Annotated[int, Field(ge=1, le=1000)] = 1  # independent sets of `count` images
    ema: Annotated[tuple[Ema, ...], Field(strict=False, min_length=1)] = ("fixed",)  # averages to sample from
    precision: Precision = "fp32"
    exact: bool = False  # float32 without TF32, deterministic kernels, nothing compiled
    compile: Compile = unkeyed("auto")  # torch.compile; auto: on a GPU, if it saves more time than it takes
    batch: Count = unkeyed(400)  # images at once on one process
    shard: Count = unkeyed(2000)  # images in one stored file

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise contradiction(f"{self.sigma_min} is not below {self.sigma_max}", "sigma_min", "sigma_max")
        check_exact(self.exact, self.precision)
        return self


class Protocol(NamedTuple):
    """A published probe and the settings that it fixes."""

    words: str
    settings: dict[str, Any]


_FX: dict[str, Any] = {"epochs": 15, "batch": 512, "lr": 4e-3, "flip": True, "crop": 0, "validation_share": 0.1, "features": "fresh"}
PROTOCOLS = {
    "fx": Protocol("FutureXiang/edm2's: 4 GPUs of 128 images, flips, fresh noise, nothing held out", _FX),
    "ddae": Protocol("DDAE's: FutureXiang/edm2's, with random crops out of 4 pixels of padding", {**_FX, "crop": 4}),
}


class ProbeSettings(Settings):
    """Linear probe on the denoiser's features (DDAE); more than one t or block makes it a grid."""

    protocol: Literal["own", "fx", "ddae"] = "own"  # own: a grid's cell is chosen on held-out images; fx, ddae: on the test images
    t: Levels = (4,)  # noise levels: the t-th smallest positive one of the 18-step schedule
    blocks: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("out_6",)  # decoder blocks out_1 …; "all"
    epochs: Count = 15
    batch: Count = 512  # over all processes
    lr: Positive = 4e-3  # for that batch: FX's 1e-3 x 4 GPUs of 128
    flip: bool = True
    crop: Annotated[int, Field(ge=0)] = 0  # random crops out of so many pixels of black padding; 0: none
    features: Literal["cached", "fresh"] | None = None  # computed once for `cached_draws`, or anew every epoch; none: cached for a grid
    cached_draws: Count = 2  # of noise, every second one mirrored where there are flips
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1  # stratified part of the training images that a grid's cell is chosen on
    seeds: Seeds = (0,)  # of heads, order and noise; results are means over them
    ema: Ema = "fixed"
    precision: Precision = "fp32"
    exact: bool = False  # float32 without TF32, deterministic kernels
    knn: Annotated[int, Field(ge=0)] = 0  # neighbours of a k-NN classifier on the same features, 20 as DINO's; 0: none
    few_shot: Shares = ()  # for each share, one more probe that knows only this share of the training labels

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
            return {"crop": protocol.settings["crop"], **values}
        return values

    @model_validator(mode="after")
    def _as_published(self) -> Self:
        if protocol := PROTOCOLS.get(self.protocol):
            here = self.model_copy(update={"features": self.features or "fresh"})
            fixed = {name: value for name, value in protocol.settings.items() if getattr(here, name) != value}
            if fixed:
                has = ", ".join(f"{name} {_in_yaml(value)}" for name, value in fixed.items())
                set_to = ", ".join(f"{name} {_in_yaml(getattr(self, name))}" for name in fixed)
                raise ValueError(
                    f"protocol '{self.protocol}' has {has}, and here stands {set_to}; leave one of them out (it is {protocol.words})"
                )
        check_exact(self.exact, self.precision)
        return self


def _in_yaml(value: float | str) -> str:
    return str(value).lower() if isinstance(value, bool | str) else f"{value:g}"


class DiagnosticsSettings(Settings):
    """A look into a snapshot: magnitudes by level, u(σ), the loss by noise level on training and held-out images."""

    images: Count = 1024  # of each split
    levels: Annotated[int, Field(ge=2)] = 16  # noise levels from 0.002 to 80, evenly in ln sigma
    ema: Ema | None = None  # none: the probe's
    batch: Count = unkeyed(256)


class StartSettings(Settings):
    """A checkpoint of FutureXiang/edm2 that training goes on from instead of beginning anew."""

    checkpoint: str = unkeyed(...)  # path of a model_<epoch>.pth
    epoch: Count | None = None  # completed; none: e + 1 for a file model_<e>.pth, else by the step in the file

    @property
    def completed(self) -> int | None:
        """The completed epochs, if they are known without opening the file."""
        name = re.search(r"(?:^|/)model_(\d+)\.pth$", self.checkpoint)
        return self.epoch or (int(name[1]) + 1 if name else None)


class ReferenceSettings(Settings):
    """Statistics that others took of the same images, instead of our own: an .npz with mu and sigma, as NVlabs and pytorch-fid write."""

    source: str = unkeyed(...)  # path of the .npz
    extractor: Annotated[str, one_of(WEIGHTS)]  # of the features
    count: Count  # of images: all training images
    resolution: Count  # side of those images, pixels
    origin: Annotated[str, Field(min_length=1)] = unkeyed(...)  # where they come from, in words for every table


class CalibrationSettings(Settings):
    """What an extractor's features and our own reference are compared with."""

    against: Literal["statistics", "test", "images"]  # others' statistics of the training images; the test images; a model's images
    name: str = ""  # what the statistics or images are and where they come from, in words
    expected: float | None = None  # the distance that was published for the images
    tolerance: Positive | None = None  # by which ours may differ from it


class Recipe(Settings):
    """Everything about one training and how its snapshots are evaluated."""

    name: str  # cifar10/E
    data: DataSettings
    network: NetworkSettings
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings
    start: StartSettings | None = None  # none: training begins anew
    sample: SampleSettings = SampleSettings()
    reference: ReferenceSettings | None = None  # none: our own statistics of the training images
    probe: ProbeSettings = ProbeSettings()
    diagnostics: DiagnosticsSettings = DiagnosticsSettings()

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

    @model_validator(mode="after")
    def _averages(self) -> Self:
        emas = {"sample": self.sample.ema, "probe": (self.probe.ema,), "diagnostics": (self.diagnosed_ema,)}
        for section, names in emas.items():
            if self.training.ema_beta is None and "fixed" in names:
                words = "there is no fixed EMA where its beta is none; name a width, such as '0.050'"
                raise contradiction(words, f"{section}.ema", "training.ema_beta")
        return self

    @model_validator(mode="after")
    def _startable(self) -> Self:
        if self.start and self.data.standardize:
            words = "such a checkpoint was trained on images in [-1, 1], which standardising changes"
            raise contradiction(words, "start", "data.standardize")
        if self.start and self.training.ema_beta is None:
            words = "such a checkpoint's average is the fixed EMA, which a beta of none leaves out"
            raise contradiction(words, "start", "training.ema_beta")
        return self

    @model_validator(mode="after")
    def _same_images(self) -> Self:
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

    network: NetworkSettings
    diffusion: DiffusionSettings
    training: TrainingSettings
    seed: int


class CheckpointSettings(Settings):
    """What decides how another implementation's checkpoint is read."""

    network: NetworkSettings
    diffusion: DiffusionSettings
    epoch: int | None  # completed; none: by its step
