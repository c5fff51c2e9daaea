"""The fit of colours in one kernel against that in torch."""

import pytest
import torch

from difix3d.difix import colors


@pytest.fixture
def called(device, monkeypatch):
    """How often the kernel was called."""
    from difix3d.gpu import anchor

    calls, fit = [], anchor.fit_colors
    monkeypatch.setattr(anchor, "fit_colors", lambda *args, **options: (calls.append(1), fit(*args, **options))[1])
    return calls


def pictures(case, device):
    generator = torch.Generator().manual_seed(0)
    render = torch.rand(2, 3, 37, 50, generator=generator)
    alpha = torch.ones(2, 37, 50)
    gain, offset = torch.tensor([1.1, 0.95, 1.0])[:, None, None], torch.tensor([0.02, -0.03, 0.0])[:, None, None]
    fixed = (render * gain + offset).clamp(0, 1)
    if case == "repainted":
        fixed[:, :, :, :20] = torch.rand(2, 3, 37, 20, generator=generator)
    elif case == "contrast":
        fixed = (3 * render - 1).clamp(0, 1)
    elif case == "covered in part":
        alpha[:, :, 30:] = 0
    elif case == "nothing":
        alpha[:] = 0
    return [x.to(device) for x in (fixed, render, alpha)]


@pytest.mark.parametrize("case", ["shifted", "repainted", "contrast", "covered in part", "nothing"])
def test_the_fit_is_torchs(device, called, case, monkeypatch):
    given = pictures(case, device)
    found = colors.color_map(*given)
    assert called == [1]
    monkeypatch.setattr("difix3d.gpu.usable", lambda _: False)
    expected = colors.color_map(*given)
    assert called == [1]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (2, 3, 1, 1)
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
