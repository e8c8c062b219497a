from pathlib import Path

import pytest

from edm2core.errors import InputError
from edm2core.paths import cache_folder, local_path, located


def test_a_path_may_be_written_from_the_home_folder_or_as_a_file_url(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for address in ("~/a b?c#d", f"file://{tmp_path}/a%20b?c#d", f"file://localhost{tmp_path}/a b?c#d", f"FILE:{tmp_path}/a b?c#d"):
        assert located(address, Path("/elsewhere"), "here", urls=False) == f"{tmp_path}/a b?c#d"
    assert located("x/y", tmp_path, "here", urls=False) == str(tmp_path / "x/y")
    assert local_path("x/y") == Path("x/y")


def test_a_file_url_of_another_host_is_refused():
    with pytest.raises(InputError, match="names no host"):
        local_path("file://host/x")


def test_a_home_that_nobody_knows_is_said_to_be_so(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(InputError, match="The home folder that ~ stands for") as refused:
        local_path("~nobody-of-this-name/x", "data.source")
    assert refused.value.where == "data.source"


@pytest.mark.parametrize("address", ["https://host/x?token=1", "http://user:pw@host:80/x"])
def test_a_url_stays_whole_where_urls_are_taken(address):
    assert located(address, Path(), "here", urls=True) == address
    with pytest.raises(InputError, match="must be a local path: "):
        located(address, Path(), "here", urls=False)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/x",
        "s3://bucket/x",
        "https:///x",
        "https://",
        "http://host:port/x",
        "http://host:0x1/",
        "http://ho st/x",
        "http://[::1/x",
    ],
)
def test_what_no_task_could_read_is_refused_without_its_secrets(address):
    secret = address.replace("://", "://user:hunter2@", 1)
    for given in (address, secret):
        with pytest.raises(InputError, match="a local path, or an http") as refused:
            located(given, Path(), "e.yaml, line 3", urls=True)
        assert "hunter2" not in str(refused.value)
        assert refused.value.where == "e.yaml, line 3"


def test_a_path_that_leads_nowhere_is_named_as_it_was_written(tmp_path):
    (tmp_path / "gone").symlink_to("/nowhere/at/all")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to(tmp_path)
    for address, words in {"gone": "a link to '/nowhere/at/all'", "circle": "circle", "a\0b": "null byte", "x" * 5000: "too long"}.items():
        with pytest.raises(InputError, match=words) as refused:
            located(address, tmp_path, "e.yaml, line 3", urls=True)
        assert refused.value.where == "e.yaml, line 3"
        assert len(str(refused.value)) < 400
    assert located("link/x", tmp_path, "e.yaml, line 3", urls=True) == str(tmp_path / "x")


def test_downloads_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDM2_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edm2"
    monkeypatch.setenv("EDM2_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
