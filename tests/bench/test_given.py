"""Given weights are run as what each cell says, and are those that were planned."""

from pathlib import Path

import torch
from measuring import tiny_request
from safetensors.torch import save_file

from bench.checkpoint import load_tensors
from bench.plan import Plan, in_turn, make_plan
from bench.scheduler import Listener, run_plan
from bench.scheduler.cluster import _files, _unpack
from bench.spec import key_of
from bench.store import Store
from bench.training import build_without_rng

CPU = torch.device("cpu")


def given(tiny_npz: Path, file: Path, **changes: object) -> Plan:
    request = tiny_request(tiny_npz, defenses=("vanilla",), attacks=("fgsm",), n=24, weights=file, recipe={}, **changes)
    return make_plan(request, file.parent, file.parent)


def weights(tiny_npz: Path, file: Path, scale: float = 3.0) -> Path:
    """Somebody else's file, which says nothing of how its network is run."""
    request = tiny_request(tiny_npz, defenses=("vanilla",), attacks=("fgsm",))
    model = build_without_rng(make_plan(request, file.parent, file.parent).jobs[0].spec)
    with torch.no_grad():
        # Untrained, all logits were the bias.
        for parameter in model.parameters():
            parameter *= scale
    file.parent.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return file


def margins(plan: Plan, folder: Path) -> dict[str, bytes]:
    store = Store(folder)
    assert not run_plan(plan.known_to(store), store, folder.parent, CPU, Listener()).failures
    found = {key_of(cell): store.outcome(key_of(cell)) for cell in plan.cells}
    return {key: outcome.margin_clean.tobytes() for key, outcome in found.items() if outcome is not None}


def test_weights_that_two_parts_run_as_two_networks_are_measured_as_each(tiny_npz: Path, tmp_path: Path) -> None:
    file = weights(tiny_npz, tmp_path / "w.safetensors")
    plans = [given(tiny_npz, file, T=2), given(tiny_npz, file, T=5, decay=0.9)]
    alone = [margins(plan, tmp_path / f"{n}.sqlite") for n, plan in enumerate(plans)]
    both = in_turn(plans)
    assert [job.spec.model.T for job in both.jobs] == [2, 5]
    assert margins(both, tmp_path / "both.sqlite") == alone[0] | alone[1]
    assert len(set((alone[0] | alone[1]).values())) == 2


def test_a_file_that_was_replaced_since_is_not_measured_as_what_it_was(tiny_npz: Path, tmp_path: Path) -> None:
    file = weights(tiny_npz, tmp_path / "w.safetensors")
    plan = given(tiny_npz, file)
    weights(tiny_npz, file, scale=2.0)
    store = Store(tmp_path / "bench.sqlite")
    [failure] = run_plan(plan, store, tmp_path, CPU, Listener()).failures
    assert "holds other weights than when it was planned" in failure
    assert not store.cells()


def test_two_files_of_one_name_are_sent_to_a_cluster_as_two(tiny_npz: Path, tmp_path: Path) -> None:
    files = [weights(tiny_npz, tmp_path / name / "w.safetensors", scale) for scale, name in enumerate("ab", 2)]
    there = tmp_path / "there"
    there.mkdir()
    for file in files:
        [job] = given(tiny_npz, file).jobs
        _unpack(_files(job, tmp_path), there)
    sent = [load_tensors(path)[0] for path in there.iterdir()]
    assert len(sent) == 2
    assert any(not torch.equal(sent[0][name], sent[1][name]) for name in sent[0])
