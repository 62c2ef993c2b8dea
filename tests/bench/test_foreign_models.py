"""Models named by where their builder is, from the command line and from Python."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import ROOT, Run
from test_docs import block
from torch import nn

from bench import evaluate
from bench.audit.finding import INVALID, OK
from bench.checkpoint import load_into
from bench.data import load_dataset
from bench.errors import BenchError
from bench.modelcheck.run import check_network, is_fault
from bench.modelcheck.subject import built, model_spec
from bench.plan import Request, make_plan
from bench.registry import MODELS

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

GUIDE = (ROOT / "docs" / "models.md").read_text()


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's networks, in the current folder."""
    path = tmp_path / "nets.py"
    path.write_text(block(GUIDE, "file: nets.py"))
    monkeypatch.chdir(tmp_path)
    return path


def plan(tmp_path: Path, npz: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"dataset": str(npz), "attacks": ("pgd2",), "n": 8, **options}
    return make_plan(Request(**given), tmp_path / "checkpoints", tmp_path)


def test_the_guide_s_commands_run_as_shown(bench: Run, tiny_npz: Path, tmp_path: Path, nets: Path) -> None:
    small = ["--dataset", tiny_npz, "-n", "8", "--json"]
    check, train, weights = (
        shlex.split(block(GUIDE, f"command: {name}"))[1:] for name in ("check", "train", "weights")
    )
    done = bench(*check, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["faults"] == []
    trained = bench(*train, *small, "--epochs", "1", "--train-size", "96")
    assert trained.returncode == 0, trained.stderr
    cells = json.loads(trained.stdout)["cells"]
    assert {cell["attack"] for cell in cells} == {"pgd10", "pgd10@rga", "sweep10"}
    assert len(cells) == 6

    torch.manual_seed(0)
    save_file(MODELS.get("nets.py:Leaky")(2, (1, 8, 8)).state_dict(), tmp_path / "leaky.safetensors")
    given = bench(*weights, *small)
    assert given.returncode == 0, given.stderr
    cells = json.loads(given.stdout)["cells"]
    assert {cell["attack"] for cell in cells} == {
        "pgd10", "sweep10:without=bptr+rga", "snn-standard:without=assg",
    }  # fmt: skip
    shown = bench("show", cells[0]["key"])
    assert "neurons of its own" in shown.stdout
    assert "T 10" in shown.stdout
    named = ["--model", cells[0]["model"]]
    evidence = bench("evidence", cells[0]["key"], "-n", "4", "--dataset", tiny_npz, *named)
    assert evidence.returncode == 0, evidence.stderr
    assert "lif2.spikes" in evidence.stdout
    assert "gradient own" in evidence.stdout


def test_the_key_holds_the_sources_and_the_library_s_release(nets: Path, tmp_path: Path) -> None:
    entry = MODELS.entry("nets.py:jelly")
    before = entry.fingerprint()
    assert "spikingjelly 2" in before
    assert "snntorch 1" in before
    assert MODELS.entry("nets:jelly").fingerprint() == before
    (tmp_path / "part.py").write_text("A = 1\n")
    nets.write_text("from part import A\n" + nets.read_text())
    second = entry.fingerprint()
    (tmp_path / "part.py").write_text("A = 2\n")
    assert len({before, second, entry.fingerprint()}) == 3
    (tmp_path / "plain.py").write_text("def build(): ...\n")
    source = (tmp_path / "plain.py").read_bytes()
    named = hashlib.sha256(f"plain.py\0{len(source)}\0".encode() + source).hexdigest()[:16]
    assert MODELS.entry("plain.py:build").fingerprint() == named


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "nets.py:nothing"}, "has no function 'nothing'; it has Normalised, jelly, Leaky"),
        ({"model": "nothing.py:build"}, "there is no file 'nothing.py'"),
        ({"model": "nothing:build"}, "there is no module 'nothing'"),
        ({"model": "json:loads"}, "is a module of Python itself"),
        ({"model": "nets.py:Normalised"}, "its builder needs 'net', which is not among"),
        ({"model": "nets.py:jelly", "defenses": ("tgo",)}, "model 'nets.py:jelly' brings"),
        ({"model": "nets.py:jelly", "defenses": ("mc",)}, "trains on membrane potentials"),
        ({"model": "nets.py:jelly", "defenses": ("nlif",)}, "decides the neurons"),
        ({"model": "nets.py:jelly", "decay": 0.25}, "--decay has no effect"),
        ({"model": "nets.py:Leaky", "T": 4}, "loops over 10 time steps itself"),
        ({"model": "nets.py:Leaky", "attacks": ("pgd2@rga",)}, "needs whole spike trains"),
        ({"model": "nets.py:Leaky", "attack_surrogate": "assg"}, "needs whole spike trains"),
        ({"model": "nets.py:jelly", "attacks": ("sweep2:without=arctan+nonsense",)}, "no member is differentiated"),
    ],
)
def test_mistakes_are_one_clear_line(
    options: dict[str, Any], says: str, nets: Path, tmp_path: Path, tiny_npz: Path
) -> None:
    with pytest.raises(BenchError) as error:
        plan(tmp_path, tiny_npz, **options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "import sys\nsys.exit()\n",
            "SystemExit: (own.py:2); what is for the file as a program belongs under: if __na",
        ),
        ("def build():\n    raise SystemExit(3)\n", "SystemExit: 3 (own.py:2)"),
        (
            "from .part import build\n",
            "a file of a package goes by its module's name, from the folder above: pack.own:build",
        ),
        ("from torch import nn\nbuild = nn.Linear(1, 1)\n", "is a network, not a function that builds one"),
    ],
)
def test_a_file_that_is_no_builder_says_what_to_do(source: str, says: str, tmp_path: Path, tiny_npz: Path) -> None:
    path = tmp_path / "pack" / "own.py"
    path.parent.mkdir()
    path.write_text(source)
    with pytest.raises(BenchError) as error:
        plan(tmp_path, tiny_npz, model=f"{path}:build")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_with_the_name_of_a_loaded_module_is_refused_and_not_confused(tmp_path: Path, tiny_npz: Path) -> None:
    net = "from torch import nn\n{}\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH))\n"
    for folder in ("a", "b", "c"):
        (tmp_path / folder / "models").mkdir(parents=True)
        (tmp_path / folder / "models" / "vgg.py").write_text("WIDTH = 2\n")
        (tmp_path / folder / "width_of_it.py").write_text("WIDTH = 2\n")
        (tmp_path / folder / "net.py").write_text(net.format("from width_of_it import WIDTH"))
    assert plan(tmp_path, tiny_npz, model=f"{tmp_path / 'a' / 'net.py'}:build").cells
    with pytest.raises(BenchError, match=r"module 'width_of_it' is '.*a/width_of_it.py' here.*rename yours"):
        plan(tmp_path, tiny_npz, model=f"{tmp_path / 'b' / 'net.py'}:build")
    (tmp_path / "c" / "net.py").write_text(net.format("from models.vgg import WIDTH"))
    with pytest.raises(BenchError, match=r"the module 'models' is '.*models/__init__.py' here.*rename yours"):
        plan(tmp_path, tiny_npz, model=f"{tmp_path / 'c' / 'net.py'}:build")


