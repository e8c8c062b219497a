from typing import Any

import pytest

from bench.gpu.advice import advice
from bench.gpu.profile import KINDS, kind_of, shares


def entry(**facts: float) -> dict[str, Any]:
    return {"result": {"facts": facts}}


def profile(**changed: float) -> dict[str, Any]:
    return {"result": {"facts": {**dict.fromkeys((*KINDS, "other", "idle"), 0.0), **{k.replace("_", " "): v for k, v in changed.items()}}}}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolution"),
        ("void cudnn::engines_precompiled::nhwcToNchwKernel<__nv_bfloat16>", "copies"),
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT", "matrix products"),
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("triton_poi_fused_add_mul_silu_3", "elementwise"),
        ("triton_red_fused_native_group_norm_5", "norms and sums"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>", "elementwise"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("aten::mkldnn_convolution", "convolution"),
        ("something_new", "other"),
    ],
)
def test_a_kernel_is_told_by_its_name(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind


def test_shares_add_up_and_the_rest_is_idle() -> None:
    found = shares({"aten::mm": 0.5, "Memset": 0.25})
    assert found["matrix products"] == 0.5
    assert found["copies"] == 0.25
    assert found["idle"] == 0.25
    assert found["kernel aten::mm"] == 0.5


def test_a_failed_row_comes_before_all_else() -> None:
    assert advice({"gpu-train-E": entry(mfu=0.2), "gpu-tests": {"failed": "x"}})[0].startswith("gpu-tests failed")


@pytest.mark.parametrize(
    ("measured", "word"),
    [
        ({"gpu-train-E": entry(waits=2.0)}, "waits for the device 2 times"),
        ({"gpu-profile-E": profile(idle=0.3)}, "CUDA graphs"),
        ({"gpu-profile-E": profile(copies=0.2)}, "layout"),
        ({"gpu-profile-E": profile(elementwise=0.4)}, "compile the network"),
        ({"gpu-profile-E-compiled": profile(elementwise=0.2, norms_and_sums=0.2)}, "fuse norm, modulation and SiLU"),
        ({"gpu-profile-E": profile(convolution=0.7)}, "max-autotune"),
        ({"gpu-train-E": entry(images_per_s=4000.0), "gpu-train-E-compiled": entry(images_per_s=6000.0)}, "1.50 times as fast"),
        ({"gpu-choice-folding-E": entry(gain=1.001)}, "may go"),
        ({"gpu-train-E": entry(mfu=0.175)}, "2.0 times the speed is wanted"),
    ],
    ids=str,
)
def test_each_number_has_its_advice(measured: dict[str, Any], word: str) -> None:
    assert word in " ".join(advice(measured))


def test_where_every_goal_is_met_there_is_nothing_to_say() -> None:
    good = {"gpu-train-E": entry(mfu=0.4, waits=0.0, images_per_s=9000.0), "gpu-profile-E": profile(convolution=0.5)}
    assert advice(good) == []
