"""The retraction moves singular values as the formula says; convex combinations return to the simplex."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from defenses.rat import Retraction, project_onto_simplex, rat, retract_
from models import NeuronSpec
from models.wrn import ConvexCombination, WRN16x4


@given(st.integers(1, 6), st.integers(1, 6), st.floats(1e-4, 0.2), st.integers(0, 1000))
def test_singular_values_move_as_the_formula_says(rows: int, columns: int, beta: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    retract_(weight, beta)
    assert torch.allclose(weight, u @ torch.diag(s * (1 + beta - beta * s**2)) @ v, atol=1e-12)


def test_repeated_it_leads_to_orthogonal_rows() -> None:
    torch.manual_seed(0)
    weight = 0.5 * torch.randn(4, 3, 3, 3, dtype=torch.float64)
    for _ in range(600):
        retract_(weight, 0.05)
    matrix = weight.flatten(1)
    assert torch.allclose(matrix @ matrix.T, torch.eye(4, dtype=torch.float64), atol=1e-6)


def test_only_the_chosen_rows_move() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5)
    before, rows = weight.clone(), torch.tensor([1, 4])
    alone = before[rows].clone()
    retract_(weight, 0.1, rows)
    retract_(alone, 0.1)
    kept = [0, 2, 3, 5]
    assert torch.equal(weight[kept], before[kept])
    assert torch.allclose(weight[rows], alone)


def test_wide_linear_layers_take_a_fresh_share_of_rows_each_time() -> None:
    model = nn.Sequential(nn.Linear(8, 400))
    part, moved = Retraction(0.1), []
    for key in (1, 2, 1):
        torch.manual_seed(0)
        nn.init.normal_(model[0].weight)
        before = model[0].weight.detach().clone()
        part.after_update(model, key)
        moved.append((model[0].weight != before).any(1))
    assert int(moved[0].sum()) == 120
    assert not torch.equal(moved[0], moved[1])
    assert torch.equal(moved[0], moved[2])


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5))
def test_the_simplex_projection_is_the_closest_point(values: list[float]) -> None:
    c = torch.tensor(values, dtype=torch.float64)
    p = project_onto_simplex(c)
    assert float(p.min()) >= 0
    assert float(p.sum()) == pytest.approx(1)
    # Optimality: c - p is the same on the support and no larger elsewhere.
    gap = c - p
    assert float(gap[p > 1e-12].max() - gap[p > 1e-12].min()) == pytest.approx(0, abs=1e-9)
    assert float(gap.max()) <= float(gap[p > 1e-12].max()) + 1e-9


def test_every_matrix_and_combination_of_a_network_is_treated() -> None:
    neuron = NeuronSpec()
    model = WRN16x4(10, (3, 16, 16), neuron.build, T=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    for module in model.modules():
        if isinstance(module, ConvexCombination):
            nn.init.constant_(module.coefficients, 0.9)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    Retraction(0.01).after_update(model, 0)
    for name, parameter in model.named_parameters():
        treated = parameter.dim() > 1 or name.endswith("coefficients")
        assert torch.equal(parameter, before[name]) != treated, name
        if name.endswith("coefficients"):
            assert parameter.tolist() == pytest.approx([0.5, 0.5])


def test_rat_trains_adversarially_without_weight_decay() -> None:
    parts = {part.name: part for part in rat().parts}
    assert set(parts) == {"adversarial-inputs", "retraction"}
    assert parts["retraction"].weight_decay == 0.0
