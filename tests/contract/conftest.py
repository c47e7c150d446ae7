"""The contract is held against every engine that needs nothing but Python; `tests/backends` has the others."""

from tests.support.engines import engine

__all__ = ["engine"]
