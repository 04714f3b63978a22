"""Paths for Orbax whose characters are never a pattern, as in ``runs/a[1]``."""

import glob
import os
from collections.abc import Iterator

from etils import epath
from etils.epath.gpath import PosixGPath


@epath.register_path_cls
class LiteralPath(PosixGPath):
    """A path that is no part of the pattern of its own ``glob``.

    etils puts the whole path into the pattern of ``glob``. In ``runs/a[1]`` Orbax then
    does not find the arrays that each process has written, and leaves a checkpoint
    without them, without an error.
    """

    def glob(self, pattern: str) -> Iterator["LiteralPath"]:
        """Yield the paths that match a pattern below this path."""
        folder = PosixGPath(glob.escape(os.fspath(self)))
        return map(type(self), folder.glob(pattern))
