"""torchvision beside a CPU build of torch."""

import subprocess
import sys
from types import ModuleType

import pytest

pytest.importorskip("torchvision", reason="nothing else needs it")


def test_a_whole_torchvision_is_left_as_it_is(monkeypatch):
    """To define its operators a second time would be an error of its own."""
    from difix3d.difix import operators

    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setattr(operators, "find_spec", lambda name: name)
    before = len(operators._libraries)
    operators.define_missing()
    assert len(operators._libraries) == before


def test_the_fixer_can_be_imported_beside_it():
    """In a process of its own: these tests have defined the operators already."""
    subprocess.run([sys.executable, "-c", "from difix3d.difix import load_difix"], check=True, timeout=300)
