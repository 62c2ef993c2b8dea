"""Which stored networks are the winners of searches: what a reader must know who compares them with others."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.canonical import canonical_json
from bench.store import CellRow, Store
from bench.store.studies import Studies
from bench.tuning.result import Found, found


def way_trained(spec: Mapping[str, Any]) -> dict[str, Any]:
    """How a network is trained, but for the seed and for which images are trained on and held out.

    Args:
        spec: identity of its `TrainSpec`.
    """
    recipe = {key: value for key, value in spec["recipe"].items() if key not in ("train_size", "holdout")}
    return {key: value for key, value in spec.items() if key not in ("seed", "train_hash")} | {"recipe": recipe}


def tuned_text(search: Found) -> str:
    """What was tuned, in a few words without a comma: `best of 20 trials; lr 0.05`."""
    best = search.best
    values = best.trial.values if best is not None else {}
    recipe = [f"{name} {value}" for name, value in values.items() if "." not in name]
    rest = recipe if values else ["the default"]
    return "; ".join([f"best of {len(search.trials)} trials", *rest])


def tuned_words(search: Found) -> str:
    """What was tuned on what, and whether it helped, for a note below a table."""
    settings = search.study.settings
    attacks, images = ", ".join(settings["attacks"]), f"{settings['held_out']} held-out training images"
    return f"{tuned_text(search)}; under {attacks} on {images} {search.says} (study {search.study.key[:12]})"


def winners(store: Store, rows: Sequence[CellRow]) -> dict[str, Found]:
    """The searches that networks are the winners of, by the key of their weights.

    A network is one whoever trained it and whether the command said so: it is trained as the winner was, on the images
    that the search had. Where the default won, that is the default.

    Args:
        store: where the searches are.
        rows: cells of the networks.
    """
    studies = Studies(store).all()
    if not studies:
        return {}
    trained = store.trained()
    ways: dict[tuple[str, int, str], Found] = {}
    for study in studies:
        search = found(store, study)
        cells = store.done(search.best.trial.cells[:1]) if search.best is not None else {}
        for row in cells.values():
            spec = (trained.get(row.weights_key) or {}).get("spec") or {}
            if "recipe" in spec:
                # A later one of as many trials says the same of other attacks or seeds.
                ways[(study.settings["dataset"], study.settings["of"], canonical_json(way_trained(spec)))] = search
    totals = {total for _, total, _ in ways}
    of = dict[str, Found]()
    for row in rows:
        spec = (trained.get(row.weights_key) or {}).get("spec") or {}
        if row.weights_key in of or "recipe" not in spec:
            continue
        way, size = canonical_json(way_trained(spec)), int(spec["recipe"].get("train_size") or 0)
        for total in totals:
            won = ways.get((row.dataset, total, way))
            if won is not None and size in _sizes(won):
                of[row.weights_key] = won
    return of


def _sizes(search: Found) -> tuple[int, ...]:
    """What `--train-size` may say where a search had all of its images; 0 stands for all there are."""
    settings = search.study.settings
    return (settings["of"], 0) if settings["whole"] else (settings["of"],)


def tuning_note(store: Store | None, rows: Sequence[CellRow]) -> str:
    """A sentence on the tuned networks among those of a table; empty if there are none.

    Args:
        store: where the searches are; None where that is not known.
        rows: cells that are shown.
    """
    if store is None:
        return ""
    of = winners(store, rows)
    tuned = {row.weights_key: row.defense.partition(" (")[0] for row in rows if row.weights_key in of}
    lines = dict.fromkeys(f"{defense}, {tuned_words(of[key])}" for key, defense in tuned.items())
    return f"Tuned: {'. '.join(lines)}." if lines else ""
