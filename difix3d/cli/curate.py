"""``difix3d curate``: from scenes to pairs (bad render, true photo, reference photos) that Difix can be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import tyro
from rich.table import Table

from difix3d.cli.arguments import from_command_line
from difix3d.console import console, print_table, results
from difix3d.curation import Curated, Recipe, assemble, read_curated, write_report, write_sheet
from difix3d.curation.curate import curate as make_parts
from difix3d.curation.curate import missing_parts
from difix3d.devices import Device
from difix3d.errors import UserError
from difix3d.limits import Limits


@dataclass(frozen=True)
class CurateConfig:
    """Curates pairs from scenes: models that are bad on purpose are rendered where the true photo is known.

    Writes dataset.json (the published format), split.json, a data card (card.json, card.csv) and sheet.png. Started
    again, it goes on with what is missing. `accelerate launch` and `torchrun` share out the scenes.

    Examples:
      difix3d curate demo --resolution 160 --max-steps 200
      difix3d curate scenes/* --split extrapolation --output-dir data/pairs/mine
      difix3d curate synthetic:100 synthetic:101 synthetic:102 --strategies sparse perturb
      torchrun --nproc-per-node 8 scripts/curate.py path/to/scenes/* --skip-bad
      difix3d curate --output-dir data/pairs/mine --report
    """

    scenes: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Scenes: folders (COLMAP, transforms.json, photos), demo, synthetic:SEED, or names, as in `difix3d train`."""
    output_dir: Path = Path("data/pairs")
    """Folder of the data set."""
    strategies: tuple[Literal["underfit", "cycle", "perturb", "sparse", "cluster", "cross", "apart"], ...] = (
        "underfit",
        "cycle",
        "perturb",
        "sparse",
        "cluster",
        "cross",
    )
    """How models are made bad: trained too briefly, on renders of a shifted trajectory, damaged, on every n-th photo,
    on neighbouring photos, on one camera of a rig. `apart` is what `cluster` was called before."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    """What all pairs of a folder have in common."""
    test_share: Annotated[float, Limits(min=0, below=1)] = 0.1
    """Share of the scenes (of a single scene: of its photos) that goes into the test split; 0 for none."""
    test_scenes: tuple[str, ...] = ()
    """Scenes of the test split by the names of their folders, instead."""
    skip_bad: bool = False
    """Leave out scenes that cannot be loaded, instead of stopping there."""
    report: bool = False
    """Also draw report.png, how PSNR (and LPIPS) are spread in each strategy; without scenes, of what there is."""
    data_dir: Path = Path("data")
    """Where downloaded and generated scenes lie."""
    device: Device = "auto"
    """`auto`: CUDA if there is a GPU."""


def curate(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config = from_command_line(CurateConfig, "curate", args)
    if not config.scenes and not config.report:
        raise UserError("No scene is named", "Pairs are made from scenes", "Try difix3d curate demo --resolution 160")
    if config.scenes:
        curated = run(config)
        if curated is None:
            return
        show(curated)
        console.print(f"look at {write_sheet(curated)}")
    else:
        curated = read_curated(config.output_dir)
    if config.report:
        console.print(f"look at {write_report(curated)}")


def run(config: CurateConfig) -> Curated | None:
    """This process' scenes; then, if the other processes are done as well, the data set.

    The last one to finish makes it, so that none has to wait for another.
    """
    from accelerate import PartialState

    state = PartialState(cpu=config.device == "cpu")
    make_parts(
        config.scenes,
        config.output_dir,
        config.recipe,
        strategies=config.strategies,
        data_dir=config.data_dir,
        device=config.device,
        rank=state.process_index,
        ranks=state.num_processes,
        skip_bad=config.skip_bad,
    )
    missing = missing_parts(config.scenes, config.output_dir, config.strategies)
    if missing:
        console.print(f"this process is done; not finished yet: {', '.join(missing[:5])}")
        return None
    return assemble(
        config.output_dir,
        test_share=config.test_share,
        test_scenes=config.test_scenes,
        seed=config.recipe.seed,
    )


def show(curated: Curated) -> None:
    """A table of strategies."""
    table = Table("strategy", "pairs", "too bad", "too good", "median PSNR")
    for name, count in curated.counts.items():
        values = [pair["psnr"] for pair in curated.card.values() if pair["strategy"] == name]
        middle = f"{median(values):.1f} dB" if values else "-"
        table.add_row(name, *(str(count[key]) for key in ("pairs", "too_bad", "too_good")), middle)
    print_table(table)
    for name, why in curated.left_out.items():
        results.print(f"- nothing of {name}: {why}")
    held_out = sum(pair["split"] == "test" for pair in curated.card.values())
    results.print(
        f"{curated.folder / 'dataset.json'}: {len(curated.card) - held_out} pairs to train on, {held_out} to test",
    )
