"""The Fréchet distance within each class, for class-conditional samples."""

import math
from statistics import fmean

from edm2core.errors import InputError
from edm2core.metrics.compared import Compared, Value
from edm2core.metrics.statistics import frechet_distance, frechet_error, statistics


def frechet_by_class(compared: Compared) -> dict[str, Value]:
    """The mean over classes of the distance between a class's samples and its training images. Each class's is put into `compared`.

    Raises InputError where the samples' classes are not known, and where a class has too few images for its covariance.
    """
    if compared.classes is None:
        raise InputError(
            "fd_by_class needs to know the class of each sample.", do_next="Measure a class-conditional recipe's samples by an experiment."
        )
    labels, real_labels = compared.classes()
    values: list[Value] = []
    for label in range(int(real_labels.max()) + 1):
        own, real = compared.features[labels == label], compared.real[real_labels == label]
        try:
            reference = statistics(real)
            values.append(Value(frechet_distance(statistics(own), reference), frechet_error(own, reference)))
        except InputError as error:
            few = f"Class {label} has {len(own)} samples and {len(real)} training images: {error.what}"
            raise InputError(few, where="sample.count", do_next="Raise sample.count, or leave out fd_by_class.") from None
    compared.by_class = [value.value for value in values]
    errors = [value.error or 0.0 for value in values]
    return {"fd_by_class": Value(fmean(compared.by_class), math.hypot(*errors) / len(errors))}
