"""The C++ rasteriser against its float64 twin, and the twin against gsplat's reference code and finite differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from difix3d import native
from difix3d.render import cpu, rasterize, torch_twin
from difix3d.types import Cameras, Gaussians, Render

needs_compiler = pytest.mark.skipif(native.find_compiler() is None, reason="needs a C++ compiler")


def make_cameras(n: int = 1, width: int = 70, height: int = 45) -> Cameras:
    """Cameras side by side near the origin, each turned a little further, all looking along z."""
    angle = 0.2 * torch.arange(n)
    c2w = torch.eye(4).repeat(n, 1, 1)
    c2w[:, 0, 0] = c2w[:, 2, 2] = angle.cos()
    c2w[:, 0, 2], c2w[:, 2, 0] = angle.sin(), -angle.sin()
    c2w[:, 0, 3] = -0.5 * torch.arange(n)
    K = torch.tensor([[60.0, 0, width / 2 + 1], [0, 62, height / 2 - 2], [0, 0, 1]]).repeat(n, 1, 1)
    return Cameras(c2w, K, torch.full((n,), width), torch.full((n,), height))


def make_gaussians(n: int = 200, degree: int = 3, seed: int = 0) -> Gaussians:
    """A cloud about (0, 0, 4), some of it behind the camera and outside of its view."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    means = normal(n, 3) * torch.tensor([1.5, 1.5, 2.0]) + torch.tensor([0, 0, 4.0])
    shN = 0.2 * normal(n, (degree + 1) ** 2 - 1, 3)
    return Gaussians(means, normal(n, 4), normal(n, 3) - 2.5, 2 * normal(n), 0.5 * normal(n, 1, 3), shN)


def evaluate(
    run: Callable[..., Render],
    gaussians: Gaussians,
    cameras: Cameras,
    dtype: torch.dtype,
    use: str = "rgb alpha depth",
    **options,
) -> dict[str, Tensor]:
    """Images, and gradients of a random function of those named in ``use``, as one flat dictionary."""
    g = gaussians.map(lambda x: x.to(dtype).clone().requires_grad_())
    c2w = cameras.c2w.to(dtype).clone().requires_grad_()
    background = torch.tensor([0.2, 0.5, 0.7], dtype=dtype, requires_grad=True)
    options = {"sh_degree": gaussians.sh_degree, **options}
    cameras = Cameras(c2w, cameras.K.to(dtype), cameras.width, cameras.height)
    render = run(g, cameras, background=background, absgrad=True, **options)
    images = {"rgb": render.rgb, "alpha": render.alpha, "depth": render.depth}
    random = torch.Generator().manual_seed(1)
    weights = {k: torch.randn(x.shape, generator=random) for k, x in images.items()}
    sum((weights[k] * images[k]).sum() for k in use.split()).backward()
    result = {k: x.detach() for k, x in images.items()} | {f"v_{k}": x.grad for k, x in g.as_dict().items()}
    means2d = render.info["means2d"]
    result |= {
        "v_c2w": c2w.grad,
        "v_background": background.grad,
        "v_means2d": means2d.grad,
        "absgrad": means2d.absgrad,
    }
    return result | {"radii": render.info["radii"].double()}


def assert_close(
    result: dict[str, Tensor], expected: dict[str, Tensor], image: float = 2e-3, gradient: float = 1e-4
) -> None:
    for name, x in expected.items():
        assert result[name] is not None, name
        y = result[name].double()
        assert y.isfinite().all(), name
        if name in ("rgb", "alpha"):
            assert (x - y).abs().max() <= image, name
        elif x.norm() == 0:
            assert y.norm() == 0, name
        else:
            assert (x - y).norm() <= (gradient if name != "radii" else 0) * x.norm(), name


def compare(gaussians: Gaussians, cameras: Cameras, gradient: float = 1e-4, **options) -> None:
    expected = evaluate(torch_twin.rasterize, gaussians, cameras, torch.float64, **options)
    assert_close(evaluate(rasterize, gaussians, cameras, torch.float32, **options), expected, gradient=gradient)


@needs_compiler
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize(
    ("degree", "cameras", "size"),
    [(0, 1, (64, 48)), (1, 2, (70, 45)), (2, 1, (17, 15)), (3, 3, (33, 80)), (3, 1, (9, 3))],
)
def test_native_equals_twin(degree, cameras, size, antialiased):
    compare(make_gaussians(degree=degree), make_cameras(cameras, *size), antialiased=antialiased)