def test_what_a_builder_imports_only_when_it_is_called_is_found(tmp_path: Path, tiny_npz: Path) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "imported_late.py").write_text("WIDTH = 2\n")
    (tmp_path / "late" / "net.py").write_text(
        "def build():\n    from imported_late import WIDTH\n    from torch import nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH))\n"
    )
    assert plan(tmp_path, tiny_npz, model=f"{tmp_path / 'late' / 'net.py'}:build").cells


def test_a_file_alone_asks_for_its_function(tmp_path: Path, tiny_npz: Path) -> None:
    with pytest.raises(BenchError, match=r"say which function in it builds the network, own.py:build"):
        plan(tmp_path, tiny_npz, model="own.py")


def test_what_a_user_s_code_prints_is_not_the_answer(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "from torch import nn\nprint('imported')\n"
        "class Loud(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        print('built')\n"
        "        self.f = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
        "    def forward(self, x):\n        print('called')\n        return self.f(x)\n"
    )
    small = ["--dataset", tiny_npz, "-n", "8", "--json"]
    for command in (["check-model"], ["plan", "-a", "pgd2", "--epochs", "1", "--model"]):
        done = bench(*command, f"{tmp_path / 'loud.py'}:Loud", *small)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
        assert {"imported", "built", "called"} <= set(done.stderr.split())


def test_what_is_proposed_next_can_be_run(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    small = ["--model", f"{tmp_path / 'plain.py'}:build", "--dataset", tiny_npz, "-n", "8", "--epochs", "1"]
    done = bench("run", *small, "-a", "clean")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith("bench run")]
    again = bench("plan", *shlex.split(line)[2:])
    assert again.returncode == 0, again.stderr


