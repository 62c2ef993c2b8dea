"""The command line as a user meets it, in subprocesses."""

import json
import os
import pickle
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support import Run, environment


def cells(output: str) -> list[dict[str, object]]:
    return json.loads(output)["cells"]


def test_help_names_every_command_and_each_explains_itself(bench: Run) -> None:
    text = bench("--help").stdout
    for command in ("run", "plan", "ls", "show", "table"):
        assert re.search(rf"\b{command}\b", text)
        assert "Usage: bench" in bench(command, "--help").stdout


def test_a_run_ends_with_a_table_and_the_second_time_answers_from_the_store(
    bench: Run, tiny_run: list[str], tmp_path: Path
) -> None:
    arguments = [*tiny_run, "-d", "tgo", "-a", "pgd3"]
    first = bench(*arguments)
    assert first.returncode == 0, first.stderr
    for expected in ("clean accuracy", "robust accuracy", "attack success", "95% Wilson", "bench.sqlite", "bench show"):
        assert expected in first.stdout
    assert "1 computed now" in first.stdout
    assert "epoch 1/1" in first.stderr
    second = bench(*arguments)
    assert "all answered from the store" in second.stdout
    assert "nothing to compute" in second.stderr
    assert "training" not in second.stderr

    def table_of(text: str) -> str:
        return next(line for line in text.splitlines() if line.lstrip().startswith("tgo"))

    assert table_of(first.stdout) == table_of(second.stdout)
    assert (tmp_path / "results" / "bench.sqlite").exists()


def test_a_matrix_computes_only_what_is_missing(bench: Run, tiny_run: list[str]) -> None:
    bench(*tiny_run, "-d", "vanilla", "-a", "fgsm")
    plan = json.loads(bench("plan", *tiny_run[1:], "-d", "vanilla,mc", "-a", "fgsm,pgd3", "--json").stdout)
    assert [cell["stored"] for cell in plan["cells"]] == [True, False, False, False]
    assert [cell["trained"] for cell in plan["cells"]] == [True, True, False, False]
    assert plan["seconds"] > 0
    run = json.loads(bench(*tiny_run, "-d", "vanilla,mc", "-a", "fgsm,pgd3", "--json").stdout)
    assert run["computed"] == 3
    assert [(c["defense"], c["attack"]) for c in run["cells"]] == [
        (d, a) for d in ("vanilla", "mc") for a in ("fgsm", "pgd3")
    ]
    assert [cell["key"] for cell in run["cells"]] == [cell["key"] for cell in plan["cells"]]


