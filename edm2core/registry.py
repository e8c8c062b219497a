"""Everything that settings choose by name, and what planning has to know of it: one table a family, one line a choice.

A new metric, solver, data format, … is its code and a line here. A line names its code as "module:callable", which `load`
imports when it is used, so that planning reads these tables without torch, Pillow or scikit-learn.

A setting may also give such an address of the user's own code (docs/how-to/own-code.md), which stands for a line of the usual facts.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, TypeVar

Line = TypeVar("Line")

NOT_OWN = ("edm2core", "components", "pipelines", "edm2")  # packages of this program: their choices go by the names in the tables
_ADDRESS = re.compile(r"(?P<module>(?P<top>[A-Za-z_]\w*)(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


def is_own(name: object) -> bool:
    """Whether a setting's value is the address of the user's own code, "module:callable"."""
    address = _ADDRESS.fullmatch(name) if isinstance(name, str) else None
    return address is not None and address["top"] not in NOT_OWN


def meant_address(text: str) -> str:
    """The address of own code that was meant by a dot in place of the colon, or by a file's name; empty if the text is like no address."""
    dotted = text.replace("/", ".")
    module, _, name = dotted.partition(":") if ":" in text else dotted.rpartition(".")
    address = f"{module.removesuffix('.py')}:{name}"
    return address if address != text and is_own(address) else ""


def own_package(address: str) -> str:
    """The file or package that holds the code of an address: my_science, of "my_science.nets:TinyDiT"."""
    return address.partition(":")[0].partition(".")[0]


class Choices(dict[str, Line]):
    """A family's table. The address of own code is a choice too; `own` makes its line."""

    def __init__(self, lines: Mapping[str, Line], own: Callable[[str], Line]) -> None:
        super().__init__(lines)
        self._own = own

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or is_own(name)

    def __missing__(self, name: str) -> Line:
        if is_own(name):
            return self._own(name)
        raise KeyError(name)


@cache
def load(address: str) -> Any:
    """What "module:callable" names, imported if it is not yet."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


def own_arguments(function: Callable[..., Any], own: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Those of a section's own settings that this callable takes: a section may name two callables."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in own if name in taken}


NETWORKS = {"unet": "edm2core.diffusion.unet:UNet"}
"""Families of networks: (settings) → the module, freshly initialised."""


class Choice(NamedTuple):
    """A choice whose code may take settings of its own."""

    code: str
    options: tuple[str, ...] = ()  # the settings of its section that it takes as keyword arguments, and that others do not have
    defaults: dict[str, Any] = {}  # of settings of its section, where they are other than the section's


WEIGHTINGS = Choices(
    {
        "edm": Choice("edm2core.diffusion.loss:edm"),
        "min_snr": Choice("edm2core.diffusion.loss:min_snr", ("snr_limit",), {"log_variance_features": 0}),
    },
    Choice,
)
"""λ(σ), the weight of the loss at a noise level: functions of the protocol `Weighting` in edm2core/diffusion/loss.py."""

SCHEDULES = Choices(
    {
        "every_epoch": Choice("edm2core.diffusion.schedules:every_epoch", ("t_ref_epochs",)),
        "every_step": Choice("edm2core.diffusion.schedules:every_step", ("t_ref_epochs",)),
        "cosine": Choice("edm2core.diffusion.schedules:cosine", ("lr_end", "lr_end_epoch")),
        "constant": Choice("edm2core.diffusion.schedules:constant"),
    },
    Choice,
)
"""Learning-rate schedules: functions of the protocol `Schedule` in edm2core/diffusion/schedules.py."""

OPTIMIZERS = Choices(
    {
        "adam": Choice("edm2core.diffusion.optimizers:adam", ("betas",)),
        "adamw": Choice("edm2core.diffusion.optimizers:adamw", ("betas", "weight_decay"), {"weight_decay": 0.01}),
        "muon": Choice("edm2core.diffusion.optimizers:Muon", ("betas", "weight_decay", "momentum")),
    },
    Choice,
)
"""Functions of the protocol `Optimizer` in edm2core/diffusion/optimizers.py."""


class Augmentation(NamedTuple):
    """A transform of training images, of which the network is told."""

    draw: str  # a `Transform` of edm2core/diffusion/augmentations.py
    labels: int  # numbers by which the network is told
    mirrors: bool = False  # it only mirrors, which is exact; others are resampled together


AUGMENTATIONS = {
    "xflip": Augmentation("edm2core.diffusion.augmentations:xflip", 1, mirrors=True),
    "yflip": Augmentation("edm2core.diffusion.augmentations:yflip", 1, mirrors=True),
    "scale": Augmentation("edm2core.diffusion.augmentations:scale", 1),
    "rotate": Augmentation("edm2core.diffusion.augmentations:rotate", 2),
    "aniso": Augmentation("edm2core.diffusion.augmentations:aniso", 2),
    "translate": Augmentation("edm2core.diffusion.augmentations:translate", 2),
}
"""EDM's (arXiv 2206.00364, appendix F.2), in the order in which images go through them."""


