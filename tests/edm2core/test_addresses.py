import json
from string import ascii_letters, digits
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edm2core.addresses import is_url, redacted, shown

WORD = st.text(ascii_letters + digits, min_size=1, max_size=12)
SCHEMES = st.sampled_from(["http", "https", "s3", "minio", "postgresql", "mysql+pymysql", "ftp", "HTTPS", "git+ssh"])
SECRET = "hunter2secret"


@given(SCHEMES, WORD, st.text(min_size=1), WORD, WORD, st.text())
def test_an_address_is_shown_without_user_password_and_query(scheme, user, password, host, path, token):
    secret = SECRET + quote(password, safe="")
    address = f"{scheme}://{user}:{secret}@{host}/{path}?token={SECRET}{quote(token)}#{SECRET}"
    assert shown(address) == f"{scheme}://{host}/{path}"
    assert shown(shown(address)) == shown(address)


@pytest.mark.parametrize("mark", list("/?#@:\\"))
def test_a_password_with_characters_that_should_be_encoded_is_not_shown(mark):
    assert shown(f"https://user:hunter2{mark}secret@host/data.tar") == "https://host/data.tar"


@pytest.mark.parametrize(
    ("address", "as_shown"),
    [
        ("https://token@host/x", "https://host/x"),
        ("https://host:8080/x@1.0/y", "https://host:8080/x@1.0/y"),
        ("http://user:pw@[::1]:80/x", "http://[::1]:80/x"),
        ("http://[::1]:80/x@1", "http://[::1]:80/x@1"),
        ("https:/user:pw@host/x?t=1", "https:/host/x"),  # what a path's type makes of it
        ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dx", "mssql+pyodbc:///"),
        ("minio://bucket/prefix", "minio://bucket/prefix"),
        ("databricks", "databricks"),
        ("/data/a?b#c@d", "/data/a?b#c@d"),
        ("data/a:b@c", "data/a:b@c"),
        ("file:///data/a?b", "file:///data/a?b"),
    ],
)
def test_what_is_shown_of_each_kind_of_address(address, as_shown):
    assert shown(address) == as_shown


@given(WORD, WORD)
def test_a_text_keeps_all_but_the_secrets(before, after):
    address, bare = f"https://u:{SECRET}@host/x?token={SECRET}", "https://host/x"
    for text in ("{} {} {}", "{} ({}) {}", "{} '{}' {}", '{} "{}", {}', "{}: {{a: {}, b: {}}}", "{} <{}> {}", "{}\n{}.\n{}", "{} `{}`: {}"):
        assert redacted(text.format(before, address, after)) == text.format(before, bare, after)


def test_an_address_without_a_host_as_libraries_name_it_is_shown_without_its_query():
    said = (
        f"HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: /x?token={SECRET}/api&name=a (Caused by ResponseError('b'))"
    )
    assert redacted(said) == said.replace(f"?token={SECRET}/api&name=a", "")


def test_a_text_keeps_its_structure():
    address = f"https://u:{SECRET}@host/x?token={SECRET}"
    values = {"a": address, "b": [address, 1], "c": json.dumps({"d": address})}
    for dump, load in ((json.dumps, json.loads), (yaml.safe_dump, yaml.safe_load)):
        found = load(redacted(dump(values)))
        assert found == {"a": "https://host/x", "b": ["https://host/x", 1], "c": '{"d": "https://host/x"}'}


def test_a_text_without_addresses_stays():
    for text in ("", "no such file: /a/b?c", "-v host:/path#1", "x = f'{a}:/{b}#c'", "a://", "12:30://"):
        assert redacted(text) == text


def test_urls_are_told_from_paths():
    assert is_url("https://host/x")
    assert is_url("s3://bucket")
    assert not is_url("file:///x")
    assert not is_url("x/y")
