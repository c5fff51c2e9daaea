"""The one exception that people see without a traceback."""


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
        super().__init__(" ".join(sentence.rstrip(".") + "." for sentence in (fact, limit, cure) if sentence))
