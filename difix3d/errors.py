"""The one exception that people see without a traceback."""

import re

LONGEST = 2000
"""Characters of a sentence of an error: a file may have a word of megabytes where a name belongs."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text with control characters as ``\\x1b``: names out of other people's files never steer the terminal.

    Line ends and tabs stay.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _short(part: str) -> str:
    return visible(part if len(part) <= LONGEST else f"{part[:LONGEST]}...")


class UserError(Exception):
    """Something the user can put right.

    The message reads as one short paragraph: the fact, the limit it breaks, and the cure.

    Args:
        fact: what was found, with names and numbers ("7 of 50 images are missing, first 0003.jpg").
        limit: what is needed instead ("every camera of the model needs its photo"); may be empty.
        cure: what to do ("Copy them into images/ or pass --images FOLDER"); may be empty.
    """

    def __init__(self, fact: str, limit: str = "", cure: str = ""):
        self.fact = fact
        self.limit = limit
        self.cure = cure
        super().__init__(" ".join(_short(part).rstrip(".") + "." for part in (fact, limit, cure) if part))
