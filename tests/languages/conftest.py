"""The launcher of tests/sandbox, and its care that nothing is left."""

from tests.sandbox.conftest import box, nothing_is_left

__all__ = ["box", "nothing_is_left"]
