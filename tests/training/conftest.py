"""A fork server with torch for all scripts of this folder, so that a check takes no second."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.training.check import Request, check_command
from harness.training.processes import ForkServer

collect_ignore = ["scripts"]
SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(scope="session")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fork_server")
    modules = folder / "modules.json"
    modules.write_text(json.dumps(["torch", "torch._dynamo", "torch.distributed"]))
    server = ForkServer([sys.executable], modules, folder)
    assert server.usable
    yield server
    server.close()


@pytest.fixture
def checked(ready, tmp_path, monkeypatch):
    """Checks a script of this folder: ``checked(name, *arguments, **options_of_request)``.

    With a `text`, that is the script.
    """
    monkeypatch.chdir(tmp_path)

    def check(name, *arguments, text="", **options):
        if text:
            (tmp_path / f"{name}.py").write_text(text)
        else:
            shutil.copy(SCRIPTS / f"{name}.py", tmp_path)
        command = [sys.executable, f"{name}.py", *arguments]
        request = Request(command, [Path("runs")], **options)
        return check_command(request, ready=ready)

    return check