def test_a_builder_that_takes_neurons_takes_every_defense(tmp_path: Path, tiny_npz: Path) -> None:
    path = tmp_path / "ours.py"
    path.write_text(
        "from models.cnn import cnn_small\n"
        "def build(num_classes, in_shape, T, neuron, mean, std):\n"
        "    return cnn_small(num_classes, in_shape, T=T, neuron=neuron, mean=mean, std=std)\n"
    )
    found = plan(tmp_path, tiny_npz, model=f"{path}:build", defenses=("tgo",), attacks=("pgd2@rga",))
    assert found.cells[0].model.neuron.kind == "nlif"
    assert not found.cells[0].model.own_neurons


def test_trained_weights_need_the_number_of_steps(nets: Path, tmp_path: Path, tiny_npz: Path) -> None:
    spec = plan(tmp_path, tiny_npz, model="nets.py:jelly").cells[0].model
    model = built(spec, None, torch.device("cpu"), steps_given=False)[0]
    assert model is not None
    save_file({k.removeprefix("net."): v for k, v in model.state_dict().items()}, tmp_path / "raw.safetensors")
    given = {"model": "nets.py:jelly", "weights": tmp_path / "raw.safetensors", "defenses": ("vanilla",)}
    with pytest.raises(BenchError, match="give -T"):
        plan(tmp_path, tiny_npz, **given)
    assert plan(tmp_path, tiny_npz, **given, T=6).cells[0].model.T == 6


def test_weights_are_found_whoever_wrapped_them(nets: Path, tmp_path: Path, tiny_npz: Path) -> None:
    spec = plan(tmp_path, tiny_npz, model="nets.py:Leaky").cells[0].model
    model = built(spec, None, torch.device("cpu"), steps_given=False)[0]
    assert model is not None
    wanted = {name: torch.rand_like(v) if v.is_floating_point() else v for name, v in model.state_dict().items()}
    raw = {name.removeprefix("net."): value for name, value in wanted.items()}
    wrapped = [{f"{words}{name}": value for name, value in raw.items()} for words in ("module.", "model.net.", "_a.b.")]
    for tensors in (wanted, raw, *wrapped):
        save_file(tensors, tmp_path / "w.safetensors")
        load_into(model, load_file(tmp_path / "w.safetensors"), tmp_path / "w.safetensors")
        assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    with pytest.raises(BenchError, match=r"it lacks net.last.bias; it has an extra net.first.bias"):
        load_into(model, {"first.bias" if n == "last.bias" else n: v for n, v in raw.items()}, tmp_path)


def test_a_network_saved_before_it_was_wrapped_fits_its_wrapper(nets: Path, tmp_path: Path, tiny_npz: Path) -> None:
    spec = plan(tmp_path, tiny_npz, model="nets.py:jelly").cells[0].model
    model = built(spec, None, torch.device("cpu"), steps_given=False)[0]
    assert model is not None
    inner = {name.removeprefix("net.net."): torch.ones_like(value) for name, value in model.state_dict().items()}
    assert "0.weight" in inner
    load_into(model, inner, tmp_path)
    assert all(bool((value == 1).all()) for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda held: {**held, "more": held["1.bias"].clone()}, "it has an extra more"),
        (lambda held: {"1.weight": held["1.weight"]}, "it lacks 1.bias"),
        (
            lambda held: {"1.weight": held["1.weight"][:1], "2.b": held["1.bias"]},
            r"1.bias; .* 2.b; 1.weight is \[1, 64\]",
        ),
        (lambda held: {name: value.half() for name, value in held.items()}, "torch.float16, not torch.float32"),
        (lambda held: {name: value / 0 for name, value in held.items()}, "NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_a_run(
    change: Any, says: str, tmp_path: Path, tiny_npz: Path
) -> None:
    path, weights = tmp_path / "plain.py", tmp_path / "w.safetensors"
    path.write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n")
    held = {"1.weight": torch.rand(2, 64), "1.bias": torch.rand(2)}
    given = {"model": f"{path}:build", "weights": weights, "defenses": ("vanilla",)}
    save_file(held, weights)
    assert plan(tmp_path, tiny_npz, **given).cells
    save_file({name: value.contiguous() for name, value in change(held).items()}, weights)
    with pytest.raises(BenchError, match=says):
        plan(tmp_path, tiny_npz, **given)


