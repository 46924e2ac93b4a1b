"""Products by oneDNN against float64, and where they are left to torch."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from losslab import products
from losslab.contracts import Features
from losslab.losses import gradient_sums
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.execution import LinearMap
from losslab.products import Linear, add_product, is_quicker, linear, product, quicken, times_transposed

ROWS, WIDTH, OUTPUTS = 600, 96, 160
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN on every processor."""
    monkeypatch.setattr(products, "has_quicker_library", lambda: True)


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each product of oneDNN."""
    calls: list[int] = []
    own = products._multiply

    def multiply(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(1)
        return own(hidden, weight, bias)

    monkeypatch.setattr(products, "_multiply", multiply)
    return calls


@needs_onednn
@pytest.mark.parametrize("inner", [WIDTH, 4 * WIDTH])  # one gradient transposes slopes, the other hidden states
@pytest.mark.parametrize("bias", [False, True])
def test_linear_and_its_gradients_are_those_of_float64(inner: int, bias: bool, called: list[int]) -> None:
    layer = nn.Linear(inner, OUTPUTS, bias=bias)
    exact = nn.Linear(inner, OUTPUTS, bias=bias).double()
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    quicken(nn.Sequential(layer))
    hidden = _draw(3, ROWS, inner)
    found: list[list[Tensor]] = []
    for module, given in ((layer, hidden), (exact, hidden.double())):
        given = given.requires_grad_()
        output = module(given)
        (slope,) = torch.autograd.grad(output.tanh().sum(), given, create_graph=True)
        slope.square().sum().backward()  # a second derivative, too
        found.append([output, slope, given.grad, *(p.grad for p in module.parameters())])
    assert isinstance(layer, Linear)
    assert len(called) >= 5
    for ours, reference in zip(*found, strict=True):
        assert _error(ours.detach(), reference.detach()) < 2e-6


@needs_onednn
def test_the_smaller_factor_of_a_weights_gradient_is_copied() -> None:
    layer, hidden = quickened(WIDTH, 32 * WIDTH), _draw(ROWS, WIDTH)
    layer(hidden).square().sum().backward()
    expected = 2 * (hidden.double() @ layer.weight.double().T).T @ hidden.double()
    assert layer.weight.grad is not None
    assert layer.weight.grad.is_contiguous()
    assert _error(layer.weight.grad, expected.detach()) < 2e-6


@needs_onednn
@pytest.mark.parametrize("outputs", [OUTPUTS, 32 * WIDTH])
def test_the_slope_of_a_sum_is_one_number_shown_many_times(outputs: int) -> None:
    layer, hidden = quickened(WIDTH, outputs), _draw(ROWS, WIDTH).requires_grad_()
    layer(hidden).sum().backward()
    assert layer.weight.grad is not None
    assert hidden.grad is not None
    assert _error(layer.weight.grad, hidden.double().sum(dim=0).expand(outputs, -1).detach()) < 2e-6
    assert _error(hidden.grad, layer.weight.double().sum(dim=0).expand(ROWS, -1).detach()) < 2e-6


def quickened(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs, bias=False)
    quicken(layer)
    return layer


@needs_onednn
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_outside_of_any_graph(turned: bool, called: list[int]) -> None:
    left, right = _draw(ROWS, WIDTH), _draw(WIDTH, 2 * OUTPUTS).T if turned else _draw(2 * OUTPUTS, WIDTH)
    assert _error(times_transposed(left, right), left.double() @ right.double().T) < 1e-6
    assert called


@needs_onednn
@pytest.mark.parametrize(("bias", "parts"), [(False, 1), (True, 1), (False, 3)])
def test_a_head_in_several_chunks_has_the_gradients_of_float64(
    bias: bool, parts: int, called: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_sums, "_ROWS_WORTH_A_COPY", 2 * ROWS)
    monkeypatch.setattr(gradient_sums, "_LEAST_WIDTH", WIDTH // parts)
    monkeypatch.setattr(gradient_sums, "_MOST_BYTES", 1)
    outputs = 16384  # 1,024 rows a chunk
    hidden, weight, target = _draw(2 * ROWS, WIDTH), _draw(outputs, WIDTH) / WIDTH**0.5, torch.arange(2 * ROWS) * 7
    given = [hidden, weight, *([_draw(outputs)] if bias else [])]
    found: list[list[Tensor]] = []
    for dtype in (torch.float32, torch.float64):
        leaves = [tensor.to(dtype).detach().requires_grad_() for tensor in given]
        shift = leaves[2] if bias else None
        if dtype == torch.float32:
            features = Features(leaves[0], target, torch.ones(len(target)), {})
            total = CrossEntropy(label_smoothing=0.1)(features, LinearMap(leaves[1], shift)).total
        else:
            logits = nn.functional.linear(leaves[0], leaves[1], shift)
            total = nn.functional.cross_entropy(logits, target, label_smoothing=0.1, reduction="sum")
        total.backward()
        found.append([total.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    assert called
    assert all(tensor.is_contiguous() for tensor in found[0])
    for ours, reference in zip(*found, strict=True):
        assert _error(ours, reference) < 2e-6


def _peak(work: Callable[[], object]) -> int:
    """Bytes that torch holds on the CPU at most, beyond those of before."""
    work()  # oneDNN keeps what it makes once
    with torch.autograd.profiler.profile(profile_memory=True) as record:
        work()
    assert record.kineto_results is not None
    events = [event for event in record.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))


@needs_onednn
def test_a_head_holds_its_weight_twice_beside_one_chunk_and_half_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_sums, "_ROWS_WORTH_A_COPY", ROWS)
    outputs, width = 40960, 256
    weight = (_draw(outputs, width) / width**0.5).requires_grad_()  # larger logits give subnormal p, which are slow
    hidden = _draw(ROWS, width).requires_grad_()
    features = Features(hidden, torch.arange(ROWS), torch.ones(ROWS), {})
    peak = _peak(lambda: CrossEntropy()(features, LinearMap(weight, None)))
    of_weight = 4 * outputs * width
    assert 2 * of_weight < peak < 1.03 * (2.5 * of_weight + 2**25)


def _compiled() -> bool:
    seen: list[bool] = []

    def note(x: Tensor) -> Tensor:
        seen.append(is_quicker(x, x))
        return x + 1

    torch.compile(note, backend="eager")(_draw(ROWS, ROWS))
    return seen[-1]


def _transformed() -> bool:
    seen: list[bool] = []

    def note(x: Tensor) -> Tensor:
        seen.append(is_quicker(x, x))
        return x.sum()

    torch.func.grad(note)(_draw(ROWS, ROWS))
    return seen[-1]


def _switched_off() -> bool:
    torch.backends.mkldnn.enabled, before = False, torch.backends.mkldnn.enabled
    try:
        return is_quicker(_draw(ROWS, ROWS), _draw(ROWS, ROWS))
    finally:
        torch.backends.mkldnn.enabled = before


LEFT = {
    "small": lambda: is_quicker(_draw(64, 64), _draw(64, 64)),
    "float64": lambda: is_quicker(_draw(ROWS, ROWS).double(), _draw(ROWS, ROWS).double()),
    "bfloat16": lambda: is_quicker(_draw(ROWS, ROWS).bfloat16(), _draw(ROWS, ROWS).bfloat16()),
    "another device": lambda: is_quicker(_draw(ROWS, ROWS).to("meta"), _draw(ROWS, ROWS).to("meta")),
    "compiled": _compiled,
    "transformed": _transformed,
    "switched off": _switched_off,
}


@pytest.mark.parametrize("what", LEFT)
def test_torch_multiplies_whatever_is(what: str) -> None:
    case: Callable[[], bool] = LEFT[what]
    assert is_quicker(_draw(ROWS, ROWS), _draw(ROWS, ROWS))
    assert not case()


@needs_onednn
def test_autocast_multiplies_in_its_own_precision(called: list[int]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = linear(_draw(ROWS, WIDTH), _draw(2 * OUTPUTS, WIDTH))
    assert output.dtype == torch.bfloat16
    assert not called


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_of_products_are_float32(dtype: torch.dtype) -> None:
    left, right = _draw(OUTPUTS, 40).to(dtype), _draw(40, WIDTH).to(dtype)
    total = product(left, right)
    add_product(total, left, right)
    assert total.dtype == torch.float32
    assert _error(total, 2 * left.double() @ right.double()) < 4 * torch.finfo(dtype).eps
