"""Paths and URLs as users write them, checked when they are read."""

import os
import reprlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edm2core.addresses import is_url, is_web_url
from edm2core.errors import InputError


def local_path(address: str, where: str = "") -> Path:
    """The local path that an address names: a plain path, one that begins with ~, or a file:// URL.

    Raises InputError, which names `where` the address stands, for a file:// URL of another host, and for ~ where no home is known.
    """
    if address.lower().startswith("file:"):
        parts = urlsplit(address.replace("?", "%3F").replace("#", "%23"))
        if parts.netloc not in ("", "localhost"):
            do_next = "Write file:///folder/file, with three slashes."
            raise InputError("A file:// address names no host.", where=where or address, do_next=do_next)
        address = unquote(parts.path)
    try:
        return Path(address).expanduser()
    except RuntimeError:
        unknown = f"The home folder that ~ stands for in {address} is not known."
        raise InputError(unknown, where=where or address, do_next="Set the variable HOME, or write the whole path.") from None


def cache_folder() -> Path:
    """The folder for what can be downloaded or computed again: `EDM2_CACHE`, else `edm2` in the user's cache."""
    cache = os.environ.get("EDM2_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "edm2"
    return local_path(str(cache), "EDM2_CACHE")


def located(address: str, base: Path, where: str, *, urls: bool) -> str:
    """The address made absolute: a path is relative to `base`; a URL stays as it is, if `urls` are allowed.

    Raises InputError, which names `where` the address stands, for a path that no system call takes, and for a URL that no task could
    read: another scheme than http(s), or no host.
    """
    if not is_url(address):
        path = base / local_path(address, where)
        try:
            if path.is_symlink() and not path.exists():
                raise FileNotFoundError(f"it is a link to {os.readlink(path)!r}, which leads nowhere")
            return str(path.resolve())
        except (OSError, ValueError, RuntimeError) as error:  # too long, with a zero byte, or a loop of links
            what = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InputError(f"The path {reprlib.repr(str(path))} cannot be used: {what}.", where=where, do_next="Correct it.") from error
    if not urls or not is_web_url(address):
        kinds = "a local path, or an http(s) URL" if urls else "a local path"
        raise InputError(f"This must be {kinds}: {address}", where=where, do_next="Download it first and give its path.")
    return address


def cached(name: str, make: Callable[[], str]) -> str:
    """The text that `make` gives, kept in the cache's file `name`, since making it takes long. Without a cache it is made each time."""
    file: Path | None = None
    with suppress(InputError, OSError):  # there is no home, or no such file
        file = cache_folder() / name
        return file.read_text(encoding="utf-8")
    text = make()
    if file:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.{os.getpid()}")
            part.write_text(text, encoding="utf-8")
            part.replace(file)
    return text
