"""``difix3d download``: fetches public scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from difix3d.cli.arguments import from_command_line
from difix3d.console import results
from difix3d.download import SCENES, Images
from difix3d.download import download as fetch
from difix3d.errors import UserError


@dataclass(frozen=True)
class Download:
    """Fetches scenes of Mip-NeRF 360 for `difix3d train --scene NAME`.

    Only the files of these scenes are read out of the 12 GB archive: the cameras, and the images in the size that
    published results are measured on. Started again, it goes on where it was.

    Examples:
      difix3d download garden bicycle
      difix3d download kitchen --data-dir path/to/scenes
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Scenes to fetch: bicycle, bonsai, counter, flowers, garden, kitchen, room, stump, treehill."""

    data_dir: Path = Path("data")
    """Folder that the scenes' folders go to. An archive lying there (360_v2.zip) is read instead of the server's."""

    images: Images = "published"
    """Image folders: `1` full size, `2`, `4`, `8` smaller by that factor, `all` of them (several times as much), or
    `published`: 4 for the outdoor scenes, 2 for the indoor ones."""

    list: bool = False
    """Only list the scenes, where they come from, and which are there already."""


def download(args: Sequence[str] | None = None) -> None:
    """Fetches as the arguments say."""
    options = from_command_line(Download, "download", args)
    if options.list:
        for name, scene in sorted(SCENES.items()):
            here = f"   in {options.data_dir / name}" if (options.data_dir / name).exists() else ""
            results.print(f"{name:<10} images_{scene.factor}  {scene.archive.url}{here}")
        for terms in sorted({scene.archive.licence for scene in SCENES.values()}):
            results.print(f"licence: {terms}")
        return
    if not options.names:
        raise UserError("No scene is named", cure=f"Name one or more of {', '.join(sorted(SCENES))}")
    for name in options.names:
        results.print(f"{name}: {fetch(name, options.data_dir, options.images)}")
