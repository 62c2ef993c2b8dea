"""Figures: the numbers behind them are those of the networks, and the files are what they say."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support import Run

from bench.errors import BenchError
from bench.evidence.heatmap import heatmaps
from bench.evidence.histogram import HIGH, LOW, membrane_histograms
from bench.evidence.landscape import Plane
from bench.evidence.membrane import layer_membranes
from bench.evidence.neurons import neuron_traces
from bench.evidence.probe import Probe
from bench.figures import flips, surface
from bench.figures import membrane as potentials
from bench.figures.curves import draw_curves, eps_curves, lambda_curves, lambdas, of_defenses, said, success_curves
from bench.figures.style import FORMATS, new_figure, rendered, spread_out, sum_of_numbers, write_figure
from bench.frames import cells_frame
from bench.registry import MODELS
from bench.store import Store
from models.neurons import NeuronSpec


def network(kind: str = "lif", dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    params = (("noise_var", 0.4),) if kind == "nlif" else ()
    builder = MODELS.get("cnn-small")
    neuron = NeuronSpec(kind, params=params)
    model = builder(num_classes=3, in_shape=(1, 8, 8), T=4, neuron=neuron.build, mean=(0.0,), std=(1.0,))
    return model.to(dtype).eval()  # type: ignore[no-any-return]


def probe(n: int, draws: int = 1) -> Probe:
    return Probe(torch.arange(n), None, 7, draws, 4)


X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(("kind", "draws"), [("lif", 1), ("nlif", 2)])
def test_histograms_count_every_potential_once(kind: str, draws: int) -> None:
    model = network(kind)
    histograms = membrane_histograms(model, X, probe(6, draws), 0.3)
    membranes = layer_membranes(model, X, probe(6, draws), 0.3)
    *layers, whole = histograms
    assert [h.layer for h in layers] == [m.name for m in membranes]
    for histogram, membrane in zip(layers, membranes, strict=True):
        assert histogram.total == sum(histogram.counts) == membrane.neurons * 6 * 4 * draws
        assert histogram.near == pytest.approx(np.mean(membrane.near))
    assert whole.total == sum(h.total for h in layers)
    assert np.sum([h.counts for h in layers], axis=0).tolist() == list(whole.counts)
    assert (whole.edges[0], whole.edges[-1]) == (LOW, HIGH)


def test_heat_maps_are_the_gradient_of_the_class_s_logit() -> None:
    model = network(dtype=torch.float64)
    x = X.double()
    maps = heatmaps(model, x, Y, probe(6))
    for i, heat in enumerate(maps):
        point = x[i : i + 1].clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(point)[0, Y[i]], point)
        assert np.asarray(heat.values) == pytest.approx(grad.abs().sum(1)[0].numpy())
        assert heat.zero_share == pytest.approx(float((grad == 0).double().mean()))
        assert heat.label == int(Y[i])


def test_traces_show_neurons_by_rank_and_count_all_flips() -> None:
    model = network("nlif")
    still = neuron_traces(model, X, X, probe(6), 5)
    assert all(layer.flipped == 0 and not any(n.flips for n in layer.shown) for layer in still)
    assert all(n.clean == n.attacked for layer in still for n in layer.shown)
    moved = neuron_traces(model, X, (X + 0.3).clamp(0, 1), probe(6), 10_000)
    for layer, same in zip(moved, still, strict=True):
        assert len(layer.shown) == layer.neurons
        assert sum(n.flips for n in layer.shown) == layer.flipped
        distances = [n.distance for n in layer.shown]
        assert distances == sorted(distances)
        assert [n.neuron for n in same.shown] == [
            layer.shown[round(i)].neuron for i in np.linspace(0, layer.neurons - 1, 5).astype(int)
        ]
        for neuron in layer.shown:
            assert neuron.flips == (neuron.clean_spikes != neuron.attacked_spikes)
            assert neuron.distance == pytest.approx(min(abs(v - layer.v_threshold) for v in neuron.clean))
    assert sum(layer.flipped for layer in moved) > 0


def cells(*lines: tuple[str, float, float, int], **common: object) -> pd.DataFrame:
    """(defense, eps, robust accuracy, seed) under pgd10."""
    rows = []
    for defense, eps, robust, seed in lines:
        row: dict[str, object] = dict.fromkeys(cells_frame(None).columns)
        row |= {
            "key": f"{defense}{eps}{seed}", "dataset": "d", "model": "m", "T": 4, "decay": 0.5, "defense": defense,
            "seed": seed, "epochs": 5, "attack": "pgd10", "norm": "linf", "eps": eps, "eps_text": str(eps), "n": 100,
            "draws": 1, "attack_seed": 0, "weights": f"{defense}{seed}", "verdict": "ok", "clean": 0.9,
            "clean_low": 0.85, "clean_high": 0.93, "robust": robust, "robust_low": robust - 0.05,
            "robust_high": robust + 0.05, "updated": pd.Timestamp("2026-01-01"),
        }  # fmt: skip
        rows.append(row | common)
    return pd.DataFrame(rows)


def test_an_eps_curve_begins_at_clean_accuracy_and_holds_the_stored_rates() -> None:
    curves = eps_curves(cells(("at", 0.2, 0.3, 0), ("at", 0.1, 0.6, 0), ("vanilla", 0.1, 0.4, 0)), "pgd10")
    at = curves.points[curves.points["curve"] == "at"]
    assert at["x"].tolist() == [0.0, 0.1, 0.2]
    assert at["value"].tolist() == [0.9, 0.6, 0.3]
    assert at["low"].tolist() == pytest.approx([0.85, 0.55, 0.25])
    assert not curves.notes


def test_seeds_make_one_point_with_student_s_interval() -> None:
    points = eps_curves(cells(*(("at", 0.1, v, s) for s, v in enumerate((0.1, 0.2, 0.3)))), "pgd10").points
    assert points.iloc[1]["value"] == pytest.approx(0.2)
    assert points.iloc[1]["high"] - 0.2 == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert points.iloc[1]["seeds"] == 3


def succeeding(attack: str, *rates: float, defense: str = "at") -> pd.DataFrame:
    """Attack success at eps 0.1, 0.2, ..."""
    found = []
    for number, rate in enumerate(rates, 1):
        success = {"attack_success": rate, "attack_success_low": rate - 0.05, "attack_success_high": rate + 0.05}
        found.append(cells((defense, number / 10, 0.5, 0), attack=attack, norm="events", **success))
    return pd.concat(found)


def test_success_begins_at_nothing_and_each_attack_has_a_curve() -> None:
    both = pd.concat([succeeding("greedy10", 0.2, 0.6), succeeding("sda10", 0.1, 0.3)])
    curves = success_curves(both, ["greedy10", "sda10"])
    greedy = curves.points[curves.points["curve"] == "greedy10"].sort_values("x")
    assert greedy["value"].tolist() == [0.0, 0.2, 0.6]
    assert greedy["high"].tolist() == pytest.approx([0.0, 0.25, 0.65])
    assert set(curves.points["curve"]) == {"greedy10", "sda10"}
    assert (curves.axis, curves.measure) == ("eps (edits for each event)", "attack success")
    assert "at under greedy10, sda10" in curves.about
    assert not curves.notes
    defended = pd.concat([both, succeeding("sda10", 0.1, defense="tgo")])
    assert set(success_curves(defended, ["sda10"]).points["curve"]) == {"at", "tgo"}
    several = success_curves(defended, ["greedy10", "sda10"]).points["curve"]
    assert set(several) == {"at, greedy10", "at, sda10", "tgo, sda10"}


def test_success_that_falls_with_the_budget_is_called_what_it_is() -> None:
    curves = success_curves(succeeding("yao20", 0.5, 0.2), ["yao20"])
    assert curves.notes == ("yao20 falls from eps 0.1 to 0.2: more budget leads it astray.",)


def test_success_of_nothing_is_no_curve() -> None:
    with pytest.raises(BenchError, match="no finished cell under sda10"):
        success_curves(succeeding("greedy10", 0.5), ["sda10"])
    unknown = succeeding("greedy10", 0.5).assign(attack_success=None)
    with pytest.raises(BenchError, match="no finished cell under greedy10"):
        success_curves(unknown, ["greedy10"])


def test_a_curve_that_rises_with_the_budget_is_called_what_it_is() -> None:
    curves = eps_curves(cells(("tgo", 0.1, 0.2, 0), ("tgo", 0.2, 0.5, 0)), "pgd10")
    assert curves.notes == ("tgo rises from eps 0.1 to 0.2: a sign of a blinded attack.",)


def test_cells_of_different_kinds_never_share_a_curve() -> None:
    mixed = pd.concat([cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.5, 0)), cells(("at", 0.3, 0.1, 0), n=7)])
    assert eps_curves(mixed, "pgd10").points["x"].tolist() == [0.0, 0.1, 0.2]
    with pytest.raises(BenchError, match="stored are d / m / linf, e / m / linf"):
        eps_curves(pd.concat([mixed, cells(("at", 0.1, 0.6, 0), dataset="e")]), "pgd10")
    with pytest.raises(BenchError, match="no finished cell under pgd7"):
        eps_curves(mixed, "pgd7")


def test_lam_max_is_read_from_what_was_trained() -> None:
    part = {"part": "membrane-constraint", "lam_max": 0.4}
    trained = {"a": {"spec": {"defense": [part]}}, "b": {"spec": {"defense": [{"part": "retraction"}]}}, "c": {}}
    assert lambdas(trained) == {"a": 0.4}
    names = ("tgo:lam_max=0.2+at", "tgo+at")
    frame = cells((names[0], 0.1, 0.3, 0), (names[1], 0.1, 0.5, 0), ("at", 0.1, 0.9, 0))
    points = lambda_curves(frame, {f"{names[0]}0": 0.2, f"{names[1]}0": 0.4}, ["pgd10"]).points
    assert set(points["curve"]) == {"tgo+at, clean", "tgo+at, pgd10"}
    robust = points[points["curve"] == "tgo+at, pgd10"]
    assert robust["x"].tolist() == [0.2, 0.4]
    assert robust["value"].tolist() == [0.3, 0.5]


def lambda_frame(*lines: tuple[str, float, float]) -> tuple[pd.DataFrame, dict[str, float]]:
    """(defense, eps, robust accuracy); lam_max as in the names, 0.4 where they have none."""
    frame = cells(*((name, eps, robust, 0) for name, eps, robust in lines))
    named = {name: float(name.split("=")[1].split("+")[0]) if "=" in name else 0.4 for name, *_ in lines}
    return frame, {f"{name}0": lam for name, lam in named.items() if "tgo" in name}


def test_lambda_curves_stand_beside_what_has_no_lam_max() -> None:
    frame, known = lambda_frame(("sr+at", 0.1, 0.2), ("tgo:lam_max=0.2+at", 0.1, 0.3), ("tgo+at", 0.1, 0.5))
    curves = lambda_curves(frame, known, ["pgd10"], beside=["tgo+at", "sr+at"])
    assert list(dict.fromkeys(curves.points["curve"])) == [
        "tgo+at, clean",
        "tgo+at, pgd10",
        "sr+at, clean",
        "sr+at, pgd10",
    ]
    level = curves.points[curves.points["curve"] == "sr+at, pgd10"]
    assert level["x"].isna().all()
    assert level["value"].tolist() == [0.2]
    assert draw_curves(curves)
    assert "sr+at, clean" not in set(lambda_curves(frame, known, ["pgd10"]).points["curve"])


def test_lambda_curves_are_of_the_budget_and_the_defenses_with_several_values() -> None:
    frame, known = lambda_frame(
        ("tgo:lam_max=0.2+at", 0.1, 0.3), ("tgo+at", 0.1, 0.5), ("tgo+at", 0.2, 0.9), ("tgo+rat", 0.1, 0.7)
    )
    points = lambda_curves(frame, known, ["pgd10"]).points
    assert set(points["curve"]) == {"tgo+at, clean", "tgo+at, pgd10"}
    assert points["value"].tolist() == [0.9, 0.9, 0.3, 0.5]
    alone, known = lambda_frame(("tgo+at", 0.1, 0.5))
    assert "there is no curve yet" in " ".join(lambda_curves(alone, known, ["pgd10"]).notes)
    both, known = lambda_frame(("tgo+at", 0.1, 0.5), ("tgo+at", 0.2, 0.5))
    with pytest.raises(BenchError, match=r"stored are 0.1, 0.2: choose with --eps"):
        lambda_curves(both, known, ["pgd10"])
    with pytest.raises(BenchError, match="no finished cell has the defense 'sr'"):
        of_defenses(both, ["sr"])
    assert len(of_defenses(frame, ["tgo+at"])) == 3


def test_what_a_caption_says_is_of_the_cells_that_are_drawn() -> None:
    frame = pd.concat([
        cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.5, 0), epochs=5, lr=0.1),
        cells(("at", 0.3, 0.4, 0), epochs=7, lr=0.1),
        cells(("at", 0.4, 0.4, 0), epochs=5, lr=0.5),
    ])  # fmt: skip
    curves = eps_curves(frame, "pgd10")
    assert curves.points["x"].tolist() == [0.0, 0.1, 0.2]
    assert "epochs 5," in curves.about
    for part in ("dataset d (paper: CIFAR-100)", "epochs 5 (paper: 300)", "test images 100 (paper: 10,000)"):
        assert part in curves.about
    assert "learning rate" not in curves.about
    own = cells(
        *(("at", eps / 255, 0.5, seed) for eps in (2, 4) for seed in (0, 1, 2)), dataset="cifar100", model="wrn16-4",
        epochs=300, n=10_000, lr=0.1,
    )  # fmt: skip
    own["eps_text"] = [f"{round(255 * eps)}/255" for eps in own["eps"]]
    assert "NOT" not in eps_curves(own, "pgd10").about


def test_deep_networks_fit_a_page_and_say_what_is_left_out() -> None:
    layers = neuron_traces(network(), X, (X + 0.3).clamp(0, 1), probe(6), 3)
    deep = dict.fromkeys(("vanilla", "tgo"), layers * 5)
    drawn = flips.draw(deep, "about")
    assert len(drawn.axes) == 8
    assert max(drawn.get_size_inches()) < 10
    assert "4 of 15 layers are drawn, all are counted" in flips.sentence(deep)
    assert f"vanilla {5 * sum(layer.flipped for layer in layers)} of" in flips.sentence(deep)
    turned = [line for line in drawn.axes[0].lines if line.get_marker() == "o"]
    shown = [zip(n.clean_spikes, n.attacked_spikes, strict=True) for n in layers[0].shown]
    assert sum(len(line.get_xdata()) for line in turned) == sum(a != b for pairs in shown for a, b in pairs)  # type: ignore[arg-type]
    *each, whole = membrane_histograms(network(), X, probe(6))
    drawn = potentials.draw({"vanilla": (*each * 5, whole)}, "about", 6)
    assert sum(axes.get_visible() for axes in drawn.axes) == 9
    assert max(drawn.get_size_inches()) < 10
    assert [spread_out(15, 4), spread_out(3, 4)] == [[0, 5, 9, 14], [0, 1, 2]]


def test_a_loss_that_is_the_same_everywhere_is_drawn() -> None:
    flat = Plane("weights", 0.1, (-2.0, 0.0, 2.0), ((0.0, 0.0, 0.0),) * 3)
    assert rendered(surface.draw({"dead": (flat, flat)}, "about", 4), "png")


def test_many_curves_differ_to_the_eye_and_labels_do_not_overlap() -> None:
    lines = [(f"d{i:02}", eps, 0.5, 0) for i in range(17) for eps in (0.01, 0.012, 0.1)]
    axes = draw_curves(eps_curves(cells(*lines, verdict="suspect"), "pgd10")).axes[0]
    curves = [bars.lines[0] for bars in axes.containers]
    assert len({(line.get_color(), line.get_marker(), line._linestyle) for line in curves}) == 17  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.01", "", "0.1"]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "#ffffff"]
    # Clean accuracy has no attack that could be blinded.
    assert [len(line.get_xdata()) for line in hollow] == [3] * 17  # type: ignore[arg-type]


def test_a_curve_is_of_the_seeds_that_every_point_has() -> None:
    """Seed 1 was measured at one budget only, where it is much better."""
    frame = cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.5, 0), ("at", 0.2, 0.9, 1))
    points = eps_curves(frame, "pgd10").points
    assert points["value"].tolist()[1:] == pytest.approx([0.6, 0.5])
    apart = cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.9, 1))
    assert eps_curves(apart, "pgd10").points["value"].tolist()[1:] == pytest.approx([0.6, 0.9])


def test_the_same_figure_is_the_same_bytes_in_every_format(tmp_path: Path) -> None:
    frame = cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.5, 0))
    for form in FORMATS:
        one, two = (rendered(draw_curves(eps_curves(frame, "pgd10")), form) for _ in range(2))
        assert one == two
        assert one.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[form])
    assert [path.name for path in write_figure(new_figure(1, 1), tmp_path / "a")] == ["a.png", "a.pdf", "a.svg"]
    with pytest.raises(BenchError, match=r"must end in .png, .pdf, .svg"):
        write_figure(new_figure(1, 1), tmp_path / "a.jpg")


@pytest.mark.parametrize("form", FORMATS)
def test_a_figure_names_the_sum_of_its_numbers(form: str) -> None:
    curves = eps_curves(cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.5, 0)), "pgd10")
    other = eps_curves(cells(("at", 0.1, 0.6, 0), ("at", 0.2, 0.51, 0)), "pgd10")
    sums = [sum_of_numbers(rendered(draw_curves(c), form, said(c))) for c in (curves, other)]
    assert sums == [hashlib.sha256(said(c).encode()).hexdigest() for c in (curves, other)]
    assert sums[0] != sums[1]
    assert sum_of_numbers(rendered(draw_curves(curves), form)) is None


def test_from_the_command_line(bench: Run, results: Path, tiny_npz: Path, tmp_path: Path) -> None:
    store = Store(results / "bench.sqlite")
    keys = [
        next(r.key[:12] for r in store.cells(attack="fgsm", seed=0, eps="1/10") if r.defense == name)
        for name in ("vanilla", "nlif")
    ]
    assert bench("curve", "eps", "-a", "fgsm", "-o", "c.csv").returncode == 0
    points = pd.read_csv(tmp_path / "c.csv")
    assert set(points["curve"]) == {"vanilla", "at", "nlif"}
    assert len(points) == 9
    drawn = bench("figure", "fig1", "--keys", ",".join(keys), "-n", "4", "-o", "f.svg", "--dataset", tiny_npz)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")
    for arguments, complaint in (
        (["curve", "sigma"], "draws over eps or lambda, not over 'sigma'"),
        (["curve", "lambda"], "no stored network was trained with a membrane constraint"),
        (["figure", "fig9"], "unknown figure 'fig9'; choose from"),
        (["figure", "fig4", "-o", "f.tiff"], "'f.tiff' must end in .png, .pdf, .svg"),
        (["figure", "fig5", "-n", "500"], "fig5 has room for 16 images, got -n 500"),
        (["figure", "fig3", "--seed", "1"], "it takes no --keys, --seed or -n"),
        (["figure", "fig4"], "no vanilla and tgo network, trained alike and under one attack, is stored"),
    ):
        wrong = bench(*arguments)
        assert wrong.returncode == 2
        assert complaint in wrong.stderr
        assert wrong.stderr.count("\n") == 1


def test_every_figure_of_a_small_network_on_digits(bench: Run, tmp_path: Path) -> None:
    run = ["run", "-d", "vanilla,tgo", "-a", "rfgsm", "--epochs", "1", "--train-size", "200", "-n", "32"]
    assert bench(*run).returncode == 0
    # Trained in another way, and newer: no pair with the tgo network above.
    assert bench("run", "-d", "vanilla", "-a", "rfgsm", "--epochs", "2", *run[7:]).returncode == 0
    for name in ("fig1", "fig5"):
        assert bench("figure", name, "-n", "3", "-o", f"{name}.json").returncode == 0
        data = json.loads((tmp_path / f"{name}.json").read_text())
        assert list(data["networks"]) == ["vanilla", "tgo"]
        assert "NOT the paper's conditions" in data["about"]
    done = bench("figure", "fig4", "-n", "4", "--grid", "3", "-o", "fig4.png")
    assert done.returncode == 0, done.stderr
    assert "Within 0.5 of the threshold" in done.stdout + done.stderr
    about = json.loads((tmp_path / "fig1.json").read_text())["about"]
    assert "under rfgsm, linf eps 0.1" in about
    assert "epochs 1 (paper: 300); training images 200 (paper: all)" in about
    done = bench("figure", "fig3")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no finished cell has the defense 'tgo+at'" in done.stderr
    assert "bench run --preset fig3" in done.stderr
    for part in ("membrane", "landscape"):
        assert (tmp_path / f"fig4-{part}.png").read_bytes().startswith(b"\x89PNG")
