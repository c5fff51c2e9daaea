"""What a host would wait for, on the pretended device (``shared/pretend_cuda``)."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts within it the waits of the package's own lines, by line; skips the test where nothing can be counted.

    gsplat's own are left out, as are copies to a GPU that are asked not to be waited for.
    """
    pretend = sys.modules.get("pretend_cuda")
    if pretend is None:
        pytest.skip("only a pretended device counts waits")
    import gsplat

    theirs = {path.name for path in Path(gsplat.__file__).parent.rglob("*.py")}
    waits: Counter[str] = Counter()
    with pretend.watch("/difix3d/") as found:
        yield waits
    for (op, line), count in found.items():
        sent = op == "copy to GPU" and "non_blocking=" in line
        if line.partition(":")[0] not in theirs and not sent:
            waits[f"{op} {line}"] += count
