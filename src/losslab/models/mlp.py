"""The position-wise network of a layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Position-wise two-layer network; swiglu gates one half of the input map with the other."""

    def __init__(self, *, width: int, mlp_width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.input = nn.Linear(width, 2 * mlp_width if activation == "swiglu" else mlp_width, bias=bias)
        self.output = nn.Linear(mlp_width, width, bias=bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        x = self.input(hidden_BTD)
        if self.activation == "swiglu":
            gate, value = x.chunk(2, dim=-1)
            x = F.silu(gate) * value
        else:
            x = F.gelu(x) if self.activation == "gelu" else F.relu(x)
        output: Tensor = self.output(x)
        return output
