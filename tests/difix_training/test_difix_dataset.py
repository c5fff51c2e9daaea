import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.difix_training.batch import Augmentation, before_plain, identical, jittered, permuted
from difix3d.difix_training.dataset import Crops, centre, join, numbers, read_pairs, stream, usable
from difix3d.errors import UserError
from difix3d.images import write_image


def grid(width, height, blue):
    """Red tells the column, green the row, blue the picture."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width).round()
    image[..., 1] = np.linspace(0, 255, height).round()[:, None]
    image[..., 2] = blue
    return image


@pytest.fixture
def folder(tmp_path):
    """Three pairs of 60 x 40 pixels; references in two sizes, missing, and as a list."""
    for name, (width, height, blue) in {
        "bad": (60, 40, 10), "good": (60, 40, 80), "ref": (60, 40, 150), "wide": (120, 40, 220)
    }.items():  # fmt: skip
        write_image(tmp_path / f"{name}.png", grid(width, height, blue))
    pair = {"image": "bad.png", "target_image": str(tmp_path / "good.png"), "prompt": "remove degradation"}
    save(
        tmp_path,
        {
            "train": {
                "a": pair | {"ref_image": "ref.png"},
                "b": pair | {"ref_image": ["ref.png", "wide.png"], "prompt": "clean"},
            },
            "test": {"c": {"image": "bad.png", "target_image": "good.png"}},
        },
    )
    return tmp_path


def save(folder, content):
    (folder / "pairs.json").write_text(json.dumps(content))


def test_the_published_format(folder):
    pairs = read_pairs(folder / "pairs.json")
    a, b = pairs["train"]
    assert (a.id, a.image, a.target) == ("a", folder / "bad.png", folder / "good.png")
    assert a.references == (folder / "ref.png",)
    assert b.references == (folder / "ref.png", folder / "wide.png")
    assert b.prompt == "clean"
    assert pairs["test"][0].references == ()
    assert pairs["test"][0].prompt == "remove degradation"
    save(folder, {"train": {}})
    assert read_pairs(folder / "pairs.json") == {"train": [], "test": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"test": {}}, 'pairs.json lacks the key "train"'),
        ({"train": {}, "test": []}, 'lacks the key "test"'),
        ([], 'lacks the key "train"'),
        ({"train": {"x7": {"image": "a.png"}}}, 'train pair x7 lacks the key "target_image"'),
    ],
)
def test_a_missing_key_is_named(folder, content, message):
    save(folder, content)
    with pytest.raises(UserError, match=message):
        read_pairs(folder / "pairs.json")


def test_no_json(tmp_path):
    with pytest.raises(UserError, match=r"The pairs cannot be read: .*none.json does not exist"):
        read_pairs(tmp_path / "none.json")


def test_bad_pairs_are_named_or_skipped(folder):
    train = read_pairs(folder / "pairs.json")["train"]
    whole = (folder / "good.png").read_bytes()
    assert usable(train, references=1) == (train, [])
    write_image(folder / "ref.png", grid(8, 8, 0))
    assert usable(train, references=1)[1] == []  # references may have any size
    (folder / "wide.png").unlink()
    with pytest.raises(UserError, match=r"Pair b.*wide.png does not exist.*1 of 2 pairs are bad.*--skip-bad"):
        usable(train, references=1)
    good, faults = usable(train, references=1, skip_bad=True)
    assert [pair.id for pair in good] == ["a"]
    assert len(faults) == 1
    (folder / "good.png").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match=r"Pair a.*good.png is unreadable.*2 of 2"):
        usable(train, references=1, skip_bad=True)
    with pytest.raises(UserError, match=r"Pair a.*good.png is unreadable"):
        Crops(train[:1], (16, 16))[0]
    write_image(folder / "good.png", grid(30, 40, 0))
    with pytest.raises(UserError, match=r"Pair a.*bad.png has 60 x 40 pixels.*good.png has 30 x 40"):
        usable(train, references=0)


def test_a_pair_without_its_reference(folder):
    test = read_pairs(folder / "pairs.json")["test"]
    with pytest.raises(UserError, match=r"Pair c has no ref_image, and --references is 1"):
        usable(test, references=1)
    assert usable(test, references=0)[0] == test


def test_crops_keep_render_photo_and_reference_in_register(folder):
    crops = Crops(read_pairs(folder / "pairs.json")["train"], (16, 24), max_scale=1.5, seed=3)
    mirrored, offsets = set(), set()
    for number in range(24):
        sample = crops[number]
        assert sample.images.shape == (1, 3, 16, 24)
        assert sample.references.shape == (1, 1, 3, 16, 24)
        render, photo, reference = sample.images[0], sample.photos[0], sample.references[0, 0]
        torch.testing.assert_close(render[:2], photo[:2], rtol=0, atol=0)
        assert abs(float(render[2].mean()) * 255 - 10) < 1
        assert abs(float(photo[2].mean()) * 255 - 80) < 1
        if abs(float(reference[2].mean()) * 255 - 150) < 1:
            torch.testing.assert_close(render[:2], reference[:2], rtol=0, atol=0)
        else:  # the wide one: the same window of its centre, where red rises half as fast
            torch.testing.assert_close(reference[1], render[1], rtol=0, atol=3 / 255)
            rise = (reference[0, :, -1] - reference[0, :, 0]) / (render[0, :, -1] - render[0, :, 0])
            torch.testing.assert_close(rise, torch.full_like(rise, 0.5), rtol=0, atol=0.03)
        mirrored.add(bool(render[0, 0, 0] > render[0, 0, -1]))
        offsets.add(float(render[1, 0, 0]))
    assert mirrored == {True, False}
    assert len(offsets) > 8


def test_centre_is_neither_random_nor_mirrored(folder):
    pair = read_pairs(folder / "pairs.json")["train"][1]
    sample = centre(pair, (40, 40), references=3)
    assert sample.references.shape == (1, 3, 3, 40, 40)
    whole = torch.from_numpy(grid(60, 40, 10)).permute(2, 0, 1) / 255
    torch.testing.assert_close(sample.images[0], whole[:, :, 10:50], rtol=0, atol=1e-6)
    assert centre(pair, (40, 40), references=0).references.shape == (1, 0, 3, 40, 40)


def test_processes_together_see_what_one_sees():
    alone = list(numbers(3, 5, batch=4))
    both = [list(numbers(3, 5, batch=2, rank=rank, processes=2)) for rank in range(2)]
    assert alone == [a + b for a, b in zip(*both, strict=True)] == [[12, 13, 14, 15], [16, 17, 18, 19]]


def test_samples_follow_from_seed_and_number(folder):
    pairs = read_pairs(folder / "pairs.json")["train"]
    batches = list(stream(Crops(pairs, (16, 16), seed=1), numbers(0, 5, 2), workers=2))
    again = list(stream(Crops(pairs, (16, 16), seed=1), numbers(2, 5, 2), workers=1))
    assert len(batches) == 5
    for a, b in zip(batches[2:], again, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.references, b.references)
        assert a.prompts == b.prompts
    assert {len(set(batch.prompts)) for batch in batches} == {2}  # two pairs: each turn has both
    other = Crops(pairs, (16, 16), seed=2)
    assert not torch.equal(join([other[0], other[1]]).images, batches[0].images)


@pytest.fixture
def layered(tmp_path):
    """One pair with two layers of warped references: the second sees only the right half."""
    for name, blue in (("bad", 10), ("good", 80)):
        write_image(tmp_path / f"{name}.png", grid(60, 40, blue))
    for name, first in (("0", 0), ("1", 30)):
        layer = np.concatenate([grid(60, 40, 200), np.full((40, 60, 1), 255, np.uint8)], 2)
        layer[:, :first] = 0
        write_image(tmp_path / f"{name}.png", layer)
    write_image(tmp_path / "alpha.png", np.linspace(0, 1, 60)[None, :, None].repeat(40, 0))
    pair = {
        "image": "bad.png",
        "target_image": "good.png",
        "alpha_image": "alpha.png",
        "warp_image": ["0.png", "1.png"],
    }
    save(tmp_path, {"train": {"a": pair}})
    return read_pairs(tmp_path / "pairs.json")["train"]


def test_layers_stay_in_register_with_the_render(layered):
    crops = Crops(layered, (24, 32), references=0, layers=2, max_scale=1.5, seed=1)
    for number in range(6):
        batch = crops[number]
        assert batch.images.shape == (1, 12, 24, 32)
        render, alpha, first, second = batch.images[0].split([3, 1, 4, 4])
        assert torch.allclose(alpha[0], render[0], atol=0.03)  # red and alpha are the column
        assert (first[3] == 1).all()
        assert torch.allclose(first[:2], render[:2], atol=0.03)  # red and green are the place
        seen = second[3] == 1
        assert torch.equal(seen, second[:3].amax(0) > 0)
        assert torch.allclose(second[:2, seen], render[:2, seen], atol=0.03)


def test_colours_are_permuted_alike_in_all_pictures(layered):
    batch = centre(layered[0], (24, 32), references=0, layers=2)
    other = permuted(batch, [2, 0, 1])
    assert torch.equal(other.images[:, :3], batch.images[:, [2, 0, 1]])
    assert torch.equal(other.images[:, 3:], batch.images[:, [3, 6, 4, 5, 7, 10, 8, 9, 11]])
    assert torch.equal(other.photos, batch.photos[:, [2, 0, 1]])
    crops = Crops(layered, (24, 32), references=0, layers=2, augment=Augmentation(shuffle_channels=True))
    orders = {tuple(crops[n].photos[0].flatten(1).std(1).argsort().tolist()) for n in range(20)}
    assert len(orders) > 2


def test_light_changes_alike_in_all_pictures(layered):
    batch = centre(layered[0], (24, 32), references=0, layers=2)
    batch = replace(batch, references=batch.photos[:, None])
    lit = jittered(batch, 0.4, np.random.default_rng(3))
    red = batch.photos[0, 0, :, 8]  # of one column: one value, that all pictures share
    change = lit.photos[0, 0, 0, 8] / batch.photos[0, 0, 0, 8]
    assert red.std() == 0
    assert abs(change - 1) > 0.02
    for changed, before in (
        (lit.images[0, 0], batch.images[0, 0]),
        (lit.images[0, 4], batch.images[0, 4]),
        (lit.references[0, 0, 0], batch.references[0, 0, 0]),
    ):
        assert torch.allclose(changed[:, 8] / before[:, 8], change.expand(24), atol=0.02)
    assert torch.equal(lit.images[:, [3, 7, 11]], batch.images[:, [3, 7, 11]])  # alpha
    assert lit.images.min() >= 0
    assert lit.images.max() <= 1
    changes = [jittered(batch, 0.4, np.random.default_rng(n)).photos.mean() for n in range(20)]
    assert min(changes) < 0.8 * batch.photos.mean() < 1.1 * batch.photos.mean() < max(changes)


def test_an_identical_pair_has_its_photo_as_the_render_and_half_the_time_no_layer(layered):
    batch = centre(layered[0], (24, 32), references=0, layers=2)
    right = identical(batch)
    assert torch.equal(right.images[:, :3], batch.photos)
    assert (right.images[:, 3] == 1).all()
    assert torch.equal(right.images[:, 4:], batch.images[:, 4:])
    alone = identical(batch, alone=True)
    assert torch.equal(alone.images[:, :4], right.images[:, :4])
    assert batch.images[:, 4:].any()
    assert not alone.images[:, 4:].any()
    crops = Crops(layered, (24, 32), references=0, layers=2, augment=Augmentation(identity_prob=0.25))
    batches = [crops[n] for n in range(160)]
    identities = [batch.images for batch in batches if torch.equal(batch.images[:, :3], batch.photos)]
    assert 0.1 < len(identities) / 160 < 0.4
    assert 0.2 < np.mean([not images[:, 4:].any() for images in identities]) < 0.8


def test_before_a_plain_background_render_photo_and_layers_agree_on_it(layered):
    batch = centre(layered[0], (24, 32), references=0, layers=2)
    images = batch.images.clone()
    images[:, 3] = torch.linspace(0, 1, 32)
    batch = replace(batch, images=images)
    backgrounds = []
    for seed in range(12):
        plain = before_plain(batch, np.random.default_rng(seed))
        assert torch.equal(plain.images[:, 3::4], batch.images[:, 3::4])  # coverage, and where layers are valid
        assert torch.equal(plain.images[..., :3, :, 31], batch.images[..., :3, :, 31])
        assert torch.equal(plain.photos[..., 0], plain.images[:, :3, :, 0])
        background = plain.photos[..., :1]
        mixed = background + batch.images[:, 3:4] * (batch.photos - background)
        assert torch.allclose(plain.photos, mixed, atol=1e-6)
        layer = plain.images[0, 4:7, :, 0]
        assert torch.equal(layer, plain.photos[0, :, :, 0] * batch.images[0, 7, :, 0])
        backgrounds.append(plain.photos[0, :, :, 0])
    black = [not colors.any() for colors in backgrounds]
    assert 2 < sum(black) < 10
    some = Augmentation(plain_prob=0.5)
    changed = [not torch.equal(some(batch, np.random.default_rng(seed)).photos, batch.photos) for seed in range(40)]
    assert 0.2 < np.mean(changed) < 0.8


def test_an_incomplete_guide_is_named(layered):
    with pytest.raises(UserError, match=r"Pair a has an alpha_image, and 2 files in warp_image; .* alpha and 3 layers"):
        usable(layered, 0, layers=3)
    with pytest.raises(UserError, match=r"Pair a has no alpha_image"):
        usable([replace(layered[0], alpha=None)], 0, layers=2)
