"""The doors of `harness`, under a name that nobody else has.

Many projects have a folder ``harness`` of their own, which Python finds first where it looks into
the current folder. The command line and the pytest plugin are therefore started by this package.
"""

from __future__ import annotations

import sys
from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent
"""The folder that this package and `harness` are in."""


def main() -> None:
    """Run the command line of our `harness`, wherever else Python would look for it first."""
    place = str(PLACE)
    sys.path.insert(0, place)
    from harness.cli.main import main as ours

    sys.path.remove(place)
    ours()
