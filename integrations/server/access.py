"""Who may do what: API keys with their rights, their indexes and their namespace.

keys = [ApiKey("s3cret"), ApiKey("reader", write=False, indexes=("faq", "team-*"), namespace="alice")]
access.check_write()                                 # raises where a key may only read
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tp_retrieval import InputError
from tp_retrieval.documents.encodings import decoded_utf8
from tp_retrieval.integrations.server.errors import RequestError

_LEAST = 8  # characters of a key; a shorter one is guessed


@dataclass(frozen=True)
class ApiKey:
    """A key, and what its holder may do: read alone or write too, in all indexes or those named, in one namespace or all.

    Names may be patterns, such as "team-*". A holder who is confined to a namespace sees its documents alone, and makes and
    removes no index.
    """

    key: str
    write: bool = True
    indexes: tuple[str, ...] | None = None
    namespace: str | None = None

    def sees(self, index: str) -> bool:
        """Return whether there is such an index for the holder."""
        return self.indexes is None or any(fnmatchcase(index, pattern) for pattern in self.indexes)

    def check_write(self) -> None:
        """Raise `RequestError` 403 if the holder may only read."""
        if not self.write:
            raise RequestError(403, "this key may read and not write" if self.key else "this server is read-only")

    def check_manage(self, index: str) -> None:
        """Raise `RequestError` 403 if the holder may not make and remove an index of this name."""
        self.check_write()
        if self.namespace is not None:
            raise RequestError(403, f"this key is for the namespace {self.namespace!r}; it makes and removes no index")
        if not self.sees(index):
            raise RequestError(403, f"this key is not for an index named {index!r}", "name")

    def namespace_of(self, asked: str) -> str:
        """Return the namespace of a request, by default the holder's; raise `RequestError` 403 for another one."""
        if self.namespace is None:
            return asked
        if asked not in ("", self.namespace):
            raise RequestError(403, f"this key is for the namespace {self.namespace!r} alone", "namespace")
        return self.namespace


def holders(keys: Sequence[str | ApiKey]) -> list[ApiKey]:
    """Return keys with their rights; one that is a string may do everything."""
    return [ApiKey(key) if isinstance(key, str) else key for key in keys]


class _StoredKey(BaseModel):
    """A key as it stands in a file."""

    key: Annotated[str, Field(min_length=_LEAST)]
    write: bool = False
    indexes: list[str] | None = None
    namespace: str | None = None

    model_config = ConfigDict(extra="forbid")


def read_keys(file: Path) -> list[ApiKey]:
    """Read keys from a JSON file, a list of objects with the fields of `ApiKey`, of which `write` is false by default.

    Raises `InputError` naming what is wrong.
    """
    try:
        stored = TypeAdapter(list[_StoredKey]).validate_json(decoded_utf8(file.read_bytes(), file))
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{file}: {place}: {first['msg']}; expected {json.dumps(_EXAMPLE)}") from error
    keys = [
        ApiKey(one.key, one.write, None if one.indexes is None else tuple(one.indexes), one.namespace) for one in stored
    ]
    if len({key.key for key in keys}) < len(keys):
        raise InputError(f"{file}: a key stands there twice")
    return keys


_EXAMPLE = [{"key": "…", "write": True, "indexes": ["faq"], "namespace": "alice"}]


async def _access(request: Request) -> ApiKey:
    """Return what the sender of a request may do, which the guard found out."""
    access: ApiKey = request.state.access
    return access


Access = Annotated[ApiKey, Depends(_access)]
