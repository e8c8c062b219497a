"""The source of a data set: its identity in keys, and how it comes to this machine."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from edm2core.addresses import is_url, shown
from edm2core.config.settings import DataSettings
from edm2core.data.download import NOBODY, Listener, Wanted, download
from edm2core.data.file_kinds import INSTEAD, beginning, kind_of, opened, regular, wrong
from edm2core.data.files import list_folder
from edm2core.paths import local_path


def source_digest(settings: DataSettings) -> str:
    """The source's identity in keys: the declared digest, else the SHA-256 of the local file or folder; or "builtin:<format>".

    Raises InputError where a local path does not exist or cannot be read.
    """
    if not settings.needs_source:
        return f"builtin:{settings.format}"
    if is_url(str(settings.source)):
        return _declared(settings)
    path = _local(settings)
    return settings.digest or digest_of(path)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """`<algorithm>:<hex>` of a file's bytes; of a folder: over the JSON of its sorted [relative path, file digest] pairs.

    Raises InputError for a path that cannot be read, such as a broken link or a pipe.
    """
    if not path.is_dir():
        with opened(path) as file:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    return digest_of_entries({name: digest_of(path / name, algorithm) for name in list_folder(path)[0]}, algorithm)


def digest_of_entries(digests: Mapping[str, str], algorithm: str) -> str:
    """A folder's digest, of its files' digests by relative path."""
    return f"{algorithm}:{hashlib.new(algorithm, json.dumps([list(entry) for entry in sorted(digests.items())]).encode()).hexdigest()}"


def fetch(settings: DataSettings, cache: Path, listener: Listener = NOBODY) -> Path:
    """The source as a local file or folder whose declared digest was checked. Built-in data have none.

    A URL is downloaded into `cache`; an unfinished download is continued. Processes that want the same file at once wait for one
    download. Raises InputError for a wrong digest, EdmError where the network fails.
    """
    if not is_url(str(settings.source)):
        path = _local(settings)
        if settings.digest:
            check_digest(path, settings.digest, str(path), "Replace the file, or correct data.digest if this file is the one you mean.")
        return path
    url, digest = str(settings.source), _declared(settings)
    target = cache / f"{digest.partition(':')[2]}-{PurePosixPath(urlsplit(url).path).name or 'download'}"
    do_next = "The publisher's file has changed or data.digest is wrong: compare with the published digest."
    return download(Wanted(url, "data.source", listener), target, lambda path: check_digest(path, digest, shown(url), do_next))


def check_digest(path: Path, declared: str, where: str, do_next: str) -> None:
    """Raises InputError unless the digest of a file or folder begins with the declared one, which may be shortened.

    The message says `where` it was declared, and names a stand-in such as a Git LFS pointer.
    """
    actual = digest_of(path, declared.partition(":")[0] or "sha256")
    if actual.startswith(declared):
        return
    kind = kind_of(beginning(path)) if path.is_file() else None
    if kind in INSTEAD:
        raise wrong(where, f"It is {kind.name}: its digest is {actual}, not {declared}.", f"{kind.do_next} {do_next}")
    raise wrong(where, f"The digest is wrong: expected {declared}, found {actual}.", do_next)


def _declared(settings: DataSettings) -> str:
    source = str(settings.source)
    if not source.startswith(("http://", "https://")) or not settings.digest:
        needed = "A source is a local path, or an http(s) URL with its digest beside it."
        raise wrong(f"data.source: {shown(source)}", needed, "Download it first and give its path.")
    return settings.digest


def _local(settings: DataSettings) -> Path:
    path = local_path(str(settings.source))
    if not path.exists() and not path.is_symlink():
        raise wrong(f"data.source: {path}", "The data's path does not exist.", "Correct the path, or give a URL and its digest.")
    if not path.is_dir():
        regular(path)
    return path
