"""Which files of a folder are photos: masks, depth maps, thumbnails, copies and results among them are left out."""

import hashlib
import importlib.util
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from difix3d.console import track
from difix3d.errors import UserError
from difix3d.files import is_pointer, walk
from difix3d.formats import HEIF, IMAGES, RAW, opened, orientation
from difix3d.video import VIDEOS

log = logging.getLogger(__name__)

MAPS = {"mask", "masks", "depth", "depths", "confidence", "conf", "normal", "normals", "disparity", "alpha", "flow"}
MAPS |= {"segmentation", "seg", "semantic", "semantics", "instance", "instances", "label", "labels"}
MAPS |= {"thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews"}
"""Words in names of files and folders that hold something beside photos."""
RESULTS = {"output", "outputs", "render", "renders", "eval", "sparse", "stereo", "macosx", "eadir"}
"""Words in names of folders alone: what programs make of photos."""
COLOUR = ("images", "rgb", "color", "colour", "photos", "image", "img", "photo", "input", "frames", "frame")
"""Names of the folder of the photos, among several that hold files of the same names."""
OTHERS = {".jxl", ".exr", ".hdr", ".psd"}

EXIF, FOCAL_LENGTH, FOCAL_LENGTH_35MM = 0x8769, 0x920A, 0xA405
"""EXIF tags."""

FEWEST = 3
"""Photos from which cameras can be found."""


@dataclass(frozen=True)
class Header:
    """What is known of an image without its pixels.

    Attributes:
        size: (width, height) as stored.
        deep: whether it holds one number of more than 8 bits a pixel, as depth maps do.
        grey: whether it has one channel.
        turn: the EXIF orientation, 1..8.
        focal: EXIF's focal lengths; 0 if unknown.
    """

    size: tuple[int, int]
    deep: bool
    grey: bool
    turn: int
    focal: tuple[float, float]

    @property
    def sideways(self) -> bool:
        """Whether the size tells that it is turned."""
        return self.turn >= 5 and self.size[0] != self.size[1]


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def read_header(path: Path) -> Header:
    """Reads the beginning of an image.

    Raises:
        UserError: it is none.
    """
    with opened(path) as image:
        details = image.getexif().get_ifd(EXIF) if image.format in ("JPEG", "HEIF", "MPO") else {}
        focal = float(details.get(FOCAL_LENGTH) or 0), float(details.get(FOCAL_LENGTH_35MM) or 0)
        grey = image.mode in ("1", "L", "LA")
        return Header(image.size, image.mode[0] in "IF", grey, orientation(image), focal)


def _whole(path: Path) -> Header | None:
    """``None`` for a file that is no image or is cut short."""
    try:
        header = read_header(path)
        with opened(path) as image:
            if image.format == "JPEG":
                image.draft("L", (1, 1))  # an eighth of the size: all of the file is read, in a tenth of the time
                image.load()
            else:
                image.verify()
        return header
    except Exception:  # what Pillow's readers raise is of many classes
        return None


def list_photos(folder: Path) -> tuple[Path, list[str]]:
    """The folder that the photos' names are relative to, ``images`` inside if it holds any, and the names, sorted.

    What is left out is counted in one line of the log.

    Raises:
        UserError: there are fewer than 3.
    """
    root = folder / "images" if _any_image(folder / "images") else folder
    names, unread, videos = _walk(root)
    listing = _Listing(root, names)
    told = "".join(f"; {text}" for text in (listing.left_out(), _unread(unread, listing.names)) if text)
    if len(listing.names) >= FEWEST:
        if told:
            log.warning("%s: %d photos%s", root, len(listing.names), told)
        return root, sorted(listing.names)
    cure = "Check the path, or add photos"
    if videos:
        cure = f"Give the video itself: {root / videos[0]}"
    elif listing.set_aside:
        cure = f"If these are the photos, give their folder itself: {root / listing.set_aside}"
    raise UserError(
        f"{folder} has no COLMAP model, no transforms.json and {len(listing.names)} photos{told}",
        f"To find the cameras takes {FEWEST} photos at least, and 20 to be good",
        cure,
    )


