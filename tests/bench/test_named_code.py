"""Code that a store names runs only if the user names it too: the store may be anyone's."""

import json
from pathlib import Path

from support import Run

SOURCE = """
from pathlib import Path
from models.cnn import cnn_small

Path(__file__).with_name("ran").touch()

def build(num_classes, in_shape, T, neuron, mean, std):
    return cnn_small(num_classes, in_shape, T=T, neuron=neuron, mean=mean, std=std)
"""


def test_a_stranger_s_file_is_run_only_if_it_is_named(bench: Run, tiny_npz: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SOURCE)
    ran, model = tmp_path / "ran", f"{tmp_path / 'net.py'}:build"
    done = bench(
        "run", "--model", model, "-a", "pgd2", "--dataset", tiny_npz, "-n", "8", "--epochs", "1",
        "--train-size", "64", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    key = json.loads(done.stdout)["cells"][0]["key"]
    rebuilding = (
        ["evidence", key, "-n", "2", "--grid", "0", "--dataset", tiny_npz],
        ["show", key, "--samples", "1", "--dataset", tiny_npz],
        ["figure", "fig5", "--keys", key, "-n", "2", "--dataset", tiny_npz, "-o", "numbers.json"],
    )
    for command in rebuilding:
        for named in (False, True):
            ran.unlink(missing_ok=True)
            done = bench(*command, *(["--model", model] if named else []))
            assert ran.exists() == named, done.stderr
            assert named or f"--model {model}" in done.stderr
            if command[0] != "figure" or not named:
                assert done.returncode == (0 if named else 2), done.stderr
