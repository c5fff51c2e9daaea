"""torchvision beside a CPU build of torch."""

import sys
from types import ModuleType

import pytest

pytest.importorskip("nerfstudio", reason='needs pip install -e ".[nerfstudio]"')


def test_a_whole_torchvision_is_left_as_it_is(monkeypatch):
    """To define its operators a second time would be an error of its own."""
    from difix3d.integrations.nerfstudio import operators

    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    before = len(operators._libraries)
    operators.define_missing()
    assert len(operators._libraries) == before
