"""The store as a folder, on this machine's disk or on a network file system that has hard links."""

import errno
import os
import secrets
import shutil
import stat as modes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from edm2core.errors import MissingError, StoreError
from edm2core.paths import local_path
from edm2core.plan.manifest import FileRecord
from edm2core.store.base import (
    FREE_SPACE,
    UNKNOWN_S,
    Entry,
    check_path,
    check_prefix,
    damaged,
    file_record,
    identity,
    unchanged,
)
from edm2core.store.process import Process, is_gone

TEMPORARY = ".tmp"  # inside the store, so that a rename never crosses file systems
NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}

DENIED = "Access to the store is denied.", "Check the folder's owner and rights, or give another store (--store)."
WORDS = {
    errno.ENOSPC: ("The store's disk is full.", FREE_SPACE),
    errno.EDQUOT: ("The quota for the store's disk is used up.", FREE_SPACE),
    errno.EROFS: ("The store is on a read-only file system.", "Give a store that can be written to (--store)."),
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENOTDIR: ("A file is where the store needs a folder.", "Move it away, or give another store (--store)."),
    errno.EISDIR: ("A folder is where the store needs a file.", "Move it away, or give another store (--store)."),
    errno.ENAMETOOLONG: ("The path is too long for the store's file system.", "Give a store with a shorter path (--store)."),
}
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE}


