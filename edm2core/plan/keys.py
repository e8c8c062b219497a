"""A task's key, its identity in the store: a hash of what decides its result, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from edm2core.config.fields import is_keyed

Key = str
LENGTH = 20  # hex digits: 80 bits, short enough for a Kubernetes name


def canonical(value: Any) -> bytes:
    """JSON with sorted names and no spaces. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def keyed(settings: BaseModel) -> dict[str, Any]:
    """The settings that are part of a key: without those at their default, and without those marked unkeyed.

    Since defaults are left out, a later version can add a setting without changing the keys of what exists.
    """
    result: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        plain = _plain(getattr(settings, name))
        default = not field.is_required() and plain == _plain(field.get_default(call_default_factory=True))
        if is_keyed(field) and not default:
            result[name] = plain
    return result


def _plain(value: Any) -> Any:
    """A setting's value as JSON holds it. A nested section is reduced to its keyed settings."""
    if isinstance(value, BaseModel):
        return keyed(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def key_of(stage: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Key:
    """The key of a task from its stage, the stage's version, its keyed settings, and its inputs' keys or sources' digests."""
    return hashlib.sha256(canonical([stage, version, dict(settings), dict(inputs)])).hexdigest()[:LENGTH]
