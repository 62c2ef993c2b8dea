"""The guides cannot rot: their examples run, their workflow works, their figures are what the code prints."""

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, Run, environment

DOCS = ROOT / "docs"


def block(text: str, marker: str) -> str:
    """The fenced block behind `<!-- marker -->`."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found, marker
    return found[1]


def test_the_python_examples_run_and_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testfile(str(DOCS / "python.md"), module_relative=False, optionflags=options)
    assert result.attempted > 12
    assert result.failed == 0


def test_the_workflow_works_as_pasted(bench: Run, tmp_path: Path) -> None:
    """Its commands, in their order, in a folder with a checkpoint and a baseline that were made as the guide says."""
    guide = (DOCS / "ci.md").read_text()
    workflow = block(guide, "file: .github/workflows/robustness.yml")
    yaml = pytest.importorskip("yaml")
    steps = yaml.safe_load(workflow)["jobs"]["robustness"]["steps"]
    assert [step["uses"] for step in steps if "uses" in step]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0].startswith("pip install")
    assert commands[-1].startswith("bench check")
    train = ["run", "-d", "vanilla", "-a", "clean", "--epochs", "1", "--train-size", "200", "-n", "16"]
    assert bench(*train).returncode == 0
    (checkpoint,) = (tmp_path / "results" / "checkpoints").glob("*.safetensors")
    shutil.copy(checkpoint, tmp_path / "model.safetensors")
    once = re.search(r"## Once.*?```sh\n(.*?)```", guide, re.DOTALL)
    assert once
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "bench").symlink_to(ROOT)
    python = shlex.quote(sys.executable)
    script = (
        f'bench() {{ {python} -m bench "$@"; }}\npip() {{ {python} -m pip "$@"; }}\nset -e\n'
        f"{once[1]}\nrm -r results baseline-results\n"
        f"{block(guide, 'command: wheel')}\n" + "\n".join(commands)
    )
    # The wheel goes into a folder of its own, without what it needs, which is here already.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": "installed"}
    summary = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), **pip}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment() | summary, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "summary.md").read_text().startswith("## Robustness: no regression")
    assert (tmp_path / "robustness.xml").exists()
    assert (tmp_path / "installed" / "bench" / "gate" / "check.py").exists()


@pytest.mark.parametrize(
    ("guide", "marker", "module"),
    [
        ("ci.md", "exact", "bench.gate.power"),
        ("ci.md", "simulated", "bench.gate.simulate"),
        ("statistics.md", "simulated", "bench.statistics.simulate"),
    ],
)
def test_figures_are_those_that_the_command_prints(guide: str, marker: str, module: str) -> None:
    table = (DOCS / guide).read_text().partition(f"<!-- {marker} -->")[2].strip().partition("\n\n")[0]
    command = [sys.executable, "-m", module]
    printed = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=True)
    assert printed.stdout.strip() == table.strip()


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_every_command_shown_exists(path: Path) -> None:
    from bench.cli import app

    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    names |= {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    for word in re.findall(r"(?:^|`)bench ([a-z]\w+)", path.read_text(), re.MULTILINE):
        assert word in names, word
