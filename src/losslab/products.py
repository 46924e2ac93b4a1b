"""Matrix products of float32 tensors on a CPU, by the quickest library that torch brings along.

torch multiplies float32 matrices by MKL, which keeps its AVX-512 kernels for Intel's processors: on an AMD EPYC with
AVX-512, oneDNN (in torch, too) is about twice as quick (`scripts/benchmark heads`). Small products, other devices,
dtypes and processors, and whatever torch compiles, exports or transforms, stay torch's own. So does everything where
`torch.backends.mkldnn.enabled` is False.

Both libraries compute in float32; they add in another order, so that results agree to rounding alone.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_FLOPS = 2**24
"""Floating-point operations of a product that is worth the way to oneDNN, about 15 µs."""
_PROCESSORS = Path("/proc/cpuinfo")


@functools.cache
def has_quicker_library() -> bool:
    """Whether this processor is one on which oneDNN multiplies float32 matrices more quickly than MKL."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    capable = there and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return capable and hasattr(torch.ops.mkldnn, "_linear_pointwise") and "AuthenticAMD" in _vendor()


@functools.cache
def has_quick_exponential() -> bool:
    """Whether `torch.exp` of float32 on this CPU is quicker than a power of 2: it is MKL's, made for Intel's
    processors, and on others takes several times as long."""
    there: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return there and "GenuineIntel" in _vendor()


def _vendor() -> str:
    if not _PROCESSORS.exists():
        return platform.processor()
    return next((line for line in _PROCESSORS.read_text().splitlines() if line.startswith("vendor_id")), "")


def is_quicker(left: Tensor, right: Tensor) -> bool:
    """Whether oneDNN is to multiply left [n, k] by the transpose of right [m, k]."""
    return (
        not torch.compiler.is_compiling()
        and left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and 2 * left.numel() * right.shape[0] >= LEAST_FLOPS
        and has_quicker_library()
        and bool(torch.backends.mkldnn.enabled)
        and _is_plain(left)
        and _is_plain(right)
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is a tensor in memory, and not something that stands for one (a shard, a fake)."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear: hidden [..., D] · weightᵀ + bias → [..., V], for weight [V, D] and bias [V]."""
    if not is_quicker(hidden, weight) or torch.is_autocast_enabled("cpu"):
        return F.linear(hidden, weight, bias)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad or _trains(bias)):
        result: Tensor = _Linear.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _multiply(hidden, weight, bias)


def times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """left [n, k] · rightᵀ, right [m, k] → [n, m], outside of any graph. `right` may be a transposed view; `left` is
    copied where it is one."""
    return _multiply(left, right, None) if is_quicker(left, right) else left @ right.T


def product(left: Tensor, right: Tensor) -> Tensor:
    """left [n, k] · right [k, m] as float32, outside of any graph. With factors in half precision a GPU writes the
    float32 sums that it makes; a CPU rounds them."""
    if _sums_in_float32(left):
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left [n, k] · right [k, m] to a float32 sum; on a GPU in the product itself, without a matrix of its own."""
    if _sums_in_float32(left) and not torch.compiler.is_compiling():  # pytorch's issue 163880
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    elif left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total.add_(product(left, right))


def _sums_in_float32(factor: Tensor) -> bool:
    """Whether torch has a product of half-precision factors whose result is float32: with CUDA alone."""
    return factor.is_cuda and torch.version.hip is None and factor.dtype in (torch.float16, torch.bfloat16)


def quicken(module: nn.Module) -> None:
    """Let every plain nn.Linear in a module multiply by `linear`."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear


class Linear(nn.Linear):
    """nn.Linear with the product of `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """`linear` with a graph; its gradients are products of the same kind, and have gradients of their own."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return _multiply(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        of_hidden, of_weight, of_bias = ctx.needs_input_grad
        rows = slope.flatten(0, -2)
        return (
            linear(slope, weight.T) if of_hidden else None,
            _of_weight(rows, hidden.flatten(0, -2)) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _of_weight(slope: Tensor, hidden: Tensor) -> Tensor:
    """slopeᵀ · hidden [V, D]. oneDNN reads the left factor in rows, so that the smaller of the two is transposed."""
    if hidden.numel() + slope.shape[1] * hidden.shape[1] < slope.numel():
        return linear(hidden.T, slope.T).T.contiguous()
    return linear(slope.T, hidden.T)


def _multiply(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not weight.is_contiguous() and not weight.T.is_contiguous():
        weight = weight.contiguous()  # for anything else, such as some of its columns or a sum's slope, oneDNN is slow
    result: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
    return result


def _trains(bias: Tensor | None) -> bool:
    return bias is not None and bias.requires_grad
