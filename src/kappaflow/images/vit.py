"""A small vision transformer as a conditioner, with attention over all pixel positions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow._checks import positive_int
from kappaflow.errors import ArgumentError
from kappaflow.nets.layers import ReadingNetwork, context_map, context_shift, image, zeroed
from kappaflow.registry import register

EXPANSION = 4  # hidden width of a block, as a multiple of the token width
POSITION_DEVIATION = 0.02  # standard deviation of the initial position embedding
VARIANCE_FLOOR = 1e-5  # as in torch's LayerNorm


class LayerNorm(nn.Module):
    """Normalizes each token to mean 0 and deviation 1, then applies a learned scale and shift.

    The Jacobian products of `torch.nn.LayerNorm` have wrong gradients: mean and deviation are
    constants there (torch 2.13).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B, places, width) for tokens (B, places, width)."""
        centered = tokens - tokens.mean(2, keepdim=True)
        variance = centered.square().mean(2, keepdim=True)
        return centered * (variance + VARIANCE_FLOOR).rsqrt() * self.weight + self.bias


class SelfAttention(nn.Module):
    """Multi-head self-attention: averages of all tokens, weighted by softmax(q k^T / sqrt(d)).

    Uses plain products and exponentials, because all of their derivatives exist. Torch's fused
    attention has no second derivative on a CPU, and the forward-mode derivative of torch's softmax
    cannot be differentiated.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter = uniform_by_width(nn.Linear(width, 3 * width))
        self.leave = uniform_by_width(nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B, places, width) for tokens (B, places, width)."""
        rows, places, width = tokens.shape
        size = width // self.heads
        entered = self.enter(tokens).view(rows, places, 3, self.heads, size)
        query, key, value = entered.permute(2, 0, 3, 1, 4)  # each (B, heads, places, size)
        scores = (query * size**-0.5) @ key.transpose(2, 3)
        weights = (scores - scores.detach().amax(3, keepdim=True)).exp_()
        # Divide after the product, where there are fewer numbers.
        mixed = (weights @ value) / weights.sum(3, keepdim=True)
        return self.leave(mixed.transpose(1, 2).reshape(rows, places, width))


class TransformerBlock(nn.Module):
    """A pre-norm transformer block: attention and a per-token network, each with a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention = LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.before_network = LayerNorm(width)
        self.network = nn.Sequential(
            uniform_by_width(nn.Linear(width, EXPANSION * width)),
            nn.GELU(),
            uniform_by_width(nn.Linear(EXPANSION * width, width)),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B, places, width) for tokens (B, places, width)."""
        tokens = tokens + self.attention(self.before_attention(tokens))
        return tokens + self.network(self.before_network(tokens))


@register("VisionTransformer")
class VisionTransformer(ReadingNetwork):
    """A transformer with one token per pixel position; its last layer starts at zero.

    One linear map embeds the channels of each position. A learned vector for each position is
    added, so height and width are fixed. Time and memory of the attention grow with the square of
    the number of positions, so first squeeze larger images to few positions with many channels
    (space to depth).

    Args:
        inputs: Channels of the input; 0 if the network reads only the context.
        outputs: Channels of the output.
        width: Width of a token, a multiple of `heads`.
        depth: Number of transformer blocks.
        heads: Number of attention heads.
        places: Height and width of the input. Required.
        context_features: Width of the context. A linear map of it is added to every token.

    Raises:
        ArgumentError: A width is out of range, `heads` does not divide `width`, `places` is not a
            pair of numbers, or the network has neither an input nor a context.

    Source:
        Kolesnikov, Pinto, Tschannen 2024 (Jet); Dosovitskiy et al. 2021, with LayerNorm first.

    Example:
        >>> net = VisionTransformer(12, 24, width=16, depth=1, heads=2, places=(4, 3))
        >>> net(torch.ones(2, 12, 4, 3)).shape
        torch.Size([2, 24, 4, 3])
        >>> net(torch.ones(2, 12, 4, 3)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        places: Sequence[int] | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__(inputs, outputs, context_features)
        self.width, self.heads = positive_int("width", width), positive_int("heads", heads)
        if self.width % self.heads:
            raise ArgumentError(
                f"'heads' should divide 'width', got {heads} heads and a width of {width}: "
                "each head has an equal part of a token."
            )
        self.places = _height_and_width(places)
        positions = torch.randn(math.prod(self.places), self.width)
        self.positions = nn.Parameter(POSITION_DEVIATION * positions)
        self.embedding = nn.Linear(self.inputs, self.width) if self.inputs else None
        self.context = context_map(self.context_features, self.width, bias=False)
        count = positive_int("depth", depth)
        self.blocks = nn.ModuleList(TransformerBlock(self.width, self.heads) for _ in range(count))
        self.norm = LayerNorm(self.width)
        self.last = zeroed(nn.Linear(self.width, self.outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, outputs, H, W) for x (B, inputs, H, W), context (B, context_features)."""
        tokens = self._tokens(x, context)
        for block in self.blocks:
            tokens = block(tokens)
        answer = self.last(self.norm(tokens)).transpose(1, 2)
        return answer.reshape(x.shape[0], self.outputs, *self.places).contiguous()

    def _tokens(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns the embedded positions of an image, row by row, (B, places, width)."""
        if tuple(image("x", x, self.inputs).shape[2:]) != self.places:
            raise ArgumentError(
                f"'x' should have {self.places} places, got {tuple(x.shape[2:])}: "
                "a transformer has a learned vector for each place."
            )
        shift = context_shift(self.context, context, x.shape[0])
        tokens = self.positions
        if self.embedding is not None:
            tokens = self.embedding(x.flatten(2).transpose(1, 2)) + tokens
        return tokens if shift is None else tokens + shift[:, None]

    def extra_repr(self) -> str:
        return (
            f"heads={self.heads}, places={self.places}, context_features={self.context_features}"
        )


def uniform_by_width(linear: nn.Linear) -> nn.Linear:
    """Returns a layer after initializing it by Glorot's uniform rule, with zero bias."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _height_and_width(places: object) -> tuple[int, int]:
    """Returns `places` as two positive integers, or raises ArgumentError."""
    if isinstance(places, str) or not isinstance(places, Sequence) or len(places) != 2:
        raise ArgumentError(
            f"'places' should be the height and the width of the input, got {places!r}: "
            "a transformer has a learned vector for each place."
        )
    height, width = (positive_int("places", side) for side in places)
    return height, width
