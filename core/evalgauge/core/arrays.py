"""NumPy arrays that grow at their end: state tables are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class Growing:
    """An array whose first axis grows by doubling; rows never written hold `fill`."""

    __slots__ = ("_fill", "data")

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, fill: float = 0) -> None:
        self._fill = fill
        self.data: NDArray[Any] = np.full((16, *shape), fill, dtype)

    def reserve(self, rows: int) -> NDArray[Any]:
        """Make room for `rows` rows and return the backing array (valid until the next call)."""
        have = len(self.data)
        if rows > have:
            grown = np.empty((max(rows, have * 2), *self.data.shape[1:]), self.data.dtype)
            grown[:have] = self.data
            grown[have:] = self._fill
            self.data = grown
        return self.data
