"""The vision transformer."""

import pytest
import torch

import kappaflow as kf
from kappaflow.images.vit import SelfAttention, TransformerBlock
from kappaflow.testing.contract import jittered


def test_large_scores_do_not_overflow():
    """The largest score of each token is taken off before the exponential."""
    attention = SelfAttention(4, 1)
    answer = attention(1e3 * torch.randn(2, 3, 4))
    assert answer.isfinite().all() and answer.abs().max() > 0


def test_a_block_is_that_of_torch_with_the_norm_first():
    """The same weights in torch's own layer give the same answer."""
    block = jittered(TransformerBlock(8, 2)).double()
    peer = torch.nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    peer.self_attn.in_proj_weight = block.attention.enter.weight
    peer.self_attn.in_proj_bias = block.attention.enter.bias
    peer.self_attn.out_proj = block.attention.leave
    peer.norm1.load_state_dict(block.before_attention.state_dict())
    peer.norm2.load_state_dict(block.before_network.state_dict())
    peer.linear1, peer.linear2 = block.network[0], block.network[2]
    tokens = torch.randn(4, 5, 8).double()
    torch.testing.assert_close(block(tokens), peer(tokens), rtol=1e-12, atol=1e-12)


def test_it_is_an_embedding_blocks_a_norm_and_a_linear_layer():
    """Position (i, j) is the token i * width + j, and the context is added to all of them."""
    net = jittered(
        kf.images.VisionTransformer(
            2, 3, width=8, depth=1, heads=2, places=(2, 3), context_features=4
        )
    ).double()
    x, context = torch.randn(5, 2, 2, 3).double(), torch.randn(5, 4).double()
    tokens = torch.stack(
        [
            net.embedding(x[:, :, i, j]) + net.positions[3 * i + j] + net.context(context)
            for i in range(2)
            for j in range(3)
        ],
        dim=1,
    )
    expected = net.last(net.norm(net.blocks[0](tokens)))
    result = net(x, context)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(result[:, :, i, j], expected[:, 3 * i + j])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'places' should be the height and the width of the input, got None"),
        ({"places": (4, 4, 4)}, r"'places' should be the height .*, got \(4, 4, 4\)"),
        ({"places": "44"}, "'places' should be the height .*, got '44'"),
        ({"places": (0, 4)}, "'places' should be at least 1, got 0"),
        (
            {"places": (4, 4), "width": 64, "heads": 3},
            "'heads' should divide 'width', got 3 heads",
        ),
        ({"places": (4, 4), "heads": 0}, "'heads' should be at least 1, got 0"),
        ({"places": (4, 4), "width": 0}, "'width' should be at least 1, got 0"),
        ({"places": (4, 4), "depth": 0}, "'depth' should be at least 1, got 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, message):
    """The message names the argument and its value."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.images.VisionTransformer(2, 2, **settings)


def test_an_image_of_other_places_is_refused():
    """There is no vector for them."""
    net = kf.images.VisionTransformer(2, 2, places=(4, 3))
    with pytest.raises(
        kf.errors.ArgumentError, match=r"should have \(4, 3\) places, got \(3, 4\)"
    ):
        net(torch.zeros(1, 2, 3, 4))