def _any_image(folder: Path) -> bool:
    files = (file for _, _, inside in walk(folder) for file in inside)
    return any(Path(file).suffix.lower() in IMAGES and not file.startswith(".") for file in files)


def _walk(root: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of images, of images of kinds that are not read, and of videos."""
    read = IMAGES if reads_heic() else IMAGES - HEIF
    kinds = (read, (HEIF | RAW | OTHERS) - read, VIDEOS)
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for place, _, files in walk(root):
        for file in files:
            name = (Path(place) / file).relative_to(root).as_posix()
            for kind, names in zip(kinds, found, strict=True):
                if Path(file).suffix.lower() in kind and (kind is read or not _hidden(name)):
                    names.append(name)
    return sorted(found[0]), sorted(found[1]), sorted(found[2])


def _unread(names: list[str], photos: list[str]) -> str:
    """What to say about images of kinds that are not read, unless they are there in another kind, too."""
    there = {os.path.splitext(name)[0].casefold() for name in photos}
    kinds = Counter(
        Path(name).suffix.lower().lstrip(".").upper().replace("HEIF", "HEIC").replace("HIF", "HEIC")
        for name in names
        if os.path.splitext(name)[0].casefold() not in there
    )
    if not kinds:
        return ""
    cure = "pip install 'difix3d[heic]'" if "HEIC" in kinds else "export them as JPEG, PNG or TIFF"
    counts = " and ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    suffixes = Counter(Path(name).suffix.lstrip(".").upper() for name in photos)
    beside = f" beside {len(photos)} {suffixes.most_common(1)[0][0]}" if photos else ""
    return f"{counts} file{'s' * (kinds.total() > 1)}{beside} are not read: {cure}"


class _Listing:
    """Sets aside what is no photo, rule by rule; each rule looks at what the ones before have kept."""

    def __init__(self, root: Path, names: list[str]):
        self.names, self._root = names, root
        self._reasons: Counter[str] = Counter()
        self._example: dict[str, str] = {}
        self.set_aside = ""  # the folder with most of what its name alone set aside
        self._drop(filter(_hidden, names), "hidden")
        self._by_folder()
        self._drop([n for n in self.names if not (root / n).exists()], "links that lead nowhere", example=True)
        self._drop([n for n in self.names if not (root / n).is_file()], "no files")
        self._drop([n for n in self.names if (root / n).stat().st_size == 0], "empty")
        self._drop([n for n in self.names if is_pointer(root / n)], "pointers of Git LFS: git lfs pull", example=True)
        with ThreadPoolExecutor() as pool:
            headers = pool.map(_whole, (root / name for name in self.names))
            shown = track(headers, len(self.names), "looking through the photos")
            self._headers = dict(zip(self.names, shown, strict=True))
        self._drop([n for n in self.names if self._headers[n] is None], "unreadable", example=True)
        self._drop_if_others_stay([n for n in self.names if self._header(n).deep], "with 16-bit depths")
        self._by_name()
        self._by_sibling_folder()
        self._same_stem()
        self._same_bytes()

    def left_out(self) -> str:
        """How many of what, in words; empty if nothing."""
        parts = [
            f"{number} {reason}" + (f" ({self._example[reason]})" if reason in self._example else "")
            for reason, number in self._reasons.items()
        ]
        return f"left out: {', '.join(parts)}" if parts else ""

    def _header(self, name: str) -> Header:
        header = self._headers[name]
        assert header is not None
        return header

    def _drop(self, names: Iterable[str], reason: str, *, example: bool = False) -> None:
        gone = set(names)
        if gone:
            self.names = [name for name in self.names if name not in gone]
            self._reasons[reason] += len(gone)
            if example:
                self._example.setdefault(reason, min(gone))

    def _drop_if_others_stay(self, names: list[str], reason: str, *, example: bool = False) -> None:
        if len(self.names) - len(names) >= FEWEST:
            self._drop(names, reason, example=example)

    def _by_folder(self) -> None:
        """``masks/``, ``keyframes/depth/``, ``images_4/``, ``outputs/``: by words in the names of folders."""
        gone = defaultdict(list)
        for name in self.names:
            parts = PurePosixPath(name).parent.parts
            at = next((i for i, p in enumerate(parts) if _words(p) & (MAPS | RESULTS) or _REDUCED.fullmatch(p)), None)
            if at is not None:
                gone["/".join(parts[: at + 1])].append(name)
        for place, names in gone.items():
            self._drop(names, f"in {place}/")
        if gone:
            self.set_aside = max(gone, key=lambda place: len(gone[place]))

    def _by_name(self) -> None:
        """``0001_mask.png`` or ``depth_0001.png`` beside ``0001.jpg`` or ``rgb_0001.jpg``; ``0001.jpg.png``."""
        plain = {_tokens(name) for name in self.names if not _words(PurePosixPath(name).stem) & MAPS}

        def companion(name: str) -> bool:
            stem = PurePosixPath(name).stem
            if PurePosixPath(stem).suffix.lower() in IMAGES:  # a file's name with a suffix more, as COLMAP calls masks
                return _tokens(PurePosixPath(name).with_name(stem).as_posix()) in plain
            rest = _tokens(name)
            begins = not rest or rest in plain or any(rest[:length] in plain for length in range(1, len(rest)))
            return begins and bool(_words(stem) & MAPS)

        self._drop_if_others_stay(list(filter(companion, self.names)), "masks or maps of others", example=True)

    def _by_sibling_folder(self) -> None:
        """Of folders side by side with the same names inside, the one that is called images, rgb or color."""
        inside: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
        for name in self.names:
            parts = PurePosixPath(name).with_suffix("").parts
            for i in range(len(parts) - 1):
                inside["/".join(parts[:i])][parts[i]]["/".join(parts[i + 1 :])] = name
        for parent, folders in inside.items():
            called = sorted((COLOUR.index(f.lower()), f) for f in folders if f.lower() in COLOUR)
            if not called:
                continue
            photos = folders[called[0][1]]
            for folder, others in folders.items():
                if others is not photos and 2 * len(others.keys() & photos.keys()) >= len(others):
                    place = "/".join(filter(None, (parent, folder)))
                    self._drop(set(others.values()) & set(self.names), f"in {place}/ (as in {called[0][1]}/)")

    def _same_stem(self) -> None:
        """Grey files called like one in colour, wherever; and the same photo in two formats."""
        colour = {PurePosixPath(name).stem.casefold() for name in self.names if not self._header(name).grey}
        grey = [n for n in self.names if self._header(n).grey and PurePosixPath(n).stem.casefold() in colour]
        self._drop(grey, "grey beside others of the same name", example=True)
        same = defaultdict(list)
        for name in self.names:
            same[os.path.splitext(name)[0].casefold()].append(name)

        def rank(name: str) -> tuple[int, bool]:
            width, height = self._header(name).size
            return width * height, PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg")

        worse = [n for names in same.values() for n in sorted(names, key=rank)[:-1]]
        self._drop(worse, "also there in another format", example=True)

    def _same_bytes(self) -> None:
        sizes = defaultdict(list)
        for name in self.names:
            sizes[(self._root / name).stat().st_size].append(name)
        seen: set[bytes] = set()
        copies = []
        for names in sizes.values():
            for name in names if len(names) > 1 else ():
                digest = hashlib.sha256((self._root / name).read_bytes()).digest()
                copies += [name] if digest in seen else []
                seen.add(digest)
        self._drop(copies, "copies of others", example=True)


_REDUCED = re.compile(r"images_\d+", re.I)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _tokens(name: str) -> tuple[str, ...]:
    """Words and numbers of a file's name without those that tell kinds apart."""
    found = re.findall(r"[a-z]+|\d+", PurePosixPath(name).stem.lower())
    return tuple(token for token in found if token not in MAPS and token not in COLOUR)
