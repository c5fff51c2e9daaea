"""``train``, in which something comes over one process before step 7: ``trouble_in_ranks.py RANK WHAT [words]``.

WHAT is ``error``, ``kill`` (the process is ended), ``stop`` (it gets a SIGTERM) or ``stop_all`` (``torchrun`` does).
"""

import os
import signal
import sys

from difix3d.cli import dispatch
from difix3d.cli import train as command
from difix3d.errors import UserError
from difix3d.training.model import SplatModel

rank, what, *words = sys.argv[1:]
step = SplatModel.step


def troubled(self, views, number, **options):
    if os.environ["RANK"] == rank and number == 7:
        if what == "error":
            raise UserError("This is the trouble")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid() if what == "stop_all" else os.getpid(), signal.SIGTERM)
    return step(self, views, number, **options)


if __name__ == "__main__":
    SplatModel.step = troubled
    command.LATER = 10_000  # the others do not end by themselves
    dispatch("train", words)
