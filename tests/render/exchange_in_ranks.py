"""gsplat's distributed rasterisation beside one process, in each process that ``torchrun`` starts.

On GPUs by NCCL. On the pretended device, which has none: gloo does what NCCL's functions say, on copies on the host.
"""

import os
import sys
from importlib import import_module

import torch
import torch.distributed as dist
from shared_data import SHARED

from difix3d.ranks import ALONE, Ranks
from difix3d.render import rasterize
from difix3d.types import Cameras, Gaussians

SIZE, CAMERAS, COUNT = (32, 24), 2, 61
RANDOM = torch.Generator().manual_seed(1)


def nccl_by_gloo():
    """Replaces what gsplat and torch's differentiable functions call on GPUs."""
    gather = dist.all_gather

    def all_gather(parts, x, group=None):
        on_host = [torch.empty(part.shape, dtype=part.dtype) for part in parts]
        gather(on_host, x.detach().cpu().contiguous())
        for part, value in zip(parts, on_host, strict=True):
            part.copy_(value)

    def all_gather_into_tensor(parts, x):
        all_gather(list(parts.split(1)), x.reshape(1))

    def all_to_all(parts, xs, group=None):
        everyones = [None] * dist.get_world_size()
        dist.all_gather_object(everyones, [x.detach().cpu() for x in xs])
        for part, sent in zip(parts, everyones, strict=True):
            part.copy_(sent[dist.get_rank()])

    def reduce_scatter(total, xs, op, group=None):
        parts = [torch.empty_like(total) for _ in xs]
        all_to_all(parts, xs)
        total.copy_(torch.stack(parts).sum(0))

    for function in (all_gather, all_gather_into_tensor, all_to_all, reduce_scatter):
        setattr(dist, function.__name__, function)
    dist.get_backend = lambda group=None: "nccl"


def start() -> Ranks:
    if not os.environ.get("DIFIX3D_PRETEND_CUDA"):
        return Ranks.here().join(torch.device("cuda"))
    dist.init_process_group("gloo")
    nccl_by_gloo()
    return Ranks(dist.get_rank(), dist.get_world_size(), 0)


def random(*shape):
    return torch.rand(shape, generator=RANDOM)


def render(fields, poses, K, goals, ranks):
    """The image, and the gradients of the Gaussians and of the poses."""
    leaves = {name: value.clone().requires_grad_() for name, value in {**fields, "poses": poses}.items()}
    sides = [torch.tensor([side] * len(poses)) for side in SIZE]
    cameras = Cameras(leaves.pop("poses"), K[: len(poses)], *sides)
    out = rasterize(Gaussians(**leaves), cameras, ranks=ranks)
    ((out.rgb - goals).square().sum() + out.depth.sum()).backward()
    grads = {name: value.grad for name, value in leaves.items()}
    return out.rgb.detach(), grads, cameras.c2w.grad


def main():
    ranks = start()
    device = ranks.device(torch.device("cuda", 0))
    fields = {
        "means": random(COUNT, 3) - 0.5,
        "quats": random(COUNT, 4) - 0.5,
        "scales": random(COUNT, 3) - 3,
        "opacities": random(COUNT) * 4 - 2,
        "sh0": random(COUNT, 1, 3),
        "shN": random(COUNT, 15, 3) / 4,
    }
    fields = {name: value.to(device) for name, value in fields.items()}
    poses = torch.eye(4).repeat(CAMERAS, 1, 1)
    poses[:, :3, 3] = torch.tensor([[0, 0, -2], [0.3, 0.1, -2.5]])
    K = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]]).repeat(CAMERAS, 1, 1).to(device)
    poses, goals = poses.to(device), random(CAMERAS, *SIZE[::-1], 3).to(device)

    rgb, grads, by_pose = render(fields, poses, K, goals, ALONE)
    own = slice(ranks.rank, ranks.rank + 1)
    own_fields = {name: ranks.part(value) for name, value in fields.items()}
    own_rgb, own_grads, own_by_pose = render(own_fields, poses[own], K, goals[own], ranks)
    grads = {name: ranks.part(value) for name, value in grads.items()}
    pairs = {"rgb": (own_rgb, rgb[own]), "poses": (own_by_pose, by_pose[own])}
    for name, (value, wanted) in (pairs | {name: (own_grads[name], grads[name]) for name in grads}).items():
        apart = float((value - wanted).abs().max() / wanted.abs().max())
        assert apart < 1e-5, f"{name}: {apart}"
        assert wanted.abs().max() > 0, name
    print(f"process {ranks.rank}: as one")
    ranks.close()


if __name__ == "__main__":
    if os.environ.get("DIFIX3D_PRETEND_CUDA"):
        sys.path.append(str(SHARED / "pretend_cuda"))
        import_module("pretend_cuda").install()
    main()
