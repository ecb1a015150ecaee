"""Draws traces, for tests of what must be true of every trace."""

from hypothesis import strategies as st

from harness import Operation, Trace

COUNTS = st.integers(1, 500)
SLOTS = st.sampled_from(["a", "b", "slot_2"])
NAMES = st.sampled_from(["", "resume_by_pickle"])
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=8,
)  # fmt: skip


@st.composite
def traces(draw, counts=COUNTS):
    operations, saved = [], []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["train", "optimizer", "scheduler", "save", "resume", "load"]))
        if kind in ("resume", "load"):
            if not saved:
                continue
            operations.append(Operation(kind, slot=draw(st.sampled_from(saved)), check=draw(NAMES)))
        elif kind == "save":
            saved.append(draw(SLOTS))
            operations.append(Operation("save", slot=saved[-1]))
        else:
            operations.append(Operation(kind, count=draw(counts)))
    options = draw(st.dictionaries(st.sampled_from(["gamma", "steps", "_x1"]), LITERALS))
    return Trace(tuple(operations) or (Operation("train", count=1),), tuple(options.items()))
