"""`--matrix FILE`: a file is the options of its parts, typed; its parts come in their order; its mistakes are named."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import ROOT
from typer.testing import CliRunner

from bench.cli import app
from bench.cli.matrix import matrix_of
from bench.errors import BenchError
from bench.spec import key_of

GUIDE = (ROOT / "docs" / "matrix-files.md").read_text()
EXAMPLE = GUIDE.partition("<!-- file: leaderboard.toml -->\n```toml\n")[2].partition("```")[0]
QUICK = ["--model", "tiny", "--epochs", "1", "--train-size", "100", "-n", "20"]
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `bench ARGUMENTS` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)], prog_name="bench")


def keys(options: str) -> list[str]:
    """The cells that a command plans."""
    return [key_of(cell) for plan in matrix_of(f"bench run {options}").plans() for cell in plan.cells]


def planned(text: str, options: str = "") -> list[str]:
    """The cells of a file in the present folder."""
    Path("m.toml").write_text(text)
    return keys(f"--matrix m.toml {options}")


def answered(done: Result) -> list[dict[str, object]]:
    assert done.exit_code == 0, done.stderr
    return list(json.loads(done.stdout)["cells"])


def test_the_guide_s_file_is_searched_planned_and_run(call: Call) -> None:
    pytest.importorskip("optuna")
    Path("leaderboard.toml").write_text(EXAMPLE)
    early = call("run", "--matrix", "leaderboard.toml", *QUICK)
    assert early.exit_code == 2
    assert "part 1: 'vanilla' was not tuned yet; first: bench tune --matrix leaderboard.toml" in early.stderr
    search = ["tune", "--matrix", "leaderboard.toml", *QUICK[:6], "--budget", "1", "--held-out", "20"]
    shown = call(*search, "--plan")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.count("1 trial, 0 stored; trained on 80 images, judged on 20 held out") == 4
    found = call(*search)
    assert found.exit_code == 0, found.stderr
    assert "On the test set:\n  bench run --matrix leaderboard.toml\n" in found.stdout
    plan = answered(call("plan", "--matrix", "leaderboard.toml", *QUICK, "--json"))
    # With a single trial the winners are the defaults, which part 3 has too: two of its six cells are in part 1.
    assert len(plan) == len({cell["key"] for cell in plan}) == 16 + 6 + 6 - 2 + 2
    cells = answered(call("run", "--matrix", "leaderboard.toml", *QUICK, "--json"))
    assert [cell["key"] for cell in cells] == [cell["key"] for cell in plan]
    assert [cell["dataset"] for cell in cells] == ["digits"] * 26 + ["digits4"] * 2
    # The parts that are tuned have these budgets, and every attack but that of the others.
    tuned = [cell for cell in cells if cell["dataset"] == "digits" and cell["eps"] == "1/10"]
    assert len(tuned) == 22 and all("(tuned: best of 1 trial" in str(cell["defense"]) for cell in tuned)
    again = call("plan", "--matrix", "leaderboard.toml", *QUICK)
    assert "Everything is stored" in again.stdout
    assert call("leaderboard").exit_code == 0


def test_the_plan_of_the_guide_s_file_leaves_out_what_it_says(call: Call) -> None:
    text = EXAMPLE.replace("tuned = true", "tuned = false")
    cells = answered(_plan(call, text, "--model", "tiny"))
    assert len(cells) == 28
    noiseless = [cell for cell in cells if cell["defense"] in ("vanilla", "at")]
    assert {cell["attack"] for cell in noiseless} == {"fgsm", "pgd10", "pgd40"}
    # Left in, it would be there by another name: without noise there is no mean over draws.
    kept = answered(_plan(call, text.replace("exclude", "# exclude"), "--model", "tiny"))
    assert {cell["attack"] for cell in kept if cell["defense"] == "at"} == {"fgsm", "pgd10", "pgd40", "pgd20"}


def _plan(call: Call, text: str, *options: str) -> Result:
    Path("m.toml").write_text(text)
    return call("plan", "--matrix", "m.toml", *options, "--json")


NAMES = st.lists(st.sampled_from(["vanilla", "at", "mc:lam_max=0.6,delta=0.25", "tgo"]), min_size=1, max_size=2)
ATTACKS = st.lists(st.sampled_from(["fgsm", "pgd3", "pgd7", "pgd5:alpha=0.02", "apgd5"]), min_size=1, max_size=3)
PARTS = st.fixed_dictionaries(
    {"defense": NAMES, "attack": ATTACKS},
    optional={
        "seed": st.lists(st.integers(0, 9), min_size=1, max_size=2),
        "eps": st.sampled_from([0.05, "8/255", [0.1, 0.2]]), "images": st.integers(1, 50),
        "epochs": st.integers(1, 3), "time-steps": st.integers(1, 3),
        "decay": st.sampled_from([0.25, 1]), "norm": st.sampled_from(["l2", "linf"]), "train-bf16": st.booleans(),
        "attack-seed": st.integers(0, 3), "model": st.sampled_from(["tiny", "tiny-wide"]), "lr": st.just(0.031),
    },
)  # fmt: skip


@example([{"defense": ["at"], "attack": ["fgsm"]}, {"defense": ["at"], "attack": ["pgd3"], "norm": "l2"}])
@example([{"defense": ["at"], "attack": ["pgd3"]}, {"defense": ["at"], "attack": ["pgd3", "pgd7"]}])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, min_size=1, max_size=3))
def test_a_file_is_what_its_parts_are_when_they_are_typed(call: Call, parts: list[dict[str, object]]) -> None:
    """The same cells, or the same complaint."""
    text, each, wrong = 'model = "tiny"\n', list[str](), ""
    for number, part in enumerate(parts, 1):
        text += "\n[[part]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in part.items())
        words = [
            f"--{key}" if value is True else f"--{key}={one}"
            for key, value in ({"model": "tiny"} | part).items()
            for one in (value if isinstance(value, list) else [value])
            if value is not False
        ]
        try:
            each += keys(" ".join(words))
        except BenchError as error:
            wrong = wrong or f"m.toml: part {number}: {error}"
    if wrong:
        with pytest.raises(BenchError) as raised:
            planned(text)
        assert str(raised.value) == wrong
        return
    found = planned(text)
    assert len(found) == len(set(found))
    assert set(found) == set(each)


PART = '[[part]]\ndefense = ["vanilla", "at"]\nattack = "pgd3"\nmodel = "tiny"\nnorm = "l2"\neps = 1\n'


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ("-d tgo -d nlif", "-d tgo,nlif -a pgd3 --norm l2 --eps 1"),
        ("-a fgsm --seed 3", "-d vanilla,at -a fgsm --norm l2 --eps 1 --seed 3"),
        # A default that is typed is typed.
        ("--norm linf --eps 0.1", "-d vanilla,at -a pgd3 --norm linf --eps 0.1"),
        ("--dataset digits4", "-d vanilla,at -a pgd3 --norm l2 --eps 1 --dataset digits4"),
    ],
)
def test_what_is_typed_takes_the_place_of_the_file_s(call: Call, options: str, same: str) -> None:
    assert planned(PART, options) == keys(f"{same} --model tiny")


def test_a_part_overrides_what_all_share(call: Call) -> None:
    text = 'model = "tiny"\nepochs = 3\ntrain-bf16 = true\nattack = "fgsm"\n[[part]]\nepochs = 2\ntrain-bf16 = false\n'
    assert planned(text) == keys("-a fgsm --model tiny --epochs 2")


def test_one_attack_run_serves_what_lies_on_its_path_in_several_parts(call: Call) -> None:
    Path("m.toml").write_text(
        'model = "tiny"\n[[part]]\nattack = ["pgd3", "fgsm"]\n[[part]]\nattack = ["pgd7", "pgd3"]\n'
    )
    (plan,) = matrix_of("bench run --matrix m.toml").plans()
    (job,) = plan.jobs
    assert [[cell.attack.name for cell in group] for group in job.trajectories] == [["fgsm"], ["pgd3", "pgd7"]]


def test_earlier_parts_come_first_and_the_same_command_continues(call: Call) -> None:
    text = (
        'model = "tiny"\nepochs = 1\ntrain-size = 100\nimages = 20\n'
        '[[part]]\nattack = "square20"\n[[part]]\nattack = "fgsm"\n[[part]]\ndataset = "digits4"\nattack = "clean"\n'
    )
    Path("m.toml").write_text(text)
    command = ("run", "--matrix", "m.toml", "--json")
    stopped = call(*command, "--max-forwards", "1")
    assert stopped.exit_code == 3
    assert "2 of 3 cells are left. Continue with the same command." in stopped.stderr
    assert "on digits4" not in stopped.stderr
    # Cheap ones first would have begun with fgsm.
    assert [cell["attack"] for cell in json.loads(stopped.stdout)["cells"]] == ["square20"]
    assert json.loads(stopped.stdout)["left"] == 2
    done = call(*command)
    assert [cell["dataset"] for cell in answered(done)] == ["digits", "digits", "digits4"]
    assert "square20" not in done.stderr
    shown = call("run", "--matrix", "m.toml").stdout
    assert "digits / tiny" in shown and "digits4 / tiny" in shown and "bench run" not in shown


def test_every_cell_has_a_command_of_its_own_without_the_file(call: Call, tiny_npz: Path) -> None:
    Path("part.py").write_text(
        "from dataclasses import dataclass, replace\nfrom bench.registry import register\n"
        "from defenses.base import Defense, Part\n\n"
        '@dataclass(frozen=True)\nclass Halved(Part):\n    name = "halved"\n    slot = "neuron"\n'
        "    def neuron(self, spec):\n        return replace(spec, decay=spec.decay * 0.5)\n\n"
        '@register.defense("halved")\ndef halved():\n    return Defense("halved", (Halved(),))\n'
    )
    Path("m.toml").write_text(
        f'dataset = "{tiny_npz}"\nplugin = "part.py"\nmodel = "cnn-small"\nepochs = 1\nattack = "fgsm"\n'
        '[[part]]\ndefense = ["vanilla", "halved"]\n[[part]]\ndefense = "halved"\ndecay = 0.8\n'
    )
    cells = answered(call("run", "--matrix", "m.toml", "--json"))
    assert len({cell["key"] for cell in cells}) == 3
    Path("m.toml").unlink()
    for cell in cells:
        again = json.loads(call("show", cell["key"], "--repeat", "--json").stdout)
        assert again["exact"], again
        assert "--matrix" not in again["command"]


def test_models_that_differ_are_a_column(call: Call) -> None:
    text = 'epochs = 1\ntrain-size = 100\nimages = 20\nattack = "clean"\n'
    Path("m.toml").write_text(text + '[[part]]\nmodel = "tiny"\n[[part]]\nmodel = "tiny-wide"\ntime-steps = 2\n')
    shown = call("run", "--matrix", "m.toml").stdout
    assert "digits, linf, seed 0" in shown
    assert re.search(r"^ vanilla +tiny-wide +2 +clean ", shown, re.MULTILINE), shown


FGSM = '[[part]]\nattack = "fgsm"\n'
MISTAKES = [
    ("", "m.toml: there is no part; begin one with a line [[part]]"),
    ("a = = 1", "m.toml: not a TOML file: "),
    ("[part]\nattack = 'fgsm'", "m.toml: write each part below a line [[part]]"),
    ("[[part]]", "m.toml: part 1 is empty; give it a defense and an attack"),
    ("x = 1\n" + FGSM, "m.toml: unknown key 'x'; keys are the long options"),
    (FGSM + "[[part]]\nattacks = 'fgsm'", "m.toml: part 2: unknown key 'attacks'; did you mean 'attack'?"),
    (FGSM + "batch_size = 3", "part 1: unknown key 'batch_size'; did you mean 'batch-size'?"),
    (FGSM + "epochs = 'ten'", "m.toml: part 1: Invalid value for '--epochs'"),
    (FGSM + "epochs = 1.5", "m.toml: part 1: Invalid value for '--epochs'"),
    (FGSM + "epochs = [1, 2]", "part 1: epochs takes one value, got [1, 2]; make a part for each"),
    (FGSM + "epochs = true", "part 1: epochs takes texts and numbers, got true"),
    (FGSM + "dataset = {a = 1}", "part 1: dataset takes texts and numbers, got a table"),
    (FGSM + "bf16 = 'yes'", "part 1: bf16 is true or false, got 'yes'"),
    (FGSM + "defense = []", "part 1: 'defense' is empty; name something in it"),
    (FGSM + "eps = '0,1'", "part 1: --eps 0,1: the comma separates several eps"),
    (FGSM + "norm = 'l7'", "part 1: unknown norm 'l7'"),
    (FGSM + "seed = ['a']", "part 1: --seed: 'a' is not an integer"),
    (FGSM + "defense = 'nope'", "part 1: unknown defense 'nope'"),
    (FGSM + "alpha = 0.1", "part 1: --alpha 0.1 has no effect on fgsm; leave it out"),
    ("workers = 2\n" + FGSM, "m.toml: 'workers' is for the command, not for its file: give --workers there"),
    (FGSM + "results = 'r'", "part 1: 'results' is for the command"),
    (FGSM + "max-time = '2h'", "part 1: 'max-time' is for the command"),
    (FGSM + "matrix = 'm.toml'", "part 1: 'matrix' is for the command"),
    (FGSM + "budget = 2", "part 1: 'budget' belongs below [tune]"),
    (FGSM + "[tune]\nepochs = 2", "[tune]: 'epochs' belongs into the parts"),
    ("[[part]]\nattack = '@weak'", "part 1: attack: there is no list '@weak' (there: none)"),
    (FGSM + "[lists]\nepochs = 1", "[lists]: nothing names '@epochs'; leave it out, or put it above all tables"),
    (FGSM + "[lists]\na = '@b'\nb = 'x'", "[lists]: a: there is no list '@b'"),
    (FGSM + "exclude = [{attack = 'pgd3'}]", "part 1: exclude names attack 'pgd3', which"),
    (FGSM + "exclude = [{attak = 'fgsm'}]", "part 1: write exclude as [{"),
    (FGSM + "exclude = [{attack = 'fgsm'}]", "m.toml: nothing is left to run"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_mistakes_are_one_line_that_names_the_part_and_the_mend(call: Call, text: str, says: str) -> None:
    done = _plan(call, text)
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run --matrix none.toml", "there is no matrix file 'none.toml'"),
        ("run --matrix .", ".: cannot be read: Is a directory"),
        ("run --matrix m.toml --preset table1", "--preset and --matrix both say what to run"),
        ("tune --matrix m.toml --budget 2", "m.toml: no part says tuned = true, so there is nothing to search"),
        ("tune --matrix m.toml --show", "leave --matrix out"),
        ("tune --matrix t.toml", "how many trials each defense gets"),
        ("tune --matrix p.toml --budget 2", "p.toml: part 1: preset cannot be tuned"),
    ],
)
def test_commands_that_a_file_does_not_fit_say_so(call: Call, tmp_path: Path, command: str, says: str) -> None:
    Path("m.toml").write_text(FGSM)
    Path("t.toml").write_text(FGSM + "tuned = true")
    Path("p.toml").write_text("[[part]]\npreset = 'table1'\ntuned = true")
    done = call(*command.split())
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_search_is_tried_as_its_table_says_and_trains_as_its_part_does(call: Call) -> None:
    Path("m.toml").write_text(
        'model = "tiny"\nimages = 400\nseed = [1, 2]\neps = 0.2\ntrain-size = 100\n'
        '[[part]]\ndefense = "at"\nepochs = 2\nattack = "square5000"\ntuned = true\n'
        '[[part]]\ndefense = ["at", "vanilla"]\nepochs = 2\ntuned = true\n'
        '[[part]]\ndefense = "at"\nepochs = 3\ntuned = true\n[[part]]\ndefense = "tgo"\n'
        '[tune]\nattack = ["fgsm", "pgd3"]\nbudget = 3\nheld-out = 20\n'
    )
    typed = ["-d", "at", "-a", "fgsm,pgd3", "--model", "tiny", "--eps", "0.2", "--train-size", "100"]
    options = ("--budget", "3", "--held-out", "20", "--plan", "--json")
    expected = [
        json.loads(call("tune", *words, *options).stdout)[0]["study"]
        for words in (
            [*typed, "--epochs", "2"], ["-d", "vanilla", *typed[2:], "--epochs", "2"], [*typed, "--epochs", "3"],
        )
    ]  # fmt: skip
    found = json.loads(call("tune", "--matrix", "m.toml", "--plan", "--json").stdout)
    assert [one["study"] for one in found] == expected
    assert [one["trials"] for one in found] == [3, 3, 3]
    fewer = json.loads(call("tune", "--matrix", "m.toml", "--budget", "1", "--plan", "--json").stdout)
    assert [(one["study"], one["trials"]) for one in fewer] == [(key, 1) for key in expected]


NAMED = """
[[part]]
name = "first"
defense = ["vanilla", "at"]
attack = "fgsm"
[[part]]
name = "second"
attack = ["pgd2", "pgd3"]
[[part]]
attack = "pgd4"
[[part]]
name = "second"
attack = "pgd5"
"""


def test_named_parts_are_run_alone(call: Call) -> None:
    every = planned(NAMED)
    first, second = planned(NAMED, "--part first"), planned(NAMED, "--part second")
    assert (len(every), len(first), len(second)) == (6, 2, 3)
    assert sorted(planned(NAMED, "--part first,second")) == sorted([*first, *second])
    assert planned(NAMED, "--part second -d at") == keys("-d at -a pgd2,pgd3,pgd5")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("plan --matrix m.toml --part third", "m.toml: no part has the name 'third'; choose from first, second"),
        ("plan --part first", "--part is of a matrix file; name that, too: --matrix FILE"),
        ("tune --part first --budget 2", "--part is of a matrix file; name that, too: --matrix FILE"),
        ("audit --part first", "No such option: --part"),
    ],
)
def test_a_part_that_is_none_is_refused(call: Call, command: str, says: str) -> None:
    Path("m.toml").write_text(NAMED)
    done = call(*command.split())
    assert done.exit_code == 2
    assert says in done.stderr


@pytest.mark.parametrize(("name", "shown"), [("1", "1"), ('"a,b"', "'a,b'"), ('" "', "' '"), ("true", "true")])
def test_a_name_is_a_text(call: Call, name: str, shown: str) -> None:
    with pytest.raises(BenchError, match=f"part 1: a name is a text without commas, got {shown}"):
        planned(f'[[part]]\nname = {name}\nattack = "fgsm"')
