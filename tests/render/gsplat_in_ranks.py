"""gsplat's own distributed rasterisation in processes that share a GPU, or pretend one: ``torchrun`` starts this.

NCCL wants a GPU for each process, so that what it would send goes by way of the hosts here. Beside it stands our
rasteriser on the CPU, in one process with all Gaussians and all cameras.
"""

import torch
import torch.distributed as dist
from gsplat import distributed
from toy_model import cameras, gaussians

from difix3d.ranks import Ranks
from difix3d.render import rasterize


def everyones(value):
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, value)
    return parts


def hosts(tensors):
    return [x.detach().cpu() for x in tensors]


class AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return tuple(part.to(x.device) for part in everyones(x.detach().cpu()))

    @staticmethod
    def backward(ctx, *grads):
        return torch.stack([part[dist.get_rank()] for part in everyones(hosts(grads))]).sum(0).to(grads[0].device)


class AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, outputs, *inputs):
        exchange(outputs, inputs)
        return tuple(outputs)  # as torch does it, and gsplat counts on it: these very tensors

    @staticmethod
    def backward(ctx, *grads):
        return None, *(part[dist.get_rank()].to(grads[0].device) for part in everyones(hosts(grads)))


def exchange(outputs, inputs):
    for output, part in zip(outputs, everyones(hosts(inputs)), strict=True):
        output.copy_(part[dist.get_rank()])


def gather(outputs, x):
    for output, part in zip(outputs, everyones(x.detach().cpu()), strict=True):
        output.copy_(part)


class Hosts:
    """In place of torch.distributed."""

    all_gather = staticmethod(gather)
    all_to_all = staticmethod(exchange)

    @staticmethod
    def all_gather_into_tensor(output, x):
        output.copy_(torch.cat(everyones(x.detach().cpu().reshape(-1))))


class Differentiable:
    """In place of torch.distributed.nn.functional."""

    all_gather = AllGather.apply

    @staticmethod
    def all_to_all(outputs, inputs):
        return AllToAll.apply(outputs, *inputs)


def gradients(model, render, weights, cameras):
    (render.rgb * weights).sum().backward()
    return model.map(lambda x: x.grad.cpu()), render.info["means2d"].grad.cpu(), cameras.c2w.grad.cpu()


def leaves(model, device):
    return model.map(lambda x: x.detach().to(device).requires_grad_())


def asked(cameras):
    cameras.c2w.requires_grad_()
    return cameras


def main():
    dist.init_process_group("gloo")
    distributed.dist, distributed.distF = Hosts, Differentiable
    torch.distributed.all_gather, torch.distributed.all_to_all = gather, exchange
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), 0)
    model, weights = gaussians(), torch.rand(2, 40, 48, 3, generator=torch.Generator().manual_seed(1))

    one, both = leaves(model, "cpu"), asked(cameras())
    expected = rasterize(one, both)
    wanted, wanted2d, wanted_poses = gradients(one, expected, weights, both)

    part, own = leaves(model.map(ranks.part), "cuda"), asked(cameras()[ranks.rank].to("cuda"))
    out = rasterize(part, own, ranks=ranks)
    found, found2d, found_poses = gradients(part, out, weights[[ranks.rank]].to("cuda"), own)

    torch.testing.assert_close(out.rgb.cpu(), expected.rgb[[ranks.rank]], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(out.depth.cpu(), expected.depth[[ranks.rank]], atol=1e-2, rtol=1e-2)
    for name, value in found.as_dict().items():
        value, other = value, ranks.part(wanted.as_dict()[name])
        apart = (value - other).norm() / other.norm()
        assert apart < 1e-2, (name, float(apart))
    others2d = wanted2d[:, ranks.rank :: ranks.count]
    assert found2d.shape == others2d.shape
    assert (found2d - others2d).norm() / others2d.norm() < 1e-2
    moved, others = found_poses[0, :3, 3], wanted_poses[ranks.rank, :3, 3]  # turns keep to rotations in one way each
    assert (moved - others).norm() / others.norm() < 1e-2
    assert out.info["n_cameras"] == ranks.count
    print("as in one")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
