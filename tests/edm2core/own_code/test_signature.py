from collections.abc import Callable
from typing import Literal

import pytest

from edm2core.errors import InputError
from edm2core.own_code.signature import Signature, read_signature
from edm2core.own_code.source import OwnCode

Package = Callable[..., OwnCode]


def signature(package: Package, text: str, name: str = "f", passed: int = 1) -> Signature:
    return read_signature(package(code=text), f"mine.code:{name}", passed, "e.yaml, line 2")


def test_types_and_defaults_are_read_without_importing(package: Package) -> None:
    text = """
raise SystemExit("never imported")
def f(x, a: int = 1, *, b: float, c: Literal["u", "v"] = "u", d: int | None = None, e: tuple[int, ...] = (1, 2), g=True): pass
"""
    read = signature(package, text)
    assert read.positional == ("x",)
    assert {name: each.type for name, each in read.settings.items()} == {
        **{"a": int, "b": float, "c": Literal["u", "v"], "d": int | None},
        **{"e": tuple[int, ...], "g": bool},
    }
    assert read.settings["b"].default is ...
    assert read.settings["e"].default == (1, 2)
    assert read.where.endswith("code.py, line 3")


def test_a_class_has_its_initialisers_parameters_and_re_exports_are_followed(package: Package) -> None:
    code = package(__init__="from .code import Net as Other", code="class Net(nn.Module):\n    def __init__(self, depth: int = 6): pass")
    assert read_signature(code, "mine:Other", 0, "e.yaml").settings["depth"].default == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(x, a): pass", "has no type"),
        ("def f(x, a: int = N): pass", "only running the code would tell: N"),
        ("def f(x, a: torch.dtype = None): pass", "a type that no setting has: torch.dtype"),
        ("def f(x, **more): pass", r"\*args and \*\*kwargs"),
        ("def g(x): pass", "Known here: g"),
        ("f = partial(g)", "There is no function or class 'mine.code:f'"),
        ("def f(:", "This is no Python"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(package: Package, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        signature(package, text)
    assert "code.py" in error.value.where
