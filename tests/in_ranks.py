"""Programs in two processes, as ``torchrun`` starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def launch(*command, check=True):
    """A command in two processes, which import from the checkout and its tests; how it ended, and what it said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    agent = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}"}
    options = {"cwd": CHECKOUT, "timeout": 500, "capture_output": True, "text": True}
    done = subprocess.run([*agent, *map(str, command)], env=environment, **options)
    assert done.returncode == 0 or not check, done.stderr
    return done