@needs_compiler
@pytest.mark.parametrize("use", ["rgb", "alpha", "depth"])
def test_each_output_alone(use):
    compare(make_gaussians(), make_cameras(), use=use)


@needs_compiler
@pytest.mark.parametrize(("stored", "used"), [(3, 0), (3, 1), (3, 2), (2, 1), (1, 0)])
def test_lower_degree_than_stored(stored, used):
    compare(make_gaussians(degree=stored), make_cameras(), sh_degree=used)


@needs_compiler
@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000])
def test_numbers_of_gaussians(n):
    compare(make_gaussians(n, seed=3), make_cameras(2), gradient=3e-4)  # of a single one, rounding shows


@needs_compiler
def test_extreme_sizes():
    g = make_gaussians(60)
    g.scales[:20] = -12  # far below a pixel
    g.scales[20:24] = 2.0  # many times the image
    g.scales[24:30, 0], g.scales[24:30, 1:] = 0.5, -7  # needles
    compare(g, make_cameras(), gradient=3e-4)  # float32 in torch is no better on the needles


@needs_compiler
def test_opacities_near_the_cut_offs():
    g = make_gaussians(120)
    alpha = torch.tensor([1 / 255 * (1 - 1e-3), 1 / 255 * (1 + 1e-3), 0.998, 0.9995, 0.99999])
    compare(Gaussians(g.means, g.quats, g.scales, alpha.logit().repeat(24), g.sh0, g.shN), make_cameras())


@needs_compiler
def test_opaque_layers_stop_the_light():
    g = make_gaussians(400)
    compare(Gaussians(g.means, g.quats, g.scales + 1.5, g.opacities * 0 + 4, g.sh0, g.shN), make_cameras())


@needs_compiler
def test_depth_ties_keep_the_order_of_the_gaussians():
    g = make_gaussians(60)
    g.means[:, 2] = 4
    compare(g, make_cameras())


@needs_compiler
def test_near_and_far():
    compare(make_gaussians(), make_cameras(), near=3.0, far=5.0)
    render = rasterize(make_gaussians(), make_cameras(), near=3.0, far=5.0)
    depths = render.info["depths"][(render.info["radii"] > 0).all(-1)]
    assert depths.min() >= 3
    assert depths.max() <= 5


@pytest.mark.parametrize("run", [torch_twin.rasterize, pytest.param(cpu.rasterize, marks=needs_compiler)])
@pytest.mark.parametrize("n", [0, 50])
def test_nothing_visible_is_background(run, n):
    g = make_gaussians(n)
    g.means[:, 2] = -4
    result = evaluate(run, g, make_cameras(2), torch.float32)
    assert (result["rgb"] == torch.tensor([0.2, 0.5, 0.7])).all()
    assert result["alpha"].abs().max() == result["depth"].abs().max() == 0
    assert all(result[name].abs().sum() == 0 for name in result if name.startswith("v_") and name != "v_background")


