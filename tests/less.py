"""Makes checks in this process, and in its forks, try less: a test takes a third of the time.

Shorter runs, fewer sets of options and fewer other optimizers and metrics are enough for most
tests. Others take the fixture `all_is_tried`, and slow tests have it. A new Python, or one
that is spawned, tries what a user's run does.
"""

from harness.engine import option_sets, search

ALL = {
    (module, name): getattr(module, name)
    for module, names in (
        (option_sets, ("FAR", "SETS", "OTHER_OPTIMIZERS", "OTHER_METRICS")),
        (search, ("SETS", "SWEPT_SETS")),
    )
    for name in names
}
"""What a user's run tries, by module and name."""
LESS = {"FAR": 60, "SETS": 4, "SWEPT_SETS": 1}

for (_module, _name), _value in ALL.items():
    setattr(_module, _name, LESS[_name] if _name in LESS else _value[:1])
