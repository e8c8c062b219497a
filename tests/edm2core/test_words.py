import pytest

from edm2core.words import count, duration, size


@pytest.mark.parametrize(("number", "words"), [(39_510_144, "39.5 M"), (302_000, "302 k"), (12, "12"), (None, "—")])
def test_large_numbers_are_short(number: float | None, words: str) -> None:
    assert count(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (3.14, "3.1 s"),
        (3.0, "3 s"),
        (9.97, "10 s"),
        (59, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (7500, "2 h 05 min"),
        (None, "—"),
    ],
)
def test_durations_are_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("bytes_", "words"), [(0, "0.0 kB"), (1500, "1.5 kB"), (2.2e6, "2.2 MB"), (1e10, "10.0 GB"), (5.888e16, "58,880,000.0 GB")]
)
def test_bytes_are_said_in_a_unit_that_fits(bytes_: float, words: str) -> None:
    assert size(bytes_) == words
