"""Kills a training script after K optimizer steps, runs it again, and prints both learning rates.

    python by_hand.py K SCRIPT [ARGUMENT ...]

K can also be the end of a file's name: the script is then killed in the middle of a save, right
before it opens that file to write it. If the resumed run fails, its last line is printed.

It uses nothing of the harness, so that what the harness says about a framework can be checked, and
reported to its maintainers. The script must take ``--folder``, and go on from what is there.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path


def run_recorded(log: str, kill_at: str, script: str, *arguments: str) -> None:
    """Run the script, and write the LRs of each step to `log`.

    If `kill_at` is a number above 0, the process dies right before the step after so many: whatever
    the script does after a step, saving included, is done by then.
    """
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    steps = 0
    kill_after = int(kill_at) if kill_at.isdigit() else 0

    def before_open(event, arguments) -> None:
        if event == "open" and str(arguments[0]).endswith(kill_at) and arguments[2] & os.O_WRONLY:
            os._exit(9)

    if not kill_at.isdigit():
        sys.addaudithook(before_open)

    def before_step(optimizer, args, kwargs) -> None:
        nonlocal steps
        if kill_after and steps == kill_after:
            os._exit(9)
        steps += 1
        with open(log, "a") as file:
            file.write(f"{[float(group['lr']) for group in optimizer.param_groups]}\n")

    register_optimizer_step_pre_hook(before_step)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def rates(log: Path, kill_at: str, command: list[str]) -> list[str]:
    """The LRs of each step of a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--recorded", str(log), kill_at, *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode and kill_at == "0":
        print(done.stderr.splitlines()[-1])
    return log.read_text().splitlines() if log.exists() else []


def main() -> None:
    """Compare a whole run with one that was killed and resumed."""
    kill_at, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = rates(folder / "1.log", "0", [*command, "--folder", str(folder / "whole")])
        command += ["--folder", str(folder / "killed")]
        rates(folder / "2.log", kill_at, command)
        resumed = rates(folder / "3.log", "0", command)
    print(f"{len(whole)} steps; killed at {kill_at}; the resumed run made {len(resumed)}")
    rest = whole[len(whole) - len(resumed) :]
    for number, (expected, got) in enumerate(zip(rest, resumed, strict=True)):
        step = len(whole) - len(resumed) + number + 1
        print(f"step {step}: {expected} {got}{'' if expected == got else ' <--'}")


if __name__ == "__main__":
    if sys.argv[1] == "--recorded":
        run_recorded(*sys.argv[2:])
    else:
        main()
