"""New networks and a new baseline for the gate: `python results/gate/renew.py FOLDER`, FOLDER being a results folder.

Of each network below it takes the checkpoint of seed 0; where there are several, name one: `at=0123abcd` (how the
file's name begins). Without FOLDER the networks stay, and the baseline alone is made anew.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.checkpoint import load_tensors
from bench.errors import BenchError

HERE = Path(__file__).resolve().parent
NETWORKS = ("vanilla", "at", "trades", "tgo+at", "stog+at", "poisson+at", "hosnn+at")


def named(defense: str) -> str:
    """A defense without the values of its parameters."""
    return "+".join(part.partition(":")[0] for part in defense.split("+"))


def checkpoints(folder: Path) -> dict[str, list[Path]]:
    """The checkpoints in a results folder that could be the gate's, by network."""
    found: dict[str, list[Path]] = {name: [] for name in NETWORKS}
    for path in sorted(folder.glob("checkpoints/*.safetensors")):
        metadata = load_tensors(path)[1]
        spec = metadata.get("spec") or {}
        model = spec.get("model") or {}
        fits = (model.get("name"), model.get("in_shape"), spec.get("seed")) == ("cnn-small", [1, 8, 8], 0)
        if fits and (name := named(str(metadata.get("defense")))) in found:
            found[name].append(path)
    return found


def chosen(folder: Path, wishes: dict[str, str]) -> dict[str, Path]:
    """One checkpoint for each network.

    Raises:
        BenchError: a network has none or several.
    """
    picked = {}
    for name, paths in checkpoints(folder).items():
        fitting = [path for path in paths if path.name.startswith(wishes.get(name, ""))]
        if len(fitting) != 1:
            shown = ", ".join(f"{path.stem} ({load_tensors(path)[1]['defense']})" for path in fitting) or "none"
            mend = f"name one: {name}=KEY" if fitting else f"train it with: bench run -d {name} --results {folder}"
            raise BenchError(f"'{folder}' must hold one cnn-small on digits, {name}, seed 0; it holds {shown}: {mend}")
        picked[name] = fitting[0]
    return picked


def renew(arguments: list[str]) -> None:
    """Copy the networks, measure them, write the baseline."""
    folders = [argument for argument in arguments if "=" not in argument]
    wishes = dict(argument.rsplit("=", 1) for argument in arguments if "=" in argument)
    picked = chosen(Path(folders[0]), wishes) if folders else {}
    for name, path in picked.items():
        shutil.copyfile(path, HERE / f"{name}.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["bash", str(HERE / "measure.sh"), folder], check=True)
        saved = str(HERE / "baseline.json.gz")
        subprocess.run(["bench", "baseline", "save", saved, "--results", folder], check=True)


if __name__ == "__main__":
    try:
        renew(sys.argv[1:])
    except BenchError as error:
        sys.exit(f"error: {error}")