class Solver(NamedTuple):
    """A way from noise to an image."""

    solve: str  # a function of the protocol `Solver` in edm2core/diffusion/solvers.py
    evaluations: int | None  # of the network in each step; the last step, to σ = 0, takes one. None: own code, which is counted
    options: tuple[str, ...] = ()  # as in `Choice`
    defaults: dict[str, Any] = {}

    @property
    def each_step(self) -> int:
        """The network's evaluations in each step. Raises ValueError for own code, whose evaluations are counted instead."""
        if self.evaluations is None:
            raise ValueError(f"how often '{self.solve}' evaluates the network is counted, not known beforehand")
        return self.evaluations

    def total(self, steps: int) -> int:
        """The network's evaluations in so many steps. Raises ValueError for own code."""
        return self.each_step * (steps - 1) + 1


SOLVERS = Choices(
    {
        "heun": Solver("edm2core.diffusion.solvers:heun", 2, ("eta", "s_min", "s_max", "s_noise")),
        "euler": Solver("edm2core.diffusion.solvers:euler", 1),
        "dpmpp_2m": Solver("edm2core.diffusion.solvers:dpmpp_2m", 1),
        "dpmpp_2m_sde": Solver("edm2core.diffusion.solvers:dpmpp_2m_sde", 1, ("eta",), {"eta": 1.0}),
        "unipc": Solver("edm2core.diffusion.solvers:unipc", 1, ("order",)),
    },
    lambda address: Solver(address, None),
)
SOLVER_OPTIONS = tuple(dict.fromkeys(option for solver in SOLVERS.values() for option in solver.options))

NOISE_SCHEDULES = {
    "karras": "edm2core.diffusion.noise_levels:karras",
    "uniform_logsnr": "edm2core.diffusion.noise_levels:uniform_logsnr",
}
"""Spacings of a sampler's noise levels: (steps, sigma_min, sigma_max, rho) → float64 [steps + 1], falling to 0."""


class MetricFacts(NamedTuple):
    """The facts about a metric that hold in any extractor's features."""

    words: str
    compute: str  # (Compared) → {metric's name: Value}; metrics with the same address are computed together
    needs: Literal["statistics", "features", "classes"] = "features"
    """Beside the samples' features: the training images' mean and covariance, their own features, or the extractor's classes."""
    least_images: int = 6  # that it needs; where it needs `statistics`, one more than the features have dimensions
    higher_is_better: bool = False
    inception: Literal["only", "plain", ""] = ""
    """only: it is defined in Inception's features alone. In these, the results' names of "only" and "plain" metrics say no extractor."""
    words_elsewhere: str = ""  # its name in features other than Inception's, if that is another
    by_class: bool = False  # it needs class-conditional samples, and in each class more images than the features have dimensions


METRICS = Choices(
    {
        "fid": MetricFacts("FID", "edm2core.metrics.statistics:frechet", "statistics", inception="only"),
        "fd": MetricFacts("FD", "edm2core.metrics.statistics:frechet", "statistics"),
        "kid": MetricFacts(
            "KID", "edm2core.metrics.kernel_distance:kernel", least_images=1000, inception="plain", words_elsewhere="Kernel distance"
        ),
        "is": MetricFacts("Inception score", "edm2core.metrics.extractors.inception:score", "classes", 10, True, "only"),
        "precision": MetricFacts("Precision", "edm2core.metrics.neighbours:precision", higher_is_better=True),
        "recall": MetricFacts("Recall", "edm2core.metrics.neighbours:precision", higher_is_better=True),
        "density": MetricFacts("Density", "edm2core.metrics.neighbours:density", higher_is_better=True),
        "coverage": MetricFacts("Coverage", "edm2core.metrics.neighbours:density", higher_is_better=True),
        "memorisation": MetricFacts("Memorised share", "edm2core.metrics.neighbours:memorisation"),
        "fd_by_class": MetricFacts(
            *("FID by class, mean", "edm2core.metrics.statistics:frechet_by_class"), words_elsewhere="FD by class, mean", by_class=True
        ),
        "nn_test": MetricFacts("1-NN test's accuracy, .5 at best", "edm2core.metrics.two_sample:nearest_neighbour_test", least_images=20),
        "nn_test_real": MetricFacts("1-NN test, real images", "edm2core.metrics.two_sample:nearest_neighbour_test", least_images=20),
        "nn_test_fake": MetricFacts("1-NN test, samples", "edm2core.metrics.two_sample:nearest_neighbour_test", least_images=20),
    },
    lambda address: MetricFacts(address.rpartition(":")[2].replace("_", " "), address, least_images=1),
)
"""In the order of tables."""


