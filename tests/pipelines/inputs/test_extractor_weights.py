"""Files of weights, judged without torch when an experiment is read."""

import gzip
import hashlib
from pathlib import Path

import pytest
import torch

from edm2core.errors import InputError
from edm2core.registry import WEIGHT_FILES
from pipelines.inputs.user_files import weights_digest

INCEPTION, DINOV2 = WEIGHT_FILES["inception"].names, WEIGHT_FILES["dinov2"].names


def saved(path: Path, *names: str, zipped: bool = True) -> str:
    torch.save({name: torch.zeros(1) for name in names}, path, _use_new_zipfile_serialization=zipped)
    return str(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"", "an empty file"),
        (gzip.compress(b"PK", mtime=0), "compressed by gzip"),
        (b"{", "JSON"),
        (b"something", "does not begin as"),
    ],
)
def test_weights_that_are_something_else_are_called_by_their_name_when_the_experiment_is_read(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=f"is no file of weights. It (.*){words}") as caught:
        weights_digest("dinov2", str(tmp_path / "weights.pth"))
    assert "dinov2_vitl14_pretrain.pth" in caught.value.do_next


@pytest.mark.parametrize("zipped", [True, False])
def test_both_of_torchs_formats_are_read(tmp_path: Path, zipped: bool) -> None:
    for kind, names in (("inception", INCEPTION), ("dinov2", DINOV2)):
        path = saved(tmp_path / "weights.pth", *names, zipped=zipped)
        assert weights_digest(kind, path) == f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    with pytest.raises(InputError, match=r"does not hold the weights of Inception: it has no 'Conv2d_1a_3x3\.conv\.weight'"):
        weights_digest("inception", saved(tmp_path / "resnet.pth", "conv1.weight", "fc.weight", zipped=zipped))


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("inception", (*INCEPTION, "AuxLogits.fc.weight"), "a 'AuxLogits.fc.weight', which is torchvision's"),
        ("inception", DINOV2, "no 'Conv2d_1a_3x3.conv.weight'"),
        ("dinov2", ("cls_token", "pos_embed", "blocks.11.ls1.gamma"), "no 'blocks.23.ls1.gamma'"),
        ("dinov2", (*DINOV2, "blocks.39.ls1.gamma", "blocks.24.ls1.gamma"), "which is of a deeper one"),
        ("dinov2", (*DINOV2, "register_tokens"), "the variant with registers"),
    ],
)
def test_another_networks_weights_are_refused_when_the_experiment_is_read(
    tmp_path: Path, kind: str, names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        weights_digest(kind, saved(tmp_path / "weights.pth", *names))
    assert words in caught.value.what
    assert caught.value.where == f"{kind}_weights"


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    whole = Path(saved(tmp_path / "weights.pth", *INCEPTION)).read_bytes()
    (tmp_path / "part.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as a file of torch"):
        weights_digest("inception", str(tmp_path / "part.pth"))


def test_a_name_that_ends_with_a_digest_must_have_it(tmp_path: Path) -> None:
    path = tmp_path / f"weights-inception-2015-12-05-{WEIGHT_FILES['inception'].published.removeprefix('sha256:')}.pth"
    with pytest.raises(InputError, match="is not what its name says"):
        weights_digest("inception", saved(path, *INCEPTION))


def test_weights_named_by_an_experiment_are_judged_by_every_verb_that_reads_it(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from pipelines.cli.main import cli

    saved(tmp_path / "resnet50-0.pth", "conv1.weight")
    (tmp_path / "e.yaml").write_text(
        "name: x\nrecipes: [digits/C]\nepochs: [1]\nmetrics: [kid_inception]\nsample: {count: 1000}\ninception_weights: resnet50-0.pth\n"
    )
    for verb in (["plan"], ["run"], ["compile", "--cluster", "lab"]):
        ended = CliRunner().invoke(cli, [*verb, str(tmp_path / "e.yaml")]).exception
        assert isinstance(ended, InputError)
        assert "does not hold the weights of Inception" in ended.what
