"""Names that mean the same photo: files of models, lists and folders differ in more than they should."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

SUFFIX = re.compile(r"\.(png|jpe?g|jfif|webp|bmp|tiff?|hei[cf]|hif|avif|gif|tga|exr|dng|nef|cr[23]|arw)$", re.I)
"""Of pictures that a name may have been given to, whether they are read or not."""

CODE_PAGES = ("cp1252", "cp932", "gbk", "cp949", "big5", "cp1251", "cp1250", "cp850", "latin-1")
"""In which programs on Windows write names, the widest spread first; the last one takes any bytes."""


NOT_ASCII = re.compile(r"[^\x00-\x7f]+")

UNDECODED = re.compile("[\udc80-\udcff]")
"""Bytes of a name that are not UTF-8, as Python gives them."""


def plain(name: str) -> tuple[str, ...]:
    """The parts of a path without what programs change: separators, case, composed letters, the picture's suffix."""
    text = SUFFIX.sub("", unicodedata.normalize("NFC", name.replace("\\", "/"))).casefold()
    return tuple([part for part in text.split("/") if part not in ("", ".", "..")])


def match(wanted: Sequence[str], present: Sequence[str]) -> list[int | None]:
    """Which of the present names each wanted one must mean; ``None`` where there is none, or more than one.

    The same name is meant; else the same but for case and suffix; else the one of which one is the end of the other, as
    ``0001.jpg`` of ``C:/scans/left/0001.jpg``; else one that differs in letters that are not ASCII, as archives garble
    them. What two wanted names would share, neither gets.
    """
    return match_in_each(wanted, [present])[0]


def match_in_each(wanted: Sequence[str], folders: Sequence[Sequence[str]]) -> list[list[int | None]]:
    """:func:`match` with the names present in each folder; the wanted ones, which may be many, are taken apart once."""
    exact = [{name: i for i, name in enumerate(present)} for present in folders]
    found = [[indices.get(name) for name in wanted] for indices in exact]
    for form, may_differ in ((str, ""), (unquote, "%"), (_garbled, None)):
        unsure = [i for i, present in enumerate(folders) if present and None in found[i]]
        if unsure and any(_has(name, may_differ) for names in (wanted, *folders) for name in names):
            parsed = [_Name.of(form(name)) for name in wanted]
            for i in unsure:
                found[i] = _fill(found[i], parsed, [_Name.of(form(name)) for name in folders[i]])
    return found


def _has(name: str, letter: str | None) -> bool:
    """Whether the letter is in it, or for ``None`` one that is not ASCII."""
    return not name.isascii() if letter is None else letter in name


def _garbled(name: str) -> str:
    """What a name and its garbled form have in common; empty for one of ASCII only, which nothing garbles."""
    return "" if name.isascii() else NOT_ASCII.sub("?", name)


class _Name(NamedTuple):
    text: str
    parts: tuple[str, ...]

    @staticmethod
    def of(text: str) -> "_Name":
        return _Name(text, plain(text))


def _fill(found: list[int | None], wanted: list[_Name], present: list[_Name]) -> list[int | None]:
    """With the likest present name for each that has none yet, if no other name has it."""
    ends: dict[tuple[str, ...], list[tuple[_Name, int]]] = {}
    for i, name in enumerate(present):
        ends.setdefault(name.parts[-1:], []).append((name, i))
    ends.pop((), None)
    loose = [
        _likest(name, ends[name.parts[-1:]]) if hit is None and name.parts[-1:] in ends else None
        for name, hit in zip(wanted, found, strict=True)
    ]
    taken, times = set(found), Counter(loose)
    return [
        hit if other is None or other in taken or times[other] > 1 else other
        for hit, other in zip(found, loose, strict=True)
    ]


def _likest(name: _Name, others: list[tuple[_Name, int]]) -> int | None:
    """Which of those with the same last part is alone the likest."""
    ranked = sorted(
        (
            (min(len(name.parts), len(other.parts)), _suffix(other.text) == _suffix(name.text), i)
            for other, i in others
            if name.parts[-len(other.parts) :] == other.parts[-len(name.parts) :]
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
    return not name.isascii() and UNDECODED.search(name) is not None


def _in_page(names: Sequence[str], page: str) -> list[str] | None:
    try:
        return [name.encode(errors="surrogateescape").decode(page) if _undecoded(name) else name for name in names]
    except UnicodeDecodeError:
        return None
