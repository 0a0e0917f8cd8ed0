"""Products of bfloat16 values on CPUs that have no instructions for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS: set[Callable[..., Any]] = {
    F.linear, F.conv2d, F.scaled_dot_product_attention,
    torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__,
}  # fmt: skip


class Float32Products(TorchFunctionMode):
    """Context in which autocast's bfloat16 products are computed by float32 instructions.

    A product of two bfloat16 numbers is exact in float32, and instructions for bfloat16 sum in float32 as well. So the
    factors are rounded to bfloat16, multiplied as float32, and the sum is rounded; gradients likewise. What differs is
    the order of sums, and that attention keeps its weights in float32. On a CPU with AVX2 alone torch's own products of
    bfloat16 take 5 to 16 times as long.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, a product with rounded factors."""
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            product = func(*map(_rounded, args), **{name: _rounded(value) for name, value in kwargs.items()})
            return product.bfloat16()


def _rounded(value: Any) -> Any:
    return value.bfloat16().float() if isinstance(value, Tensor) and value.is_floating_point() else value
