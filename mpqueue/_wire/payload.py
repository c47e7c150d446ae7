"""Pickling, both ways: the only file that knows cloudpickle.

Plain pickle where it will do, since it is several times faster; cloudpickle where plain pickle fails (lambdas,
closures) and where its bytes name ``__main__``: an instance of a class of a script without a guard pickles fine here
and could not be found there.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import cloudpickle

PROTOCOL = 5


@dataclass(frozen=True, slots=True)
class Packed:
    """A pickled object."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes, all told."""
        return len(self.data)


def dump(obj: Any) -> Packed:
    """Pickle an object. Whatever stands in its way is raised: TypeError, PicklingError, what its own code raises."""
    return Packed(_dump_bytes(obj))


def _dump_bytes(obj: Any) -> bytes:
    try:
        data = pickle.dumps(obj, PROTOCOL)
    except Exception:
        return _cloud_bytes(obj)
    return _cloud_bytes(obj) if b"__main__" in data else data


def _cloud_bytes(obj: Any) -> bytes:
    data: bytes = cloudpickle.dumps(obj, PROTOCOL)
    return data


def dump_code(obj: Any) -> Packed:
    """Pickle a function, by value where the other side could not import it."""
    return Packed(_cloud_bytes(obj))


def load(packed: Packed) -> Any:
    """The object again. Whatever its own code raises comes through."""
    return pickle.loads(packed.data)


class _Witness(pickle.Pickler):
    """A pickler that notes whether it met anything but the plain built-in types.

    Plain data can't fail to be unpickled; the hook is called for everything else, so plain data costs nothing.
    """

    met_others = False

    def reducer_override(self, obj: Any) -> Any:  # noqa: ARG002
        self.met_others = True
        return NotImplemented


def dump_plain(obj: Any) -> Packed | None:
    """Pickle an object if it consists of plain data, which always comes back; None where it does not."""
    buffer = io.BytesIO()
    witness = _Witness(buffer, PROTOCOL)
    try:
        witness.dump(obj)
    except Exception:
        return None
    return None if witness.met_others else Packed(buffer.getvalue())


def dump_frame(frame: Any) -> bytes:
    """Pickle one of the project's own frames."""
    return pickle.dumps(frame, PROTOCOL)


def load_frame(data: bytes) -> Any:
    """One of the project's own frames again."""
    return pickle.loads(data)
