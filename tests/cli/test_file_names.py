"""Two names never share a file, and which file a name gets doesn't depend on the order."""

from __future__ import annotations

from harness.core.output import file_name, file_names

ALIKE = ["StepLR", "steplr", "a.b", "a_b", "a/b", "x" * 300, "x" * 299 + "y", "\ud800", "\x00"]


def test_names_never_collide_where_case_does_not_count() -> None:
    made = file_names(ALIKE)
    assert len({file.lower() for file in made.values()}) == len(ALIKE)
    assert made == file_names(reversed(ALIKE))
    assert all(len(file) < 200 and file.isascii() for file in made.values())


def test_a_name_of_its_own_stays_as_it_is() -> None:
    assert file_names(["StepLR", "a.b"]) == {"StepLR": "StepLR", "a.b": "a_b"}


def test_a_name_that_is_the_mark_of_another_gets_its_own_mark() -> None:
    marked = file_names(["a.b", "a_b"])["a.b"]
    made = file_names(["a.b", "a_b", marked])
    assert len(set(made.values())) == 3
    assert file_name(marked) == marked
