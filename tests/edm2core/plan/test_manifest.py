import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edm2core.errors import IntegrityError
from edm2core.plan.manifest import FileRecord, Manifest, Ref

TEXT = st.text(max_size=8)
VALUES = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(st.integers()), max_size=3
)
RECORDS = st.builds(FileRecord, st.integers(min_value=0), TEXT)
MANIFESTS = st.builds(
    Manifest,
    stage=TEXT,
    version=st.integers(),
    key=TEXT,
    title=TEXT,
    settings=VALUES,
    inputs=st.dictionaries(TEXT, TEXT, max_size=3),
    input_digests=st.dictionaries(TEXT, TEXT, max_size=3),
    attempt=TEXT,
    files=st.dictionaries(TEXT, RECORDS, max_size=3),
    metadata=VALUES,
    provenance=VALUES,
)
PLAIN: dict[str, Any] = {
    "stage": "sample", "version": 1, "key": "k", "title": "t", "settings": {}, "inputs": {}, "input_digests": {}, "attempt": "a",
    "files": {"x.npy": [3, "ab"]},
}  # fmt: skip


@given(MANIFESTS)
def test_a_manifest_comes_back_from_its_bytes(manifest: Manifest) -> None:
    assert Manifest.loads(manifest.dumps()) == manifest
    assert Manifest.loads(manifest.dumps()).dumps() == manifest.dumps()


def test_files_have_paths_beside_the_manifest() -> None:
    manifest = Manifest.loads(json.dumps(PLAIN).encode())
    assert manifest.files == {"x.npy": FileRecord(3, "ab")}
    assert manifest.path("x.npy") == "results/sample/k/a/x.npy"
    assert manifest.ref.manifest == "results/sample/k/manifest.json"
    assert manifest.ref.scratch == "scratch/sample/k"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        json.dumps({**PLAIN, "files": []}).encode(),
        json.dumps({**PLAIN, "files": {"x": 3}}).encode(),
        json.dumps({**PLAIN, "files": {"x": ["many", "ab"]}}).encode(),
        json.dumps({**PLAIN, "extra": 1}).encode(),
        json.dumps(PLAIN).encode()[:-5],
    ],
)
def test_what_is_no_manifest_is_named(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        Manifest.loads(data, "results/sample/k/manifest.json")
    assert caught.value.where == "results/sample/k/manifest.json"


def test_a_ref_is_read_as_it_is_written() -> None:
    ref = Ref("sample", "0123")
    assert Ref.parse(str(ref)) == ref
    for text in ("sample", "a/b/c", ""):
        with pytest.raises(ValueError, match="unpack"):
            Ref.parse(text)


@given(MANIFESTS)
def test_a_manifest_that_says_something_else_is_named(manifest: Manifest) -> None:
    data = json.loads(manifest.dumps())
    for name, other in {
        "title": manifest.title + "!",
        "version": manifest.version + 1,
        "metadata": {"values": {"fd": 1.0}, "not": "there"},
    }.items():
        with pytest.raises(IntegrityError, match="changed"):
            Manifest.loads(json.dumps({**data, name: other}).encode())


def test_a_manifest_is_the_same_read_or_just_made_and_without_its_digest_counts() -> None:
    plain = Manifest.loads(json.dumps(PLAIN).encode())
    made = Manifest(**{**plain.__dict__, "metadata": {10: (1, 2), 9: None}})  # type: ignore[arg-type]
    assert Manifest.loads(made.dumps()).digest == made.digest
    assert json.loads(made.dumps())["provenance"]["manifest_sha256"] == made.digest


@pytest.mark.parametrize(
    ("metadata", "measured"),
    [
        ({"values": {"fd_digits": 1.5, "kid": None}, "n": 5}, {"fd_digits": 1.5, "kid": None}),
        ({"probe_accuracy": 90.0, "probe_accuracy_1pct": 60.0, "epoch": 3}, {"probe_accuracy": 90.0, "probe_accuracy_1pct": 60.0}),
        ({"probe_accuracy": 90.0, "cells": [1], "epoch": 3}, {"probe_accuracy": 90.0}),
        ({"epoch": 3}, {}),
        ({"values": "of another version"}, {}),
    ],
)
def test_what_was_measured_is_told_from_the_rest(metadata: dict[str, object], measured: dict[str, float | None]) -> None:
    assert Manifest("metrics", 1, "k", "t", {}, {}, {}, "a", {}, metadata).measured == measured
