from typing import Annotated, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field

from edm2core.config.fields import Settings, unkeyed
from edm2core.config.settings import DataSettings, ProbeSettings, SampleSettings, TrainingSettings
from edm2core.plan.keys import LENGTH, canonical, key_of, keyed
from edm2core.registry import SOLVERS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMED = st.dictionaries(st.text(max_size=5), JSON, max_size=5)
REFS = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4)


class Inner(Settings):
    rate: float = 1.0
    batch: int = unkeyed(8)


class Outer(Settings):
    depth: int
    inner: Inner = Inner()
    many: Annotated[tuple[Inner, ...], Field(strict=False)] = ()


def test_a_key_is_a_short_hexadecimal_name() -> None:
    key = key_of("sample", 1, {}, {})
    assert len(key) == LENGTH
    assert set(key) <= set("0123456789abcdef")


def test_keys_stay_what_they_are() -> None:
    settings = {"steps": 18, "ema": ["fixed"], "s_noise": 1.007, "precision": "fp32", "name": "größe"}
    assert key_of("sample", 1, settings, {"snapshot": "0123456789abcdef0123"}) == "3e976817b59765b8fa28"


@given(NAMED, REFS, st.randoms(use_true_random=False))
def test_the_order_of_settings_and_inputs_does_not_matter(settings: dict[str, Any], inputs: dict[str, str], random: Any) -> None:
    def shuffled(values: dict[str, Any]) -> dict[str, Any]:
        items = list(values.items())
        random.shuffle(items)
        return dict(items)

    assert key_of("s", 1, settings, inputs) == key_of("s", 1, shuffled(settings), shuffled(inputs))


@given(NAMED, NAMED, REFS, REFS)
def test_keys_are_equal_only_where_everything_is(
    one: dict[str, Any], two: dict[str, Any], in1: dict[str, str], in2: dict[str, str]
) -> None:
    same = canonical([one, in1]) == canonical([two, in2])
    assert (key_of("s", 1, one, in1) == key_of("s", 1, two, in2)) is same
    assert key_of("s", 1, one, in1) != key_of("s", 2, one, in1)
    assert key_of("s", 1, one, in1) != key_of("t", 1, one, in1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_has_not_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of("s", 1, {"x": value}, {})


def test_settings_at_their_default_are_left_out() -> None:
    assert keyed(SampleSettings()) == {}
    assert keyed(SampleSettings(steps=18, seed=0)) == {}
    assert keyed(Outer(depth=1)) == keyed(Outer(depth=1, inner=Inner(rate=1.0))) == {"depth": 1}


def test_a_required_setting_is_always_in() -> None:
    assert keyed(TrainingSettings(epochs=10, batch=64, lr=1e-3)) == {"batch": 64, "lr": 1e-3}


KEYED = {
    SampleSettings: {
        "count": 10, "steps": 6, "sigma_min": 0.01, "sigma_max": 70.0, "rho": 6.0, "eta": 0.5, "s_min": 0.02, "s_max": 2.0,
        "s_noise": 1.0, "clip": False, "state": "fp32", "seed": 1, "draws": 2, "ema": ("0.050",), "precision": "bf16",
        "exact": True, "schedule": "uniform_logsnr",
    },
    ProbeSettings: {
        "t": (1, 2), "blocks": ("out_1",), "epochs": 3, "batch": 64, "lr": 1e-3, "flip": False, "validation_share": 0.2,
        "seeds": (1,), "ema": "0.100", "precision": "fp16", "exact": True, "crop": 2, "features": "cached",
        "cached_draws": 3, "knn": 5, "few_shot": (0.1,),
    },
}  # fmt: skip
UNKEYED = {SampleSettings: {"batch": 7, "shard": 9, "compile": "never"}, ProbeSettings: {}}
APART = {SampleSettings: {"solver", "order", "guidance", "own"}, ProbeSettings: {"protocol"}}  # of one choice; what most others contradict


def test_another_choice_of_the_registry_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "other", SOLVERS["heun"])
    assert keyed(SampleSettings(solver="other")) == {"solver": "other"}
    with pytest.raises(ValueError, match="must be 'heun', 'euler'"):
        SampleSettings(solver="none")


@pytest.mark.parametrize("kind", KEYED)
def test_the_tables_of_keyed_and_unkeyed_settings_are_complete(kind: type[Settings]) -> None:
    assert set(KEYED[kind]) | set(UNKEYED[kind]) | APART[kind] == set(kind.model_fields)


@given(st.data())
@pytest.mark.parametrize("kind", KEYED)
def test_a_key_changes_with_every_keyed_setting_and_with_no_other(kind: type[Settings], data: st.DataObject) -> None:
    some = data.draw(st.sets(st.sampled_from(sorted(KEYED[kind]))))
    other = data.draw(st.sets(st.sampled_from(sorted(KEYED[kind]))))
    for pair in ({"exact", "precision"}, {"schedule", "rho"}):  # which contradict each other
        assume(not any(pair <= names for names in (some, other)))
    how = {name: value for name, value in UNKEYED[kind].items() if data.draw(st.booleans())}
    one = kind(**{name: KEYED[kind][name] for name in some})
    two = kind(**{name: KEYED[kind][name] for name in other}, **how)
    keys = [key_of("s", 1, keyed(settings), {}) for settings in (one, two)]
    assert (keys[0] == keys[1]) is (some == other)


def test_where_the_data_lie_is_in_no_key() -> None:
    assert keyed(DataSettings(format="cifar10", source="/a")) == keyed(DataSettings(format="cifar10", source="/b")) == {"format": "cifar10"}


def test_nested_settings_follow_the_same_rules() -> None:
    assert keyed(Outer(depth=1, inner=Inner(batch=9))) == {"depth": 1}
    assert keyed(Outer(depth=1, inner=Inner(rate=2.0, batch=9))) == {"depth": 1, "inner": {"rate": 2.0}}
    assert canonical(keyed(Outer(depth=1, many=(Inner(), Inner(rate=3.0))))) == b'{"depth":1,"many":[{},{"rate":3.0}]}'


def test_each_protocol_of_the_probe_has_a_key_of_its_own() -> None:
    keys = {key_of("s", 1, keyed(ProbeSettings.model_validate({"protocol": protocol})), {}) for protocol in ("own", "fx", "ddae")}
    assert len(keys) == 3
