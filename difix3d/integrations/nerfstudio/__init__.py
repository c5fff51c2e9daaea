"""Difix3D+ inside nerfstudio (Tancik et al. 2023): ``ns-train difix3d`` and ``ns-train difix3d-splatfacto``.

Rounds, gate, fixer and post-render are those of the other floors. What is here adapts: nerfstudio's data to a scene
(``world.py``), its models to a render function (``render.py``), novel views to its training batches (``batches.py``),
its trainer to the gate's trial (``trial.py``), novel views to its viewer (``viewer.py``).
"""
