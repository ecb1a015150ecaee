"""Messages as short lines, for snapshots."""

import textwrap


def wrapped(messages):
    """Each message on lines of at most 96 characters, those after the first indented."""
    return "\n".join(
        textwrap.fill(
            message, 96, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        for text in messages
        for message in text.splitlines()
    )
