"""Float32 instructions give what instructions for bfloat16 give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgecxr.models.vit import TwoHeadViT  # noqa: E402
from edgecxr.train import device as devices  # noqa: E402
from edgecxr.train.bfloat16 import Float32Products  # noqa: E402
from edgecxr.train.device import Device  # noqa: E402


@contextmanager
def products() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), Float32Products():
        yield


PRODUCTS: dict[str, tuple[Callable[..., torch.Tensor], Callable[[int, int, int], list[tuple[int, ...]]]]] = {
    "linear": (F.linear, lambda m, k, n: [(m, k), (n, k), (n,)]),
    "matmul": (torch.matmul, lambda m, k, n: [(2, m, k), (2, k, n)]),
    "@": (lambda a, b: a @ b, lambda m, k, n: [(m, k), (k, n)]),
    "conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), lambda m, k, n: [(m, k, 6, 6), (n, k, 3, 3)]),
    "attention": (F.scaled_dot_product_attention, lambda m, k, n: [(1, 2, m, k), (1, 2, n, k), (1, 2, n, k)]),
}


@pytest.mark.parametrize("name", list(PRODUCTS))
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_products_and_gradients_are_those_of_bfloat16(name: str, m: int, k: int, n: int, seed: int) -> None:
    function, shapes = PRODUCTS[name]
    generator = torch.Generator().manual_seed(seed)
    factors = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes(m, k, n)]

    def run() -> list[torch.Tensor]:
        product = function(*factors)
        assert product.dtype == torch.bfloat16
        weights = torch.linspace(-1, 1, product.numel()).reshape(product.shape)
        return [product.float(), *torch.autograd.grad((product.float() * weights).sum(), factors)]

    with torch.autocast("cpu", torch.bfloat16):
        expected = run()
    with products():
        actual = run()
    for value, reference in zip(actual, expected, strict=True):
        # Attention in bfloat16 rounds its weights as well; bfloat16 has 8 bits.
        torch.testing.assert_close(
            value, reference, rtol=2**-6, atol=2**-6 * (1 + float(reference.detach().abs().max()))
        )


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_factors_and_sums_are_rounded_and_nothing_between(m: int, k: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
    exact = a.bfloat16().double() @ b.bfloat16().double()
    with products():
        product = a @ b
    assert product.dtype == torch.bfloat16
    assert bool(((product.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all())


def test_a_student_s_gradient_is_as_far_from_that_of_float32_as_bfloat16_s() -> None:
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 4, 3, depth=2, stem="conv")
    images = torch.rand(4, 1, 28, 28)

    def gradient() -> torch.Tensor:
        trace = model.trace(images)
        assert trace.findings.dtype == trace.abnormal.dtype == torch.float32
        loss = trace.findings.square().mean() + trace.abnormal.square().mean() + trace.blocks[0].float().square().mean()
        return torch.cat(
            [
                value.flatten()
                for value in torch.autograd.grad(loss, model.parameters(), allow_unused=True)
                if value is not None
            ]
        )

    exact = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        reference = gradient()
    with products():
        actual = gradient()
    assert (reference - exact).norm() < 0.05 * exact.norm()
    assert 0.5 < (actual - exact).norm() / (reference - exact).norm() < 2


def test_nothing_is_rounded_outside_of_autocast() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    with Float32Products():
        assert torch.equal(a @ b, torch.mm(a, b))
    with products(), torch.autocast("cpu", enabled=False):
        assert torch.equal(a @ b, torch.mm(a, b))
    with products():
        assert torch.equal(torch.ones(2, dtype=torch.long) @ torch.ones(2, dtype=torch.long), torch.tensor(2))


@pytest.mark.parametrize(
    ("precision", "lacks", "compiled", "by_float32"),
    [
        ("bf16", True, False, True),
        ("bf16", False, False, False),
        ("bf16", True, True, False),
        ("fp32", True, False, False),
    ],
)
def test_a_cpu_without_bfloat16_multiplies_in_float32(
    monkeypatch: pytest.MonkeyPatch, precision: str, lacks: bool, compiled: bool, by_float32: bool
) -> None:
    monkeypatch.setattr(devices, "lacks_bfloat16", lambda: lacks)
    before = len(torch.overrides._get_current_function_mode_stack())
    with Device(torch.device("cpu"), precision, compiled).autocast():
        modes = torch.overrides._get_current_function_mode_stack()[before:]
        assert [type(mode) for mode in modes] == [Float32Products] * by_float32
        dtype = F.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype
    assert dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    assert len(torch.overrides._get_current_function_mode_stack()) == before
