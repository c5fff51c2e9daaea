"""Names of one photo in models, lists and folders."""

import pytest

from difix3d.scene.names import match, match_in_each, readable


@pytest.mark.parametrize(
    ("wanted", "present", "meant"),
    [
        ("a.jpg", ["a.png", "a.jpg"], "a.jpg"),
        ("a.jpg", ["a.png", "a.JPG"], "a.JPG"),
        ("a.jpg", ["a.png", "a.jpeg"], "a.jpeg"),
        ("a.jpg", ["a.png", "a.webp"], None),
        ("a", ["a.png", "b.png"], "a.png"),
        ("cam1\\a.jpg", ["cam1/a.jpg", "cam2/a.jpg"], "cam1/a.jpg"),
        (r"C:\scans\cam1\a.jpg", ["cam1/a.jpg", "cam2/a.jpg"], "cam1/a.jpg"),
        ("./images/a.jpg", ["a.jpg"], "a.jpg"),
        ("../shots/a.jpg", ["shots/a.jpg", "b/a.jpg"], "shots/a.jpg"),
        ("a.jpg", ["left/a.jpg", "right/a.jpg"], None),
        ("a.jpg", ["left/a.jpg", "right/b.jpg"], "left/a.jpg"),
        ("up/a.jpg", ["left/a.jpg"], None),
        ("e\u0301.jpg", ["\u00e9.jpg"], "\u00e9.jpg"),
        ("frame.0001", ["frame.0001.png", "frame.0002.png"], "frame.0001.png"),
        ("ba.jpg", ["a.jpg"], None),
        ("H\u00f6he 1.jpg", ["H\u2524he 1.jpg", "H\u2524he 2.jpg"], "H\u2524he 1.jpg"),
        ("\u00f6.jpg", ["\u2524.jpg", "\u2525.jpg"], None),
        ("images/my%20photo.jpg", ["my photo.jpg", "a.jpg"], "my photo.jpg"),
        ("100%25.jpg", ["100%25.jpg", "100%.jpg"], "100%25.jpg"),
        ("Hohe 1.jpg", ["H\u00f6he 1.jpg"], None),
    ],
)
def test_what_a_name_means(wanted: str, present: list[str], meant: str | None):
    index = match([wanted], present)[0]
    assert (None if index is None else present[index]) == meant


def test_names_mean_the_same_in_several_folders_as_in_one():
    wanted = ["images/my%20photo.jpg", "left/a.jpg", "H\u00f6he.jpg", "b.jpg"]
    folders = [["my photo.jpg", "a.png", "b.jpg"], [], ["images/my photo.jpg", "images/H\u2524he.jpg"], ["c.jpg"]]
    assert match_in_each(wanted, folders) == [match(wanted, present) for present in folders]
    assert match_in_each(wanted, folders)[2] == [0, None, 1, None]


def test_no_photo_is_given_to_two_names():
    assert match(["left/a.jpg", "right/a.jpg"], ["a.jpg"]) == [None, None]
    assert match(["a.png", "a.jpg"], ["a.jpg", "b.jpg"]) == [None, 0]


@pytest.mark.parametrize(
    ("page", "name"),
    [("cp1252", "H\u00f6he 1.jpg"), ("cp932", "\u5199\u771f 1.jpg"), ("cp1251", "\u0444\u043e\u0442\u043e.jpg")],
)
def test_names_in_code_pages_are_read_as_the_files_are_called(page: str, name: str):
    raw = name.encode(page).decode(errors="surrogateescape")
    assert readable([raw, "b.jpg"], lambda names: names.count(name)) == [name, "b.jpg"]
    assert all(ord(letter) < 0xD800 or ord(letter) > 0xDFFF for letter in readable([raw], lambda _: 0)[0])
