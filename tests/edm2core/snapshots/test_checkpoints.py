import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edm2core.config import Recipe, load_recipe
from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.errors import InputError
from edm2core.snapshots.checkpoints import fx_names, read_fx

SEED_E = Path(__file__).parents[2] / "data" / "seed_E.pth"


def saved(content: dict[str, Any], folder: Path) -> Path:
    torch.save(content, folder / "model_0.pth")
    return folder / "model_0.pth"


def recipe_of(config: str) -> Recipe:
    recipe = load_recipe(f"cifar10/{config}")
    small = {"channels": 32, "multipliers": (1, 2), "blocks": 2, "resolution": 16, "attention_resolutions": (8,), "dropout": 0.0}
    return recipe.model_copy(update={"network": NetworkSettings(**{**recipe.network.model_dump(), **small})})


def seed_state(denoiser: Denoiser) -> dict[str, Tensor]:
    return {theirs: denoiser.state_dict()[ours] for ours, theirs in fx_names(denoiser).items()}


def checkpoint(path: Path, online: Denoiser, average: Denoiser) -> Path:
    """A file in the form that the reference's training script writes."""
    model, ema = seed_state(online), seed_state(average)
    torch.save(
        {
            "MODEL": {f"module.{name}": tensor for name, tensor in model.items()},
            "EMA": {
                "initted": torch.tensor(True),
                "step": torch.tensor(3),
                **{f"online_model.{name}": tensor for name, tensor in model.items()},
                **{f"ema_model.{name}": tensor for name, tensor in ema.items()},
            },
            "opt": {"state": {}, "param_groups": []},
        },
        path,
    )
    return path


@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_both_sets_of_weights_of_a_checkpoint_are_read(tmp_path: Path, config: str) -> None:
    recipe = recipe_of(config)
    online, average = (Denoiser(build_network(recipe.network), recipe.diffusion) for _ in range(2))
    path = checkpoint(tmp_path / "model_2.pth", online, average)
    found = read_fx(path, recipe)
    for weights, expected in ((found.ema, average), (found.weights, online)):
        assert weights is not None
        assert weights.keys() == expected.state_dict().keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in expected.state_dict().items())


def test_every_name_that_does_not_fit_is_reported_at_once(tmp_path: Path) -> None:
    recipe = recipe_of("E")
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    path = checkpoint(tmp_path / "model_2.pth", denoiser, denoiser)
    content = torch.load(path, weights_only=True)
    ema = content["EMA"]
    del ema["ema_model.nn_model.down.0.res.conv1.weight"]
    del ema["ema_model.nn_model.middle2.res.linear.weight"]
    ema["ema_model.nn_model.surprise"] = torch.zeros(1)
    ema["ema_model.nn_model.image_proj.weight"] = torch.zeros(32, 2, 3, 3)
    torch.save(content, path)
    with pytest.raises(InputError) as raised:
        read_fx(path, recipe)
    message = str(raised.value)
    for part in (
        "missing: nn_model.down.0.res.conv1.weight",
        "missing: nn_model.middle2.res.linear.weight",
        "nn_model.surprise",
        "nn_model.image_proj.weight has shape [32, 2, 3, 3], the recipe's network [32, 4, 3, 3]",
        str(path),
    ):
        assert part in message


def test_faults_of_all_parts_of_the_file_are_reported_together(tmp_path: Path) -> None:
    content = torch.load(SEED_E, weights_only=True)
    first = next(iter(content["MODEL"]))
    del content["MODEL"]["module.reweight_mlp.linear.weight"]
    content["MODEL"][first][0, 0, 0, 0] = torch.nan
    content["EMA"]["decay"] = content["surplus"] = torch.tensor(0.5)
    content["EMA"]["step"] = torch.zeros(2)
    with pytest.raises(InputError) as raised:
        read_fx(saved(content, tmp_path), recipe_of("E"))
    for part in (
        "missing: reweight_mlp.linear.weight (MODEL)",
        "nn_model.image_proj.weight has values that are not finite (EMA online_model, MODEL)",  # one tensor, as in the reference
        "not of such a file: decay (EMA)",
        "not of such a file: surplus (top level)",
        "step has shape [2], the recipe's network [] (EMA)",
        "not numbered 0 to 50",
    ):
        assert part in str(raised.value)