class Extractor(NamedTuple):
    """A network whose features metrics compare."""

    words: str
    dimensions: int
    library_name: str  # in torch-fidelity's registry, where it is there
    layer: str
    build: str  # (weights by name) → the module
    fit: str = ""  # (prepared data, their name) → the module and facts about it; empty where the user brings a file of weights
    weights: str = ""  # the file of weights that the user brings, by its name in WEIGHT_FILES
    flops: float = 0.0  # for one image, brought to 299 or 224 pixels


EXTRACTORS = {
    "inception": Extractor(
        *("Inception features", 2048, "inception-v3-compat", "2048", "edm2core.metrics.extractors.inception:build"),
        weights="inception",
        flops=11.4e9,
    ),
    "pytorch_fid": Extractor(
        *("Inception features, pytorch-fid's resize", 2048, "inception-v3-compat behind pytorch-fid's resize", "2048"),
        "edm2core.metrics.extractors.inception:build_pytorch_fid",
        weights="inception",
        flops=11.4e9,
    ),
    "dinov2": Extractor(
        *("DINOv2 features", 1024, "dinov2_vitl14", "cls", "edm2core.metrics.extractors.dinov2:build"), weights="dinov2", flops=162e9
    ),
    "digits": Extractor(
        *("digits features", 64, "digits", "64", "edm2core.metrics.extractors.digits:build"), fit="edm2core.metrics.extractors.digits:fit"
    ),
    "filters": Extractor(
        *("filter features", 54, "filters", "all", "edm2core.metrics.extractors.filters:build"),
        fit="edm2core.metrics.extractors.filters:fit",
    ),
}
"""In the order of tables; `pytorch_fid` is Inception behind pytorch-fid's resize, `filters` are for small sets of any images."""
WEIGHTS = {name: extractor.weights for name, extractor in EXTRACTORS.items() if extractor.weights}
INCEPTIONS = tuple(name for name, weights in WEIGHTS.items() if weights == "inception")


class WeightFile(NamedTuple):
    """A file of weights that the user brings."""

    words: str  # the network that the weights are of
    get: str  # where it can be had, and how an experiment or a command names it
    published: str  # the beginning of its digest; empty where none was published
    names: tuple[str, ...]  # of some weights in it
    others: dict[str, str]  # names of weights in files that are easily mistaken for it, and which network has them


INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
WEIGHT_FILES = {
    "inception": WeightFile(
        "Inception",
        f"Download {INCEPTION_URL} and give its path, or give this URL, as `inception_weights:` in the experiment "
        "or --weights of a command.",
        "sha256:6726825d",
        ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight", "fc.weight"),
        {"AuxLogits.fc.weight": "torchvision's, another training of it"},
    ),
    "dinov2": WeightFile(
        "DINOv2 ViT-L/14",
        "Download https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth and give its path as "
        "`dinov2_weights:` in the experiment or --weights of a command.",
        "",
        ("cls_token", "pos_embed", "blocks.23.ls1.gamma"),
        {"blocks.24.ls1.gamma": "of a deeper one", "register_tokens": "of the variant with registers"},
    ),
}


class DataFormat(NamedTuple):
    """A format of image data."""

    read: str  # (the source's Files, own code: its path; None where it needs none, settings) → Images
    shape: tuple[int, int, int] | None = None  # channels and sides of its images; none: data.channels and data.resolution say them
    classes: int | None = None
    train: int | None = None  # images for training, where the number is fixed
    test: int | None = None  # the same for test
    total: int | None = None  # images in all, where the number is fixed and data.test_share divides them
    builtin: bool = False  # it comes with a package: there is no source
    resized: bool = False  # its images are brought to the side data.resolution
    survey: str = ""  # (path, test share) → what names and headers say of a source on this disk before it is read
    extractor: str = ""  # the extractor that is for these data alone

    def most_training_images(self, test_share: float) -> int | None:
        """How many images for training there are at most; none where only looking at them tells."""
        return self.train if self.total is None else math.ceil(self.total * (1 - test_share))


FORMATS = Choices(
    {
        "cifar10": DataFormat("edm2core.data.formats.cifar:read_cifar", (3, 32, 32), 10, 50_000, 10_000),
        "cifar100": DataFormat("edm2core.data.formats.cifar:read_cifar", (3, 32, 32), 100, 50_000, 10_000),
        "tinyimagenet": DataFormat("edm2core.data.formats.tinyimagenet:read_tinyimagenet", (3, 64, 64), 200, 100_000, 10_000, resized=True),
        "images": DataFormat("edm2core.data.formats.images:read_image_folder", resized=True, survey="edm2core.data.formats.folders:survey"),
        "digits": DataFormat("edm2core.data.formats.digits:read_digits", (1, 8, 8), 10, total=1797, builtin=True, extractor="digits"),
    },
    lambda address: DataFormat("edm2core.data.formats.own:read_own"),
)