def test_from_python_a_network_is_measured_and_given_back(nets: Path, tiny_npz: Path) -> None:
    jelly, leaky = (MODELS.get(f"nets.py:{name}") for name in ("jelly", "Leaky"))
    with np.load(tiny_npz) as arrays:
        data = arrays["x_test"][:16], arrays["y_test"][:16]
    torch.manual_seed(0)
    net = leaky(2, (1, 8, 8)).train()
    before, weights = str(net), {name: value.clone() for name, value in net.state_dict().items()}
    found = evaluate(net, data, ["pgd2", "sweep2"], eps=0.1)
    assert found.outcome("sweep2").robust_last.shape == (16,)
    assert str(net) == before
    assert net.training
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    with pytest.raises(BenchError, match="needs whole spike trains"):
        evaluate(net, data, ["pgd2@rga"])
    net = jelly(2, (1, 8, 8), (0.3,), (0.3,))
    with pytest.raises(BenchError, match="give T"):
        evaluate(net, data, ["pgd2"])
    assert evaluate(net, data, ["pgd2@rga"], T=3, eps=0.1).rows
    with pytest.raises(BenchError, match="T is for networks of SpikingJelly"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), data, ["pgd2"], T=3)


FAULTS = {
    "Sound": ("return self.f(x)", ""),
    "Leaks": ("out = self.f(x) + self.last; self.last = out.detach().mean(); return out", "state"),
    "Neighbours": ("return self.f(x - x.mean(0))", "state"),
    "Softmax": ("return self.f(x).softmax(1)", "probabilities"),
    "LogSoftmax": ("return self.f(x).log_softmax(1)", "log-probabilities"),
    "Narrow": ("return self.f(x)[:, :1]", "shape"),
    "NotANumber": ("return self.f(x) * float('nan')", "shape"),
    "Crashes": ("raise RuntimeError('one\\ntwo')", "shape"),
    "Detached": ("return self.f(x.detach())", "zero gradient"),
    "Rounded": ("return self.f((x * 8).round())", "blind gradient"),
    "Noisy": ("return self.f(x) + torch.randn(len(x), 2)", "undeclared noise"),
    "Trains": ("self.train(); return self.f(x)", "eval mode"),
    "Grows": ("self.f[1].weight.data.mul_(1.01); return self.f(x)", "weights"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_check_model_finds_each_fault(name: str, tmp_path: Path, tiny_npz: Path) -> None:
    body, fault = FAULTS[name]
    path = tmp_path / "bad.py"
    path.write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n    last = 0.0\n    def __init__(self):\n        super().__init__()\n"
        "        self.f = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
        f"    def forward(self, x):\n        {body}\n"
    )
    data = load_dataset(str(tiny_npz), tmp_path)
    spec = model_spec(f"{path}:Net", data, None)
    torch.manual_seed(0)
    model, found = built(spec, None, torch.device("cpu"), steps_given=False)
    assert model is not None
    found += check_network(model, data, spec, 32, data.protocol.eps, torch.device("cpu"), False)
    faults = {finding.check for finding in found if is_fault(finding)}
    assert (fault in faults) if fault else not faults
    assert not any("\n" in finding.says for finding in found)


@pytest.mark.parametrize(("scale", "verdict"), [("x", OK), ("x / 255", INVALID)])
def test_check_model_guesses_what_a_network_was_trained_on(
    scale: str, verdict: str, tmp_path: Path, tiny_npz: Path
) -> None:
    path = tmp_path / "scaled.py"
    path.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.f = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
        f"    def forward(self, x):\n        return self.f({scale})\n"
    )
    data = load_dataset(str(tiny_npz), tmp_path)
    weight = torch.zeros(2, 64)
    weight[0, :16], weight[1, 18:46] = 1.0, 0.5
    # Beside the bias, pixels that are 255 times too small are nothing.
    save_file({"f.1.weight": weight, "f.1.bias": torch.tensor([0.0, 3.0])}, tmp_path / "w.safetensors")
    spec = model_spec(f"{path}:Net", data, None)
    model, found = built(spec, tmp_path / "w.safetensors", torch.device("cpu"), steps_given=False)
    assert model is not None
    found += check_network(model, data, spec, 64, data.protocol.eps, torch.device("cpu"), True)
    assert next(finding for finding in found if finding.check == "normalisation").verdict == verdict
