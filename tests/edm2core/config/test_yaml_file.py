from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edm2core.config.yaml_file import load, parse, without_secrets
from edm2core.errors import InputError


def test_every_value_knows_its_line() -> None:
    document = parse("name: x\nsample:\n  count: 5\nepochs: [1, 2,\n  3]\n", "e.yaml")
    assert document.origin(("sample", "count")).line == 3
    assert document.origin(("epochs", 2)).line == 5
    assert str(document.origin(("sample", "absent"))) == "e.yaml, line 2"


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("a: [1, 2\nb: 3", "malformed", 2),
        ("a: !!python/object/apply:os.system ['true']", "tag", 1),
        ("a: 1\nb: 2\na: 3", "stands twice", 3),
        ("- 1\n- 2", "names with values", 1),
        ("a: 1\n? [x, y]\n: 2", "plain words", 2),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, words: str, line: int) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse(text, "e.yaml")
    assert caught.value.where == f"e.yaml, line {line}"


@pytest.mark.parametrize(
    ("text", "value"), [("5e-3", 0.005), ("1E5", 1e5), ("-.5e+2", -50.0), ("5.0e-3", 0.005), ("e5", "e5"), ("5e", "5e")]
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: object) -> None:
    assert parse(f"a: {text}", "e.yaml").values == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0o10", 8),
        ("0x1F", 31),
        ("+7", 7),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("1_0.5", "1_0.5"),
        ("0.5", 0.5),
        ("5.", 5.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("~", None),
        ("null", None),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
    ],
)
def test_plain_values_are_read_as_yaml_1_2_reads_them(text: str, value: object) -> None:
    found = parse(f"a: {text}\nb: [{text}]", "e.yaml").values
    assert found == {"a": value, "b": [value]}
    assert type(found["a"]) is type(value)


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
def test_what_yaml_writes_is_read_as_it_was(value: object) -> None:
    found = parse(yaml.safe_dump({"a": value}), "e.yaml").values["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("data", [b"", b"# only a comment\n", b"\x00\x01\x02", b"\xff\xfe\x00a", b"a: 1\x00"])
def test_an_empty_or_binary_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "e.yaml").write_bytes(data)
    with pytest.raises(InputError, match=r"The file is empty|is not a text file"):
        load(tmp_path / "e.yaml")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 2000,
        "a: &a [*a]",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)),
    ],
)
def test_what_never_ends_is_refused_at_once(text: str) -> None:
    with pytest.raises(InputError, match=r"nested too deeply|more than 100,000 values"):
        parse(text, "e.yaml")


def test_a_date_is_text_as_a_run_may_be_called() -> None:
    assert parse("name: 2024-13-45\nday: 2024-01-01", "e.yaml").values == {"name": "2024-13-45", "day": "2024-01-01"}


def test_a_stored_copy_has_all_values_but_the_secrets_of_addresses() -> None:
    address = "https://user:hunter2@host/x?token=s3cr3t"
    text = f"""# from {address}
plain: {address}
quoted: '{address}'   # kept
flow: {{a: "{address}", b: [1, '{address}']}}
folded: >-
  https://user:hunt
literal: |
  {address}
escaped: "https:\\/\\/user:hunt\\x65r2@host/x?token=s3cr\\u0033t"
anchored: &here {address}
again: *here
"""
    stored = without_secrets(text)
    assert "hunter2" not in stored
    assert "s3cr3t" not in stored
    assert "# kept" in stored
    found, given = parse(stored, "e.yaml").values, parse(text, "e.yaml").values
    assert found == {**given, **dict.fromkeys(("plain", "quoted", "anchored", "again"), "https://host/x")} | {
        "flow": {"a": "https://host/x", "b": [1, "https://host/x"]},
        "literal": "https://host/x\n",
        "escaped": "https:\\/\\/host/x".replace("\\", ""),
    }
    assert without_secrets(stored) == stored
