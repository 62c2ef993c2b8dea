"""README and docs cannot rot: their commands exist, their plug-ins run, their lists are complete."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support import ROOT, Run

from bench.names import short_name
from bench.registry import ATTACKS, DEFENSES, GRADIENTS, MODELS

TEXT = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "docs" / "extending.md").read_text()
ATTACKS_GUIDE = (ROOT / "docs" / "attacks.md").read_text()


def block(marker: str, text: str = TEXT) -> str:
    """The fenced block that follows `<!-- marker -->`."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found, marker
    return found[1]


def test_the_plug_in_shown_runs_as_shown(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(block("file: my_parts.py"))
    arguments = shlex.split(block("command: plugin"))[1:]
    result = bench(*arguments, "--dataset", tiny_npz, "--model", "cnn-small", "--epochs", "1", "--json")
    assert result.returncode == 0, result.stderr
    cells = json.loads(result.stdout)["cells"]
    assert [cell["status"] for cell in cells] == ["done"] * 4
    assert not [cell for cell in cells if cell["verdict"] == "invalid"]
    assert {cell["defense"] for cell in cells} == {"gaussian:sigma=0.2", "gaussian+mc"}


def test_the_parts_that_the_guide_shows_run_as_shown(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    for name in ("mim.py", "quiet.py"):
        (tmp_path / name).write_text(block(f"file: {name}", EXTENDING))
    arguments = shlex.split(block("command: both", EXTENDING))[1:]
    result = bench(*arguments, "--dataset", tiny_npz, "--epochs", "1", "--json")
    assert result.returncode == 0, result.stderr
    cells = json.loads(result.stdout)["cells"]
    assert [cell["attack"] for cell in cells] == ["mim5", "mim20:mu=0.9"] * 2
    assert not [cell for cell in cells if cell["verdict"] == "invalid"]


def test_the_gradient_that_the_guide_shows_runs_as_shown(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    for name in ("mim.py", "ste.py"):
        (tmp_path / name).write_text(block(f"file: {name}", EXTENDING))
    arguments = shlex.split(block("command: gradient", EXTENDING))[1:]
    result = bench(*arguments, "--dataset", tiny_npz, "--epochs", "1", "--json")
    assert result.returncode == 0, result.stderr
    cells = json.loads(result.stdout)["cells"]
    assert [cell["attack"] for cell in cells] == ["mim5@ste", "pgd10@ste:scale=0.5"]
    assert not [cell for cell in cells if cell["verdict"] == "invalid"]


def test_the_neuron_and_the_encoding_that_the_guide_shows_run_and_learn(
    bench: Run, tiny_npz: Path, tmp_path: Path
) -> None:
    (tmp_path / "fading.py").write_text(block("file: fading.py", EXTENDING))
    arguments = shlex.split(block("command: fading", EXTENDING))[1:]
    result = bench(*arguments, "--dataset", tiny_npz, "--model", "tiny", "--epochs", "1", "--json")
    assert result.returncode == 0, result.stderr
    cells = json.loads(result.stdout)["cells"]
    assert [cell["status"] for cell in cells] == ["done"] * 3
    assert not [cell for cell in cells if cell["verdict"] == "invalid"]
    (stored,) = (tmp_path / "results" / "checkpoints").glob("*.safetensors")
    learnt = [value for name, value in load_file(stored).items() if name.endswith("threshold")]
    assert learnt and all(value.ne(1).any() for value in learnt)


@pytest.mark.parametrize("registry", [ATTACKS, GRADIENTS], ids=lambda registry: registry.kind)
def test_every_attack_and_gradient_is_in_the_guide(registry: object) -> None:
    names = registry.names()  # type: ignore[attr-defined]
    assert not [name for name in names if not re.search(rf"`{name}(K|[:`])", ATTACKS_GUIDE)]


@pytest.mark.parametrize("registry", [DEFENSES, ATTACKS, MODELS], ids=lambda registry: registry.kind)
def test_every_built_in_name_is_described(registry: object) -> None:
    names = registry.names()  # type: ignore[attr-defined]
    assert not [name for name in names if f"`{name}`" not in TEXT and f"`{name}K`" not in TEXT]


def test_the_commands_shown_are_understood(bench: Run) -> None:
    for line in block("command: matrix").splitlines():
        command, *arguments = shlex.split(line)
        assert command == "bench"
        if arguments[0] == "run":
            plan = json.loads(bench("plan", *arguments[1:], "--json").stdout)
            assert len(plan["cells"]) == 24


def test_the_search_shown_is_the_tuning_guide_s_which_is_run_there() -> None:
    assert block("command: tune") in (ROOT / "docs" / "tuning.md").read_text()


def test_a_network_of_one_s_own_is_measured_by_the_commands_shown(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import math\nfrom torch import nn\n\n"
        "class build(nn.Module):\n"
        "    def __init__(self, num_classes, in_shape, neuron):\n"
        "        super().__init__()\n"
        "        self.hidden, self.neuron = nn.Linear(math.prod(in_shape), 20), neuron()\n"
        "        self.last = nn.Linear(20, num_classes)\n\n"
        "    def forward(self, x):\n"
        "        return self.last(self.neuron(self.hidden(x.flatten(1)).expand(4, -1, -1)).mean(0))\n"
    )
    check, run = (shlex.split(line, comments=True)[1:] for line in block("command: own").splitlines())
    checked = bench(*check)
    assert "nets.py:build" in checked.stdout, checked.stderr
    result = bench(*run, "--dataset", tiny_npz, "--epochs", "1", "--json")
    assert result.returncode == 0, result.stderr
    assert [cell["status"] for cell in json.loads(result.stdout)["cells"]] == ["done"] * 4


def test_the_output_shown_is_of_the_command_shown() -> None:
    shown = block("output: run")
    assert re.search(r"^ tgo +pgd40 +clean accuracy +\d+\.\d +\[\d+\.\d, \d+\.\d\] +500 +[0-9a-f]{12}$", shown, re.M)
    for name in ("robust accuracy", "any iterate", "attack success"):
        assert re.search(rf"{name} +\d+\.\d +\[\d+\.\d, \d+\.\d\] +\d+", shown)


def test_the_table_shown_has_an_interval_in_every_cell() -> None:
    rows = TEXT.split("<!-- output: matrix -->")[1].split("\n\n")[1].strip().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["vanilla", "at", "tgo", "tgo+at"]
    for row in rows:
        assert len(re.findall(r"\| \d+\.\d \[\d+\.\d, \d+\.\d\] ", row)) == 7


def test_the_figures_compared_with_the_paper_s_are_those_of_the_stored_cells() -> None:
    with (ROOT / "results" / "cifar10-wrn16-4" / "cells.csv").open() as file:
        cells = {(line["defense"], line["attack"]): line for line in csv.DictReader(file)}
    assert len(cells) == 50

    def percent(defense: str, attack: str, rate: str = "robust") -> str:
        return f"{100 * float(cells[defense, attack][rate]):.1f}"

    section = TEXT.split("### Measured here, in kind")[1].split("## ")[0]
    here = "\n".join(line.split("|")[2] for line in section.splitlines() if line.startswith("|"))
    for shown in (
        f"{percent('vanilla', 'pgd40')}% left",
        *(
            f"{percent(weak, attack)} to {percent(strong, attack)}"
            for weak, strong in (("vanilla", "tgo"), ("at", "tgo+at"))
            for attack in ("fgsm", "rfgsm", "pgd40")
        ),
        f"{percent('vanilla', 'fgsm', 'clean')} to {percent('tgo', 'fgsm', 'clean')} alone",
        f"{percent('at', 'fgsm', 'clean')} to {percent('tgo+at', 'fgsm', 'clean')} with AT",
    ):
        assert shown in here, shown


def test_what_is_said_of_the_leaderboard_is_what_its_cells_say() -> None:
    rates: dict[tuple[str, str, str], dict[str, float]] = {}
    with (ROOT / "results" / "leaderboard" / "cells.csv").open() as file:
        for line in csv.DictReader(file):
            if line["seed"] == "0" and line["eps_text"] in ("8/255", "0.1"):
                name = short_name(line["defense"]).partition(" (")[0]
                rates[line["dataset"], name, line["attack"]] = {
                    rate: 100 * float(line[rate]) for rate in ("robust", "robust_any")
                }

    def rows(dataset: str, attack: str) -> dict[str, float]:
        return {
            name: rate["robust_any"] for (data, name, met), rate in rates.items() if (data, met) == (dataset, attack)
        }

    at = [rates["cifar10", "at", attack]["robust"] for attack in ("fgsm", "pgd7", "snn-standard")]
    worst, pgd = rows("digits", "snn-standard"), rows("digits", "pgd40")
    noisy = rows("digits", "pgd10:eot=10")
    gaps = [pgd[name] - worst[name] for name in worst if name not in noisy]
    assert len(gaps) == 27
    square = rows("digits", "square300")
    pairs = [("tgo+at", "at"), ("tgo+rat", "rat")]
    hardest = rows("digits", "apgd50:loss=margin@arctan:alpha=4.0")
    averaged = rows("digits", "apgd50:eot=20,loss=margin@arctan:alpha=4.0")
    gains = [worst[a] - worst[b] for a, b in pairs] + [averaged[a] - hardest[b] for a, b in pairs]
    section = " ".join(TEXT.split("### The leaderboard")[1].split("###")[0].split())
    for shown in (
        f"keeps {at[0]:.1f}% of CIFAR-10's images under FGSM at 8/255, {at[1]:.1f}% under PGD-7, and {at[2]:.1f}% once",
        f"PGD-40 leaves {min(gaps):.0f} to {max(gaps):.0f} points more",
        f"keeps {min(gains):.0f} to {max(gains):.0f} points more",
        f"up to {max(square[name] - rate for name, rate in noisy.items()):.0f} points that are not",
    ):
        assert shown in section, shown


@pytest.mark.parametrize(
    "path",
    ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("[dr]*/**/*.md"))],
)
def test_links_point_at_files(path: str) -> None:
    text = (ROOT / path).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((ROOT / path).parent / target).exists(), target