class LocalStore:
    """A store in a folder, which is made at the first write.

    Temporary files lie in `.tmp`, which `list` does not show. What `create` and `upload` have stored survives a power cut.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(local_path(str(root))))
        self.uri = str(self.root)
        self._verified: dict[str, tuple[tuple[int, int, int], FileRecord]] = {}
        self._seen = self.root.exists()  # once the folder has been seen, its absence is an error
        if self._seen and not self.root.is_dir():
            raise StoreError("The store is a file, not a folder.", where=self.uri, do_next="Give another folder (--store).")

    def must_be_there(self) -> None:
        """Raise StoreError if the store's folder was there and is gone, so that nobody writes half a store in its place."""
        if self._seen and not self.root.is_dir():
            gone = "The store's folder is gone: it was deleted, moved or unmounted while it was in use."
            do_next = "Bring it back, then run again. Without it everything has to be computed anew."
            raise StoreError(gone, where=self.uri, do_next=do_next)

    def read(self, path: str) -> bytes:
        with self._words("read", path):
            return self._file(path).read_bytes()

    def read_part(self, path: str, start: int, size: int) -> bytes:
        with self._words("read", path), self._file(path).open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def write(self, path: str, data: bytes) -> None:
        with self._words("write", path), self._temporary(data) as temporary:
            self._move(temporary, self._file(path), os.replace)

    def create(self, path: str, data: bytes) -> bool:
        with self._words("create", path), self._temporary(data) as temporary:
            target = self._file(path)
            try:
                self._move(temporary, target, os.link)
            except FileExistsError:
                return temporary.stat().st_nlink > 1  # NFS repeats a request whose answer was lost: then the link is this call's own
            except OSError as error:
                if error.errno not in NO_LINK - {errno.EACCES}:
                    raise
                no_links = "The store's file system has no hard links, which the store needs."
                do_next = "Give a store on another file system, or an object store (--store)."
                raise StoreError(no_links, where=self.uri, do_next=do_next) from error
            _sync_folders(target.parent, self.root)
            return True

    def upload(self, source: Path, path: str) -> FileRecord:
        """Like Store.upload; on the same file system the source becomes a hard link to the stored bytes."""
        with self._words("store", path), self._temporary() as temporary:
            with unchanged(source) as record:
                mode = _usual_mode(temporary)
                try:
                    os.link(os.path.realpath(source), temporary)
                except OSError as error:
                    if error.errno not in NO_LINK:
                        raise
                    shutil.copyfile(source, temporary)
                if modes.S_IMODE(temporary.stat().st_mode) != mode:
                    temporary.chmod(mode)  # its writer may have made it readable by the user alone, and a group may share the store
                _sync(temporary)
            target = self._file(path)
            self._move(temporary, target, os.replace)
            _sync_folders(target.parent, self.root)
            return record

    def fetch(self, path: str, folder: Path, record: FileRecord | None = None) -> Path:
        """The stored file itself; `folder` is not used. A process verifies a file once, and again only after the file has changed."""
        with self._words("read", path):
            file = self._file(path)
            if not file.is_file():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if record is not None and self._verified.get(path) != (seen := (identity(file), record)):
                actual = file_record(file)
                if actual != record:
                    raise damaged("file", actual, f"{record.size} with {record.sha256[:12]}…", str(file))
                self._verified[path] = seen
            return file

    def record(self, path: str) -> FileRecord:
        with self._words("read", path):
            return file_record(self._file(path))

    def stat(self, path: str) -> Entry | None:
        with self._words("read", path):
            try:
                status = self._file(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                self.must_be_there()
                return None
            return Entry(path, status.st_size, max(0.0, self._now() - status.st_ctime)) if modes.S_ISREG(status.st_mode) else None

    def list(self, prefix: str) -> Iterator[Entry]:
        prefix = check_prefix(prefix)
        with self._words("list", prefix):
            files = sorted(_walk(self.root / prefix, prefix))
            if not files:
                self.must_be_there()
            now = self._now() if files else 0.0
        for path, size, changed in files:
            yield Entry(path, size, max(0.0, now - changed))

    def folders(self, prefix: str) -> tuple[str, ...]:
        prefix = check_prefix(prefix)
        with self._words("list", prefix):
            try:
                with os.scandir(self.root / prefix) as children:
                    return tuple(sorted(child.name for child in children if child.is_dir() and prefix + child.name != TEMPORARY))
            except (FileNotFoundError, NotADirectoryError):
                self.must_be_there()
                return ()

    def delete(self, path: str) -> None:
        with self._words("delete", path):
            file = self._file(path)
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                file.unlink()
            with suppress(OSError):  # remove the folders that are empty now, up to one that is not
                for folder in takewhile(lambda folder: folder != self.root, file.parents):
                    folder.rmdir()

    def sweep(self, older_than_s: float, could_commit: Callable[[str], bool]) -> int:
        """Like Store.sweep. Interrupted writes leave temporary files behind, whose names say which process wrote them."""
        freed = 0
        with self._words("clean", TEMPORARY):
            now = self._now()
            for path, size, changed in _walk(self.root / TEMPORARY, f"{TEMPORARY}/"):
                tag = path.removeprefix(f"{TEMPORARY}/").rpartition("-")[0]
                gone, age = is_gone(tag), now - changed
                if gone is False or age <= older_than_s or (gone is None and (age <= UNKNOWN_S or could_commit(""))):
                    continue
                with suppress(FileNotFoundError):
                    (self.root / path).unlink()
                    freed += size
        return freed

    def _file(self, path: str) -> Path:
        return self.root / check_path(path)

    def _now(self) -> float:
        """The file system's own time, since a server's clock is not this machine's."""
        try:
            with self._temporary() as temporary:
                temporary.touch()
                return temporary.stat().st_ctime
        except OSError as error:
            if error.errno not in WORDS:
                raise
            return time.time()  # the time is taken from a new file, and none can be written here

    @contextmanager
    def _temporary(self, data: bytes | None = None) -> Iterator[Path]:
        """A temporary file with these bytes, on the disk, in the store's file system. Without them it does not exist yet."""
        folder = self.root / TEMPORARY
        self.must_be_there()
        _make_folder(folder)
        self._seen = True
        path = folder / f"{Process.current().tag}-{secrets.token_hex(8)}"
        try:
            if data is not None:
                path.write_bytes(data)
                _sync(path)
            yield path
        finally:
            with suppress(OSError):
                path.unlink()

    def _move(self, temporary: Path, target: Path, how: Callable[[Path, Path], None]) -> None:
        for _ in range(100):
            self.must_be_there()
            _make_folder(target.parent)
            with suppress(FileNotFoundError):  # a delete removed the folder just made, since it was empty: make it again
                how(temporary, target)
                return
        raise OSError(errno.EBUSY, "the folder disappears again and again")

    @contextmanager
    def _words(self, verb: str, path: str) -> Iterator[None]:
        """Raise the system's errors as StoreError, in words that a person understands."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                self.must_be_there()
                if verb == "read":
                    raise MissingError("This is not in the store.", where=f"{self.uri}/{path}") from error
            number = error.errno or 0
            what, do_next = WORDS.get(number, (f"The store could not {verb} a file: {error.strerror or error}.", "Look at the disk."))
            where = error.filename if number == errno.ENOTDIR and error.filename else f"{self.uri}/{path}"
            raise StoreError(what, where=where, do_next=do_next, permanent=number not in PASSING) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _usual_mode(free: Path) -> int:
    """The mode that a new file at the path `free` gets, by the umask or the folder's own defaults. No file may be there yet."""
    free.touch()
    mode = modes.S_IMODE(free.stat().st_mode)
    free.unlink()
    return mode


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(folder: Path, root: Path) -> None:
    """Make the folder's and its parents' entries durable, up to the root. A folder that is gone again needs nothing."""
    for parent in takewhile(lambda parent: parent != root.parent, (folder, *folder.parents)):
        with suppress(FileNotFoundError):
            _sync(parent)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int, float]]:
    """Path, bytes and time of change of every file below a folder, in no order. Temporary files are left out at the root."""
    try:
        children = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for child in children:
        path = prefix + child.name
        if path == TEMPORARY:
            continue
        with suppress(FileNotFoundError):
            if child.is_dir():
                yield from _walk(Path(child.path), path + "/")
            elif child.is_file():
                status = child.stat()
                yield path, status.st_size, status.st_ctime
