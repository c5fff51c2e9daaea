from dataclasses import replace
from itertools import chain, islice

from difix3d.scene.batches import batches


def test_batches_visit_each_photo_once_an_epoch_and_never_mix_sizes(toy_scene):
    width = toy_scene.cameras.width.clone()
    width[toy_scene.train[:4]] = 32
    scene = replace(toy_scene, cameras=replace(toy_scene.cameras, width=width))
    order = list(islice(batches(scene, 2, seed=0, start=0), 10))  # 4 + 5 photos: 2 + 3 batches an epoch
    for epoch in (order[:5], order[5:]):
        assert sorted(chain.from_iterable(epoch)) == sorted(toy_scene.train.tolist())
    assert all(len({int(width[i]) for i in batch}) == 1 for batch in order)
    assert order[:5] != order[5:]
    assert list(islice(batches(scene, 2, seed=0, start=7), 3)) == order[7:]
