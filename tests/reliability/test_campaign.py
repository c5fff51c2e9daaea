"""What befalls trainings at many moments costs nothing of them: the model, rows and rounds are those of a quiet one.

``DIFIX3D_ATTEMPTS=100 pytest -s tests/reliability/test_campaign.py`` tries that many of each kind.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import write_scene

ATTEMPTS = int(os.environ.get("DIFIX3D_ATTEMPTS", "0"))
PROGRAM = Path(__file__).with_name("campaign.py")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("kind", "attempts"), [("kill", 8), ("full", 12), ("signals", 8), ("logs", 3), ("beside", 6)], ids=str
)
def test_nothing_is_lost(tmp_path, toy_scene, kind, attempts):
    write_scene(tmp_path / "scene", toy_scene)
    words = [sys.executable, PROGRAM, kind, tmp_path, str(ATTEMPTS or attempts)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONSAFEPATH": ""}
    result = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout
