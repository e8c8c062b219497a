"""The map between images in [0, 1] and the scale that networks see."""

from dataclasses import dataclass
from typing import Any

from edm2core.errors import InputError


@dataclass(frozen=True)
class PixelScale:
    """Network value = image * scale + offset, image in [0, 1]; the published recipes map to [-1, 1].

    Raises InputError where scale is not positive.
    """

    scale: float = 2.0
    offset: float = -1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"The scale of pixels must be positive, not {self.scale}.", do_next="Prepare the data set again.")

    @property
    def low(self) -> float:
        """What a black pixel, 0 in the image, is at the network's scale."""
        return self.offset

    @property
    def high(self) -> float:
        """What a white pixel, 1 in the image, is at the network's scale."""
        return self.scale + self.offset

    def to_network(self, images: Any) -> Any:
        """Arrays or tensors in [0, 1] to the network's scale."""
        return images * self.scale + self.offset

    def to_images(self, values: Any) -> Any:
        """Arrays or tensors at the network's scale back to [0, 1], not clamped."""
        return (values - self.offset) / self.scale