def test_a_plan_computes_and_creates_nothing(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    result = bench("plan", *tiny_run[1:], "-d", "tgo", "-a", "pgd3,pgd5")
    assert "train, attack" in result.stdout
    assert "on this machine" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_stored_results_are_shown_listed_and_tabled(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    run = cells(bench(*tiny_run, "-d", "vanilla,nlif", "-a", "fgsm,pgd3,clean", "--json").stdout)
    listed = json.loads(bench("ls", "runs", "--json").stdout)
    assert {cell["key"] for cell in listed} == {cell["key"] for cell in run}
    key = str(run[1]["key"])
    shown = json.loads(bench("show", key[:12], "--samples", "--json").stdout)
    robust = np.mean([sample["robust"] for sample in shown["samples"]])
    assert robust == pytest.approx(shown["robust"]["value"])
    assert shown["provenance"]["command"].startswith("bench run --dataset")
    assert shown["weights"]["sha256"]
    assert key in bench("show", key[:12]).stdout
    table = bench("table", "--format", "csv", "-o", "out.csv")
    assert table.returncode == 0, table.stderr
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3
    for form in ("text", "md", "json"):
        assert "vanilla" in bench("table", "--format", form).stdout


def test_clean_accuracy_is_the_same_beside_every_attack(bench: Run, tiny_run: list[str]) -> None:
    run = cells(bench(*tiny_run, "-d", "tgo", "-a", "clean,fgsm,rfgsm,pgd3", "--json").stdout)
    assert len({json.dumps(cell["clean"]) for cell in run}) == 1
    assert run[0]["robust"]["value"] == run[0]["clean"]["value"]  # type: ignore[index]
    assert run[0]["attack_success"]["value"] == 0  # type: ignore[index]


def test_several_budgets_and_seeds_make_a_grid(bench: Run, tiny_run: list[str]) -> None:
    arguments = ["plan", *tiny_run[1:], "-a", "pgd3", "--eps", "2/255,4/255", "--seed", "0", "--seed", "1", "--json"]
    plan = json.loads(bench(*arguments).stdout)
    assert [(c["seed"], c["eps"]) for c in plan["cells"]] == [(0, "2/255"), (0, "4/255"), (1, "2/255"), (1, "4/255")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-a", "pdg40"], "did you mean 'pgd'"),
        (["run", "-d", "tgoo"], "did you mean 'tgo'"),
        (["run", "--dataset", "digit"], "did you mean 'digits'"),
        (["run", "--model", "wrn16"], "did you mean 'wrn16-4'"),
        (["run", "--eps", "8"], "did you mean 8/255"),
        (["run", "-a", "pgd-5"], "at least 1"),
        (["run", "-a", "PGD-10"], "did you mean 'pgd10'"),
        (["run", "-a", "pgd-0"], "must be at least 1"),
        (["run", "--norm", "l1"], "unknown norm 'l1'; choose from linf, l2"),
        (["curve", "eps", "--norm", "l1"], "choose from linf, l2"),
        (["leaderboard", "--norm", "l1"], "choose from linf, l2"),
        (["run", "--eps", "0,1"], "the comma separates several eps; write 0.1 with a point"),
        (["plan", "--eps", "0.2,0,05"], "write 0.05 with a point"),
        (["compare", "at", "tgo", "-o", "t.md", "--format", "csv"], "'t.md' ends as md, but --format says csv"),
        (["leaderboard", "-o", "t.csv", "--format", "md"], "'t.csv' ends as csv, but --format says md"),
        (["run", "-n", "501"], "in [1, 500]"),
        (["run", "--epochs", "0"], "--epochs must be at least 1"),
        (["run", "--train-size", "50"], "held out"),
        (["run", "--device", "tpu9"], "try --device cpu"),
        (["run", "--preset", "table9"], "choose from table1"),
        (["run", "--seed", "0,x"], "'x' is not an integer"),
        (["run", "--seed", "-1"], "--seed must not be negative"),
        (["run", "-a", "fgsm", "--alpha", "abc"], "--alpha abc is not a number"),
        (["run", "-a", "fgsm", "--restarts", "0"], "--restarts must be at least 1"),
        (["run", "--norm", "l2"], "--norm l2 needs --eps"),
        (["table", "--store", "none.sqlite"], "there is no store 'none.sqlite'"),
        (["run", "--weights", "none.safetensors"], "none.safetensors"),
        (["run", "--plugin", "none.py"], "none.py"),
        (["show", "abc"], "there is no store"),
        (["table"], "there is no store"),
        (["ls", "defence"], "did you mean 'defenses'"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend_and_leaves_nothing_behind(
    bench: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = bench(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budgets", ["0,0.1", "0,8/255", "0.05, 0.1", "10,20"])
def test_several_budgets_in_one_option_are_no_decimal_comma(bench: Run, budgets: str) -> None:
    assert "with a point" not in bench("plan", "--eps", budgets).stderr


STORED = (
    ["export"], ["baseline", "save"], ["leaderboard"], ["leaderboard", "submit"], ["compare"], ["curve"], ["table"],
    ["variance"], ["worst"], ["figure"],
)  # fmt: skip


@pytest.mark.parametrize("command", STORED, ids=" ".join)
def test_no_default_is_promised_where_options_only_choose_among_stored_cells(bench: Run, command: list[str]) -> None:
    text = " ".join(re.sub(r"[│╭╰─╮╯]", " ", bench(*command, "--help").stdout).split())
    for wrong in ("vanilla if not given", "pgd40 if not given", "the default), cifar10", "dataset's default"):
        assert wrong not in text


def test_the_file_s_ending_chooses_the_format(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    assert bench(*tiny_run, "-d", "vanilla,at", "-a", "clean,fgsm").returncode == 0
    for arguments in (
        ["compare", "vanilla", "at", "-a", "fgsm", "-o", "t.md"],
        ["variance", "-d", "at", "-a", "fgsm", "-o", "v.json"],
        ["leaderboard", "-o", "b.html", "--require", "fgsm"],
        ["leaderboard", "-o", "b.tex", "--require", "fgsm"],
        ["leaderboard", "-o", "site", "--format", "html", "--require", "fgsm"],
    ):
        done = bench(*arguments)
        assert done.returncode == 0, done.stderr
    assert "|---" in (tmp_path / "t.md").read_text().replace(" ", "").replace(":", "")
    json.loads((tmp_path / "v.json").read_text())
    page = (tmp_path / "b.html").read_text()
    assert page.startswith("<!doctype html>") and "<table" in page
    assert "tabular" in (tmp_path / "b.tex").read_text()
    assert (tmp_path / "site" / "index.html").is_file()


def test_output_that_nobody_can_take_is_no_traceback(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    assert bench(*tiny_run, "-a", "fgsm").returncode == 0
    command = [sys.executable, "-m", "bench", "table"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert result.stderr == "error: No space left on device\n"


def trained(bench: Run, tiny_run: list[str], tmp_path: Path) -> Path:
    assert bench(*tiny_run, "-d", "vanilla", "-a", "fgsm").returncode == 0
    (path,) = (tmp_path / "results" / "checkpoints").glob("*.safetensors")
    return path


def test_given_weights_are_attacked_as_they_are(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    weights = trained(bench, tiny_run, tmp_path)
    given = cells(bench(*tiny_run[:5], "-a", "fgsm", "--weights", weights, "--json").stdout)
    own = cells(bench(*tiny_run, "-d", "vanilla", "-a", "fgsm", "--json").stdout)
    assert given[0]["robust"] == own[0]["robust"]
    assert str(given[0]["weights_key"]).startswith("file:")


def test_given_weights_run_as_the_network_they_were_trained_as(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    data = tiny_run[1:5]
    assert bench(*tiny_run, "-d", "nlif", "-a", "clean").returncode == 0
    (path,) = (tmp_path / "results" / "checkpoints").glob("*.safetensors")
    again = bench("run", *data, "--weights", path, "-a", "clean", "--json")
    assert again.returncode == 0, again.stderr
    assert cells(again.stdout)[0]["defense"] == f"nlif ({path.name})"
    assert cells(again.stdout)[0]["draws"] == 5
    wrong = bench("run", *data, "--weights", path, "-d", "vanilla", "-a", "clean")
    assert wrong.returncode == 2
    assert "was trained with neuron kind nlif" in wrong.stderr
    wrong = bench("run", *data, "--weights", path, "-T", "8", "-a", "clean")
    assert "was trained with T 4 and would run with 8" in wrong.stderr
    assert "is one network" in bench("run", *data, "--weights", path, "-d", "nlif,tgo").stderr
    wrong = bench("run", *data, "--weights", path, "--epochs", "9")
    assert "--epochs has no effect" in wrong.stderr


def test_weights_of_another_architecture_are_refused(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    weights = trained(bench, tiny_run, tmp_path)
    digits = ["run", "--dataset", "digits", "-a", "fgsm", "--weights"]
    result = bench(*digits, weights)
    assert "was trained with num_classes 2 and would run with 10" in result.stderr
    assert result.returncode == 2
    # A file from elsewhere says nothing about itself.
    save_file(load_file(weights), tmp_path / "bare.safetensors")
    assert "name its defense with -d" in bench(*digits, "bare.safetensors").stderr
    for lies in ('["x"]', '{"spec": "x", "defense": 7}', '{"spec": {"model": "x"}}'):
        save_file(load_file(weights), tmp_path / "lies.safetensors", {"bench": lies})
        assert "name its defense with -d" in bench(*digits, "lies.safetensors").stderr
        assert "another architecture" in bench(*digits, "lies.safetensors", "-d", "vanilla").stderr
    result = bench(*digits, "bare.safetensors", "-d", "vanilla")
    assert "another architecture" in result.stderr
    assert result.returncode != 0


def test_hostile_weights_do_not_run(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Bomb()))
    result = bench(*tiny_run[:5], "--weights", "w.safetensors")
    assert "pickle" in result.stderr
    assert result.returncode == 2
    assert not (tmp_path / "ran").exists()


PLUGIN = """
import torch
import defenses
from bench import register
from models.cnn import cnn_small

class Leaky(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.last = net, 0.0
    def forward(self, x):
        logits = self.net(x) + self.last
        self.last = logits.detach().abs().max() + 1
        return logits

@register.model("leaky")
def leaky(**spec):
    return Leaky(cnn_small(**spec))

@register.model("nan")
def nan(**spec):
    net = cnn_small(**spec)
    net.readout.register_forward_hook(lambda m, i, o: o if net.training else o * float("nan"))
    return net

@register.attack("rude")
def rude(model, x, y, threat, *, rng):
    raise RuntimeError("no")

@register.attack("brackets")
def brackets(model, x, y, threat, *, rng):
    raise ValueError("no such index [/x] in [n, draws]")

@register.defense("broken")
def broken():
    class Part(defenses.Part):
        name = "broken"
        def penalty(self, step):
            raise TypeError("not a penalty")
    return defenses.Defense("broken", (Part(),))

@register.model("odd")
def odd(classes):
    return None

@register.attack("cheat")
def cheat(model, x, y, threat, *, rng):
    return 1 - x
"""


@pytest.mark.parametrize(("model", "message"), [("leaky", "leaks state"), ("nan", "NaN or infinite logits")])
def test_an_unsound_model_is_reported_and_not_measured(
    bench: Run, tiny_npz: Path, tmp_path: Path, model: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    result = bench("run", "--plugin", "mine.py", "--dataset", tiny_npz, "--model", model, "--epochs", "1", "-a", "fgsm")
    assert result.returncode == 1
    assert message in result.stderr
    assert json.loads(bench("ls", "runs", "--json").stdout) == []


def test_a_failing_attack_does_not_stop_the_others_and_a_cheating_one_is_invalid(
    bench: Run, tiny_run: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    result = bench(*tiny_run, "--plugin", "mine.py", "-a", "rude,brackets,cheat,fgsm", "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert "no such index [/x] in [n, draws] (mine.py:" in result.stderr
    assert "Traceback" not in result.stderr
    assert {cell["attack"]: cell["verdict"] for cell in report["cells"]} == {
        "cheat": "invalid",
        "fgsm": "suspect",  # a network of one epoch is at chance
    }
    assert "RuntimeError: no" in report["failures"][0]
    failed = [cell for cell in json.loads(bench("ls", "runs", "--json").stdout) if cell["status"] == "failed"]
    assert [cell["attack"] for cell in failed] == ["rude", "brackets"]
    assert "cheat" not in bench("table").stdout


def test_a_failing_defense_does_not_stop_the_others(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    result = bench(*tiny_run, "--plugin", "mine.py", "-d", "broken,vanilla", "-a", "fgsm", "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert [cell["defense"] for cell in report["cells"]] == ["vanilla"]
    assert "TypeError: not a penalty (mine.py:" in report["failures"][0]
    assert "Traceback" not in result.stderr


def test_a_model_builder_with_another_signature_is_one_line(bench: Run, tiny_run: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    result = bench(*tiny_run[:3], "--plugin", "mine.py", "--model", "odd", "-a", "fgsm")
    assert result.returncode == 2
    assert "model 'odd'" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_next_commands_name_the_data_and_the_store_as_typed(bench: Run, tiny_run: list[str]) -> None:
    result = bench(*tiny_run, "-a", "fgsm", "--results", "my results")
    following = [line.strip() for line in result.stdout.splitlines() if line.startswith("  bench ")]
    assert len(following) == 3
    for line in following:
        again = bench(*("plan" if word == "run" else word for word in shlex.split(line)[1:]))
        assert again.returncode == 0, line + again.stderr


def test_another_program_s_database_is_left_alone(bench: Run, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = (tmp_path / "other.sqlite").read_bytes()
    result = bench("ls", "runs", "--store", "other.sqlite")
    assert result.returncode == 2
    assert "another program's database" in result.stderr
    assert (tmp_path / "other.sqlite").read_bytes() == before


def test_a_results_folder_that_cannot_be_written_is_named_before_training(
    bench: Run, tiny_run: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = bench(*tiny_run, "-a", "fgsm", "--results", "file")
    assert result.returncode == 2
    assert "--results" in result.stderr
    assert "training" not in result.stderr
