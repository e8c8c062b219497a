"""A result's record in the store: written once, last; a task has succeeded when its manifest is there and verified."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from edm2core.errors import IntegrityError
from edm2core.plan.keys import Key
from edm2core.plan.probe_metrics import is_probe

DIGEST = "manifest_sha256"  # of all the rest; stored in the provenance, where earlier versions accept it
AGAIN = "Delete it; the task will be done again."


class Ref(NamedTuple):
    """A result's address in a store: its stage and key, written `stage/key`."""

    stage: str
    key: Key

    def __str__(self) -> str:
        return f"{self.stage}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        stage, key = text.split("/")
        return cls(stage, key)

    @property
    def folder(self) -> str:
        return f"results/{self.stage}/{self.key}"

    @property
    def manifest(self) -> str:
        return f"{self.folder}/manifest.json"

    @property
    def scratch(self) -> str:
        return f"scratch/{self.stage}/{self.key}"


def diff_path(sha256: str) -> str:
    """The store path of the diff between code that made results and its revision. A provenance names it by its SHA-256, as `diff`."""
    return f"code/{sha256}.diff"


class FileRecord(NamedTuple):
    """Size in bytes and SHA-256 (hex) of a stored file."""

    size: int
    sha256: str


def parse_records(files: Mapping[str, Sequence[Any]]) -> dict[str, FileRecord]:
    """Files' records from JSON, which holds each as a list of size and digest."""
    return {name: FileRecord(int(size), str(sha256)) for name, (size, sha256) in files.items()}


@dataclass(frozen=True)
class Manifest:
    """What a task made, from what, by whom."""

    stage: str
    version: int
    key: Key
    title: str
    settings: dict[str, Any]
    inputs: dict[str, str]  # name → stage/key
    input_digests: dict[str, str]  # name → SHA-256 of that input's manifest
    attempt: str  # folder of the files, beside the manifest
    files: dict[str, FileRecord]  # path inside the attempt's folder → size and digest
    metadata: dict[str, Any] = field(default_factory=dict)  # what people and later tasks read first: values, counts, epoch
    provenance: dict[str, Any] = field(default_factory=dict)  # code version, science, host, devices, seconds, times, packages

    @property
    def ref(self) -> Ref:
        return Ref(self.stage, self.key)

    def path(self, name: str) -> str:
        """The store path of one of the files."""
        return f"{self.ref.folder}/{self.attempt}/{name}"

    @property
    def science(self) -> str:
        """The science that made it (edm2core.provenance.science). It is empty if that was not recorded yet."""
        return str(self.provenance.get("science") or "")

    @property
    def measured(self) -> dict[str, float | None]:
        """An evaluation's values by their names in results, None for what is no number. Empty for a task that evaluates nothing."""
        values = self.metadata.get("values") or {name: value for name, value in self.metadata.items() if is_probe(name)}
        if not isinstance(values, dict):
            return {}
        return {name: value if isinstance(value, int | float) else None for name, value in values.items()}

    @property
    def in_words(self) -> str:
        """What was measured, in a line."""
        return " · ".join(f"{name} {value:.4g}" for name, value in self.measured.items() if value is not None)

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says. The stored manifest holds it too, which shows whether it was changed."""
        return hashlib.sha256(json.dumps(self._values(), indent=1, sort_keys=True).encode()).hexdigest()

    def dumps(self) -> bytes:
        values = self._values()
        values["provenance"][DIGEST] = self.digest
        return json.dumps(values, indent=1, sort_keys=True).encode()

    @classmethod
    def loads(cls, data: bytes, where: str = "") -> Self:
        """The manifest in `data`. Raises IntegrityError if it is none, or was changed since it was written."""
        try:
            values = json.loads(data)
            digest = values.get("provenance", {}).pop(DIGEST, None)  # earlier versions wrote none
            manifest = cls(**{**values, "files": parse_records(values["files"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise IntegrityError(f"This is not a manifest: {error}.", where=where, do_next=AGAIN) from None
        if digest is not None and digest != manifest.digest:
            raise IntegrityError("The manifest has been changed since it was written.", where=where, do_next=AGAIN)
        return manifest

    def _values(self) -> dict[str, Any]:
        """The manifest as plain JSON values, the same whether it was read or has just been made."""
        values: dict[str, Any] = json.loads(json.dumps(vars(self)))
        return values