@pytest.mark.parametrize("run", [torch_twin.rasterize, pytest.param(cpu.rasterize, marks=needs_compiler)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_gaussians_that_are_not_finite_are_left_out(run, bad):
    good = make_gaussians(40)
    names = ("means", "quats", "scales", "opacities", "sh0", "shN")
    broken = good.map(lambda x: x.clone())
    for i, name in enumerate(names):
        getattr(broken, name)[5 * i] = bad
    broken.quats[35] = 0
    rows = [5 * i for i in range(len(names))] + [35]
    kept = torch.tensor([i for i in range(40) if i not in rows])
    result, expected = (evaluate(run, g, make_cameras(2), torch.float32) for g in (broken, good.map(lambda x: x[kept])))
    for name in ("rgb", "alpha", "depth", "v_c2w"):
        torch.testing.assert_close(result[name], expected[name], rtol=1e-4, atol=1e-4)
    for name in names:
        assert (result[f"v_{name}"][rows] == 0).all(), name
        torch.testing.assert_close(result[f"v_{name}"][kept], expected[f"v_{name}"], rtol=1e-3, atol=1e-4)


@needs_compiler
def test_bits_do_not_depend_on_threads():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(evaluate(rasterize, make_gaussians(2000), make_cameras(2), torch.float32))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for name in result:
            if name != "v_background":  # that one is a sum by torch
                assert torch.equal(result[name], results[0][name]), name


def test_twin_by_finite_differences():
    g = make_gaussians(5, seed=2).map(lambda x: x.double())
    g.means[:, :2] *= 0.2
    g.means[:, 2] = torch.tensor([3.0, 4, 5, 6, 7])
    g.scales[:] = torch.linspace(-1.5, -0.5, 15).reshape(5, 3)
    g.opacities[:] = torch.linspace(-1, 1, 5)
    cameras = make_cameras(1, 8, 6)
    K = torch.tensor([[[8.0, 0, 4], [0, 8, 3], [0, 0, 1]]]).double()

    def outputs(c2w: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
        options = {"sh_degree": 3, "background": torch.rand(3).double() * 0 + 0.3, "antialiased": True}
        render = torch_twin.rasterize(Gaussians(*fields), Cameras(c2w, K, cameras.width, cameras.height), **options)
        return render.rgb, render.alpha, render.depth

    inputs = [x.requires_grad_() for x in (cameras.c2w.double(), *g.as_dict().values())]
    assert torch.autograd.gradcheck(outputs, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


def test_twin_equals_gsplat_reference():
    pytest.importorskip("gsplat", minversion="1.5")  # before, radii were of three standard deviations
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    g, cameras = make_gaussians(300).map(lambda x: x.double()), make_cameras(2)
    width, height = cameras.size
    w2c, K = cameras.w2c.double(), cameras.K.double()
    covariances, _ = reference._quat_scale_to_covar_preci(g.quats, g.scales.exp(), True, False)
    radii, means2d, depths, conics, compensations = reference._fully_fused_projection(
        g.means, covariances, w2c, K, width, height, calc_compensations=True
    )
    p = torch_twin.project(g, Cameras(cameras.c2w.double(), K, cameras.width, cameras.height), 3, True, 0.01, 1e10)
    seen = (p["radii"] > 0).all(-1)
    assert seen.any()
    assert (radii[seen] > 0).all()  # ours are the opacity-aware ones, which are never larger
    assert (p["radii"][seen] <= radii[seen]).all()
    for name, theirs in (("means2d", means2d), ("depths", depths), ("conics", conics)):
        torch.testing.assert_close(p[name][seen], theirs[seen], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        p["opacities"][seen], (g.opacities.sigmoid() * compensations)[seen], rtol=1e-6, atol=1e-6
    )
    directions = g.means - cameras.centers[:, None].double()
    coefficients = torch.cat([g.sh0, g.shN], 1).expand(2, -1, -1, -1)
    colors = (reference._spherical_harmonics(3, directions, coefficients) + 0.5).clamp(min=0)
    torch.testing.assert_close(p["colors"][seen], colors[seen], rtol=1e-6, atol=1e-6)


def test_absgrad_is_the_sum_over_pixels():
    g, cameras = make_gaussians(40, seed=4).map(lambda x: x.double()), make_cameras(1, 20, 18)
    cameras = Cameras(cameras.c2w.double(), cameras.K.double(), cameras.width, cameras.height)
    expected = evaluate(torch_twin.rasterize, g, cameras, torch.float64, use="rgb")["absgrad"]
    g = g.map(lambda x: x.requires_grad_())
    render = torch_twin.rasterize(g, cameras, sh_degree=3, background=torch.tensor([0.2, 0.5, 0.7]))
    weights = torch.randn(render.rgb.shape, generator=torch.Generator().manual_seed(1))
    pixels = (weights * render.rgb).sum(-1).flatten()
    total = sum(torch.autograd.grad(x, render.info["means2d"], retain_graph=True)[0].abs() for x in pixels)
    torch.testing.assert_close(expected, total)
    assert expected.norm() > 0


def test_sh_degree_out_of_range():
    with pytest.raises(ValueError, match=r"sh_degree is 3, but has to be in 0\.\.1"):
        rasterize(make_gaussians(degree=1), make_cameras(), sh_degree=3)


def test_cameras_of_two_sizes():
    cameras = make_cameras(2)
    cameras.width[1] = 30
    with pytest.raises(ValueError, match="different image sizes"):
        rasterize(make_gaussians(), cameras)


def test_without_depth_and_without_gradients():
    with torch.no_grad():
        render = rasterize(make_gaussians(), make_cameras(), depth=False)
    assert render.depth is None
    assert not render.rgb.requires_grad
    assert render.info["gaussian_ids"] is None
