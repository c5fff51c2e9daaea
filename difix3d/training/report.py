"""``report.html`` in a run's folder: what was gained, round by round and view by view, with the pictures beside it."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from difix3d.training.run import RunFolder

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2em auto; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: 3px 12px; border-bottom: 1px solid #ddd }
td { text-align: right } td:first-child, th:first-child { text-align: left } img { max-width: 100% }
figure { margin: 1.5em 0 } figcaption { color: #666 }"""


def write_report(run: RunFolder, plain: RunFolder | None = None) -> Path:
    """Writes the report of a finished run.

    Args:
        run: its ``metrics.json``, ``rounds.json`` and pictures are read.
        plain: the run of plain 3DGS beside it, if there is one.
    """
    variants = {}
    if plain is not None:
        variants["3DGS"] = _last(plain, plus=False)
    variants["Difix3D" if run.rows("rounds.json") else "3DGS"] = _last(run, plus=False)
    variants["Difix3D+"] = _last(run, plus=True)
    found = {name: row for name, row in variants.items() if row is not None}
    parts = [f"<h1>{html.escape(run.scene.name)}</h1>", _scores(found), *_rounds(run), *_views(run, plain, found)]
    page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(run.scene.name)}</title><style>{STYLE}</style>'
    path = run.path / "report.html"
    path.write_text(page + "\n".join(parts), encoding="utf-8")
    return path


def _last(run: RunFolder, plus: bool) -> dict[str, Any] | None:
    rows = [row for row in run.rows("metrics.json") if row["plus"] == plus]
    return rows[-1] if rows else None


def _scores(variants: dict[str, dict[str, Any]]) -> str:
    first = next(iter(variants.values()))
    rows = [
        (
            name,
            f"{row['psnr']:.2f}",
            f"{row['psnr'] - first['psnr']:+.2f}",
            f"{row['ssim']:.3f}",
            f"{row['gaussians']:,}",
            f"{row['seconds'] * 1e3:.0f}",
        )
        for name, row in variants.items()
    ]
    title = f"<h2>Mean of {len(first['images'])} {first['split']} views after {first['step']:,} steps</h2>"
    return title + _table(("", "PSNR (dB)", "gain", "SSIM", "Gaussians", "ms per frame"), rows)


def _rounds(run: RunFolder) -> Iterable[str]:
    rounds = run.rows("rounds.json")
    if not rounds:
        return
    yield "<h2>Rounds</h2>"
    yield _table(
        ("step", "novel views", "believed", "left out", "PSNR without", "with", "gain (dB)", "decision", "weight", "s"),
        [
            (
                f"{row['step']:,}",
                len(row["cameras"]),
                f"{100 * _mean(row['confidence']):.0f} %",
                len(row["held_out"]),
                *(("", "", "") if row["gain"] is None else _trial(row)),
                row["decision"],
                f"{row['weight']:.3g}",
                f"{sum(row['seconds'].values()):.1f}",
            )
            for row in rounds
        ],
    )
    for row in rounds:
        yield _figure(f"rounds/step_{row['step']:06d}/sheet.png", f"Before step {row['step']:,}: {row['decision']}")


def _trial(row: dict[str, Any]) -> tuple[str, str, str]:
    tried = _mean(row["trials"][-1]["psnr"])
    return f"{_mean(row['psnr_without']):.2f}", f"{tried:.2f}", f"{row['gain']:+.2f}"


def _views(run: RunFolder, plain: RunFolder | None, variants: dict[str, dict[str, Any]]) -> Iterable[str]:
    yield "<h2>Views</h2><p>Each: photo, render, difference (three times as bright).</p>"
    for i, image in enumerate(next(iter(variants.values()))["images"]):
        yield f"<h3>{html.escape(image['name'])}</h3>"
        for name, row in variants.items():
            folder = f"eval/step_{row['step']:06d}" + ("_plus" if row["plus"] else "")
            if plain is not None and name == "3DGS":
                folder = f"{plain.path.relative_to(run.path).as_posix()}/{folder}"
            picture = Path(image["name"]).with_suffix(".png").as_posix()
            yield _figure(f"{folder}/compare/{picture}", f"{name}: {row['images'][i]['psnr']:.2f} dB")


def _figure(source: str, caption: str) -> str:
    image = f'<img loading="lazy" src="{html.escape(source)}" alt="">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
