"""Names that mean the same photo: files of models, lists and folders differ in more than they should."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import unquote

SUFFIX = re.compile(r"\.(png|jpe?g|jfif|webp|bmp|tiff?|hei[cf]|hif|avif|gif|tga|exr|dng|nef|cr[23]|arw)$", re.I)
"""Of pictures that a name may have been given to, whether they are read or not."""

CODE_PAGES = ("cp1252", "cp932", "gbk", "cp949", "big5", "cp1251", "cp1250", "cp850", "latin-1")
"""In which programs on Windows write names, the widest spread first; the last one takes any bytes."""


def plain(name: str) -> tuple[str, ...]:
    """The parts of a path without what programs change: separators, case, composed letters, the picture's suffix."""
    text = SUFFIX.sub("", unicodedata.normalize("NFC", name.replace("\\", "/"))).casefold()
    return tuple(part for part in text.split("/") if part not in ("", ".", ".."))


def match(wanted: Sequence[str], present: Sequence[str]) -> list[int | None]:
    """Which of the present names each wanted one must mean; ``None`` where there is none, or more than one.

    The same name is meant; else the same but for case and suffix; else the one of which one is the end of the other, as
    ``0001.jpg`` of ``C:/scans/left/0001.jpg``; else one that differs in letters that are not ASCII, as archives garble
    them. What two wanted names would share, neither gets.
    """
    exact = {name: i for i, name in enumerate(present)}
    found = [exact.get(name) for name in wanted]
    for form, may_differ in ((str, ""), (unquote, "%"), (_garbled, None)):
        if present and None in found and any(_has(name, may_differ) for name in (*wanted, *present)):
            found = _fill(found, list(map(form, wanted)), list(map(form, present)))
    return found


def _has(name: str, letter: str | None) -> bool:
    """Whether the letter is in it, or for ``None`` one that is not ASCII."""
    return not name.isascii() if letter is None else letter in name


def _garbled(name: str) -> str:
    """What a name and its garbled form have in common; empty for one of ASCII only, which nothing garbles."""
    return "" if name.isascii() else re.sub(r"[^\x00-\x7f]+", "?", name)


def _fill(found: list[int | None], wanted: list[str], present: list[str]) -> list[int | None]:
    """With the likest present name for each that has none yet, if no other name has it."""
    ends: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for i, name in enumerate(present):
        if parts := plain(name):
            ends.setdefault(parts[-1], []).append((parts, i))
    loose = [_likest(name, ends, present) if hit is None else None for name, hit in zip(wanted, found, strict=True)]
    taken, times = set(found), Counter(loose)
    return [
        hit if other is None or other in taken or times[other] > 1 else other
        for hit, other in zip(found, loose, strict=True)
    ]


def _likest(name: str, ends: dict[str, list[tuple[tuple[str, ...], int]]], present: Sequence[str]) -> int | None:
    parts = plain(name)
    ranked = sorted(
        (
            (min(len(parts), len(other)), _suffix(present[i]) == _suffix(name), i)
            for other, i in (ends.get(parts[-1], []) if parts else [])
            if parts[-len(other) :] == other[-len(parts) :]
        ),
        reverse=True,
    )
    alone = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][:2] != ranked[1][:2])
    return ranked[0][2] if alone else None


def _suffix(name: str) -> str:
    found = SUFFIX.search(name)
    return found[0].lower().replace("jpeg", "jpg") if found else ""


def readable(names: Sequence[str], score: Callable[[list[str]], int]) -> list[str]:
    """The names with bytes that are not UTF-8 (which come as surrogates) read in the code page that scores best."""
    if not any(map(_undecoded, names)):
        return list(names)
    versions = [version for page in CODE_PAGES if (version := _in_page(names, page)) is not None]
    return max(versions, key=score)


def _undecoded(name: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def _in_page(names: Sequence[str], page: str) -> list[str] | None:
    try:
        return [name.encode(errors="surrogateescape").decode(page) if _undecoded(name) else name for name in names]
    except UnicodeDecodeError:
        return None
