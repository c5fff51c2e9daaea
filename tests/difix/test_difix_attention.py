"""Reference mixing against plain diffusers, a naive twin and the laws of attention."""

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from difix3d.difix.architecture import TINY_UNET, random_difix
from difix3d.difix.attention import MultiViewAttnProcessor


def test_one_view_is_the_plain_unet_to_the_bit(tiny):
    plain = UNet2DConditionModel(**TINY_UNET)
    plain.load_state_dict(tiny.unet.state_dict(), assign=True)  # the same memory: else bits may differ
    z, text, t = torch.randn(2, 4, 8, 12), torch.randn(2, 77, 32), torch.tensor(199)
    with torch.no_grad():
        expected = plain(z, t, text).sample
        assert torch.equal(tiny.unet(z, t, text).sample, expected)
        assert torch.equal(tiny.unet(z, t, text, cross_attention_kwargs={"num_views": 1}).sample, expected)


def test_each_view_attends_to_all_views_of_its_item():
    batch, views, tokens, heads = 2, 3, 5, 4
    attn = Attention(query_dim=16, heads=heads, dim_head=4, processor=MultiViewAttnProcessor())
    x = torch.randn(batch * views, tokens, 16)
    expected = torch.empty_like(x)
    for b in range(batch):  # the readable twin: every token of an item looks at every token of the item
        seen = torch.cat([x[b * views + v] for v in range(views)])
        k, v = (layer(seen).view(-1, heads, 4).transpose(0, 1) for layer in (attn.to_k, attn.to_v))
        for view in range(b * views, (b + 1) * views):
            q = attn.to_q(x[view]).view(-1, heads, 4).transpose(0, 1)
            weights = F.softmax(q @ k.transpose(1, 2) / 4**0.5, dim=-1)
            expected[view] = attn.to_out[0]((weights @ v).transpose(0, 1).reshape(tokens, 16))
    torch.testing.assert_close(attn(x, num_views=views), expected)


def test_gradients_reach_all_views():
    attn = Attention(query_dim=16, heads=4, dim_head=4, processor=MultiViewAttnProcessor())
    x = torch.randn(6, 5, 16, requires_grad=True)
    attn(x, num_views=3)[0].sum().backward()
    assert (x.grad[:3].abs().sum((1, 2)) > 0).all()
    assert (x.grad[3:] == 0).all()  # the other item


def test_cross_attention_stays_within_a_view():
    attn = Attention(query_dim=16, cross_attention_dim=8, heads=4, dim_head=4, processor=MultiViewAttnProcessor())
    x, text = torch.randn(6, 5, 16), torch.randn(6, 7, 8)
    assert torch.equal(attn(x, text, num_views=3), attn(x, text))


def test_a_view_that_repeats_the_image_changes_nothing(exact, pictures):
    image = pictures.smooth(1, 3, 32, 48)
    alone = exact.fix(image)
    for count in (1, 2):
        copies = image[:, None].expand(-1, count, -1, -1, -1)
        torch.testing.assert_close(exact.fix(image, copies), alone, atol=1e-6, rtol=0)


def test_the_order_of_references_does_not_matter(exact, pictures):
    image, refs = pictures.smooth(1, 3, 32, 48), pictures.smooth(1, 3, 3, 32, 48, seed=1)
    torch.testing.assert_close(exact.fix(image, refs), exact.fix(image, refs.flip(1)), atol=1e-6, rtol=0)


def test_two_pipelines_live_side_by_side(pictures):
    first, second = random_difix(), random_difix(seed=1)
    image, ref = pictures.smooth(1, 3, 32, 48), pictures.smooth(1, 1, 3, 32, 48, seed=1)
    before = first.fix(image)
    second.fix(image, ref)
    assert torch.equal(first.fix(image), before)
    plain = UNet2DConditionModel(**TINY_UNET)  # made after the pipelines: nothing is patched process-wide
    assert not any(isinstance(p, MultiViewAttnProcessor) for p in plain.attn_processors.values())
