import pytest

from edm2core.metrics.names import Metric, in_words, label, metric, split
from edm2core.registry import EXTRACTORS, METRICS


@pytest.mark.parametrize(
    ("text", "data", "result"),
    [
        ("fid", "cifar10", "fid"),
        ("fid", "digits", "fid"),
        ("kid", "cifar10", "kid"),
        ("kid", "digits", "kid_digits"),
        ("is", "digits", "is"),
        ("fd", "digits", "fd_digits"),
        ("fd_dinov2", "digits", "fd_dinov2"),
        ("precision", "cifar10", "precision_inception"),
        ("precision", "digits", "precision_digits"),
        ("fid_pytorch_fid", "images", "fid_pytorch_fid"),
        ("fd_filters", "images", "fd_filters"),
        ("coverage_filters", "cifar10", "coverage_filters"),
    ],
)
def test_without_an_extractor_it_is_the_data_sets_own_or_inception(text: str, data: str, result: str) -> None:
    assert metric(text, data).result == result


@pytest.mark.parametrize(
    ("text", "data", "words"),
    [
        ("fad", "cifar10", "no metric 'fad'"),
        ("fd", "cifar10", "only digits has"),
        ("fid_digits", "digits", "FID is defined in Inception's features"),
        ("fid_filters", "images", "FID is defined in Inception's features"),
        ("is_dinov2", "cifar10", "Inception score is defined"),
        ("kid_digits", "cifar10", "of digits alone"),
    ],
)
def test_what_no_metric_is_is_refused_in_words(text: str, data: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metric(text, data)


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("name", METRICS)
def test_a_result_name_says_which_metric_and_extractor(name: str, extractor: str) -> None:
    assert split(f"{name}_{extractor}") == (name, extractor)
    found = Metric(name, extractor)
    assert split(found.result) == (name, extractor if found.result != name else None)
    assert label(found.result) == found.label


def test_only_inceptions_distances_are_called_fid_and_kid() -> None:
    assert label("fid") == "FID"
    assert label("fid_pytorch_fid") == "FID (pytorch-fid's resize)"
    assert "FID" not in str(label("fd_inception"))
    assert "KID" not in str(label("kid_digits"))
    assert label("probe_accuracy") is None
    assert label("fid_imported") == "FID from an imported reference"
    assert split("fid_pytorch_fid_imported") == ("fid", "pytorch_fid")


def test_a_title_names_the_extractor_once() -> None:
    assert in_words((Metric("fid", "inception"), Metric("kid", "inception"))) == "FID, KID (Inception features)"
    assert in_words((Metric("fd", "digits"),)) == "FD (digits features)"


@pytest.mark.parametrize(("text", "least"), [("fid", 2049), ("fd_dinov2", 1025), ("kid", 1000), ("is", 10), ("coverage", 6)])
def test_each_metric_says_how_many_images_it_needs(text: str, least: int) -> None:
    assert metric(text, "cifar10").least_images == least