def test_faults_of_the_optimiser_name_position_and_weight(tmp_path: Path) -> None:
    content = torch.load(SEED_E, weights_only=True)
    states = content["opt"]["state"]
    del states[3], states[4]["exp_avg"]
    states[5]["exp_avg_sq"] = torch.zeros(2)
    states[6]["max_exp_avg_sq"] = states[6]["exp_avg"]
    states[1], states[99] = states[0], states[0]
    with pytest.raises(InputError) as raised:
        read_fx(saved(content, tmp_path), recipe_of("E"))
    for part in (
        "missing: step of nn_model.embedding.linear1.weight (opt, state 3)",
        "missing: exp_avg of nn_model.embedding.linear2.weight (opt, state 4)",
        "exp_avg_sq of nn_model.down.0.res.linear.weight has shape [2]",
        "not of such a file: max_exp_avg_sq (opt, state 6)",
        "nn_model.embedding.fourier.frequencies has a state",
        "not of such a file: state 99",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize("opt", [{"state": {0: 1}}, {"state": {0: {}}, "param_groups": [{}]}, {"state": [1], "param_groups": []}])
def test_an_optimiser_of_another_kind_is_a_fault(tmp_path: Path, opt: dict[str, object]) -> None:
    content = torch.load(SEED_E, weights_only=True)
    content["opt"] = opt
    with pytest.raises(InputError, match="not numbered"):
        read_fx(saved(content, tmp_path), recipe_of("E"))


def test_averages_alone_can_be_looked_at_but_not_trained_on(tmp_path: Path) -> None:
    content = torch.load(SEED_E, weights_only=True)
    alone = {name: tensor for name, tensor in content["EMA"].items() if name.startswith("ema_model.")}
    path = saved({"EMA": alone}, tmp_path)
    found = read_fx(path, recipe_of("E"))
    assert (found.weights, found.adam, found.updates) == (None, None, None)
    assert found.ema.keys() == read_fx(SEED_E, recipe_of("E")).ema.keys()


def test_another_configs_checkpoint_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of("G")
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    with pytest.raises(InputError, match="missing"):
        read_fx(checkpoint(tmp_path / "model_2.pth", denoiser, denoiser), recipe_of("C"))


WRAPPED = {
    "no module.": ("", "ema_model.", "online_model."),
    "of torch.compile": ("_orig_mod.", "ema_model._orig_mod.", "online_model._orig_mod."),
    "of DDP around torch.compile": ("module._orig_mod.", "ema_model.module._orig_mod.", "online_model.module._orig_mod."),
    "of torch.compile around DDP": ("_orig_mod.module.", "ema_model._orig_mod.module.", "online_model._orig_mod.module."),
    "of an average of DDP": ("module.", "ema_model.module.", "online_model.module."),
    "of a wrapped average": ("module.", "module.ema_model.", "module.online_model."),
    "of torch's FSDP": ("_fsdp_wrapped_module.", "ema_model._fsdp_wrapped_module.", "online_model._fsdp_wrapped_module."),
    "of a trainer": ("model.", "ema_model.net.", "online_model.net."),
    "none at all": ("", "", None),
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("inner", [False, True], ids=["", "with the network compiled by itself"])
def test_the_prefix_of_names_is_told_from_the_names(tmp_path: Path, how: str, inner: bool) -> None:
    model, averaged, online = WRAPPED[how]
    content = torch.load(SEED_E, weights_only=True)

    def renamed(tensors: dict[str, Tensor], old: str, new: str | None) -> dict[str, Tensor]:
        compiled = {"nn_model.": "nn_model._orig_mod."} if inner else {}
        names = {name: name.removeprefix(old) for name in tensors if name.startswith(old) and new is not None}
        return {
            f"{new}{next((name.replace(a, b) for a, b in compiled.items() if name.startswith(a)), name)}": tensors[full]
            for full, name in names.items()
        }

    ema = content["EMA"]
    rest = {name: tensor for name, tensor in ema.items() if name in ("initted", "step")}
    changed = content | {
        "MODEL": renamed(content["MODEL"], "module.", model),
        "EMA": rest | renamed(ema, "ema_model.", averaged) | renamed(ema, "online_model.", online),
    }
    found, expected = read_fx(saved(changed, tmp_path), recipe_of("E")), read_fx(SEED_E, recipe_of("E"))
    assert found.updates == expected.updates
    for ours, theirs in ((found.ema, expected.ema), (found.weights, expected.weights)):
        assert ours is not None
        assert theirs is not None
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert found.adam is not None
    assert expected.adam is not None
    assert found.adam.keys() == expected.adam.keys()
    assert all(torch.equal(found.adam[name]["exp_avg"], expected.adam[name]["exp_avg"]) for name in found.adam)


def test_a_name_that_stands_twice_but_for_its_wrapper_is_a_fault(tmp_path: Path) -> None:
    content = torch.load(SEED_E, weights_only=True)
    name = next(iter(content["MODEL"])).removeprefix("module.")
    content["MODEL"][name] = torch.zeros(1)
    with pytest.raises(InputError, match=f"twice, but for its wrapper: {name}"):
        read_fx(saved(content, tmp_path), recipe_of("E"))


def test_another_networks_checkpoint_is_called_so_in_few_lines(tmp_path: Path) -> None:
    other = {f"ema_model.backbone.{number}.weight": torch.zeros(1) for number in range(200)}
    with pytest.raises(InputError, match="None of the checkpoint's names is one of this network's") as caught:
        read_fx(saved({"EMA": other}, tmp_path), recipe_of("E"))
    assert "as its training script writes it" in caught.value.do_next
    assert "more" in caught.value.what
    assert len(caught.value.what.splitlines()) < 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!doctype html><title>Sign in</title>", "a web page"),
        (gzip.compress(b"x" * 100, mtime=0), "compressed by gzip"),
        (b"", "an empty file"),
        (b'\x10\0\0\0\0\0\0\0{"a": 1}', "weights in safetensors"),
    ],
)
def test_what_stands_in_place_of_a_checkpoint_is_called_by_its_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model_1.pth").write_bytes(content)
    with pytest.raises(InputError, match=f"not a checkpoint of FutureXiang/edm2: It is {words}"):
        read_fx(tmp_path / "model_1.pth", recipe_of("E"))


def test_weights_alone_are_called_so(tmp_path: Path) -> None:
    content = torch.load(SEED_E, weights_only=True)
    with pytest.raises(InputError, match="weights alone, without an EMA"):
        read_fx(saved(content["MODEL"], tmp_path), recipe_of("E"))


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_what_is_no_checkpoint_is_refused_and_nothing_in_it_is_executed(tmp_path: Path) -> None:
    recipe, path, victim = recipe_of("C"), tmp_path / "model_1.pth", tmp_path / "executed"
    contents: list[object] = [{"EMA": Attack(victim)}, {"weights": 1}, [1, 2], {"EMA": 3}]
    for content in contents:
        torch.save(content, path)
        with pytest.raises(InputError, match="not a checkpoint"):
            read_fx(path, recipe)
    for data in (b"", b"no zip", b"PK\x03\x04 cut"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a checkpoint"):
            read_fx(path, recipe)
    with pytest.raises(InputError, match=r"absent\.pth"):
        read_fx(tmp_path / "absent.pth", recipe)
    assert not victim.exists()
