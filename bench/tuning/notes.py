"""Which stored networks are the winners of searches: what a reader must know who compares them with others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.canonical import canonical_json
from bench.names import short_names, tuned_name
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


def tuning_note(store: Store | None, rows: Iterable[CellRow]) -> str:
    """A note on the tuned networks among those of a table; empty if there are none.

    Args:
        store: where the searches are; without them the note is made of what the stored names say. None where that is
            not known.
        rows: cells that are shown.
    """
    shown = list(rows)
    of = winners(store, shown) if store is not None else {}
    return tuned_paragraph(
        ((row.dataset, row.model), row.defense, tuned_words(of[row.weights_key]) if row.weights_key in of else "")
        for row in shown
    )


def tuned_paragraph(rows: Iterable[tuple[tuple[str, ...], str, str]]) -> str:
    """What the short names of tuned rows stand for, in one paragraph; empty where no row is tuned.

    A row of which only the stored name tells that it is tuned is left out where it is shown by that whole name
    (`short_names`), which says all there is.

    Args:
        rows: of each row what else it says (its dataset, its model), of which the note repeats what tells rows apart;
            the stored name of its defense; and the search in the words of `tuned_words`, empty where it is not known.
    """
    listed = list(dict.fromkeys(rows))
    names = short_names((place, defense) for place, defense, _ in listed)
    varies = [len(set(parts)) > 1 for parts in zip(*(place for place, *_ in listed), strict=True)]
    searched, named = dict[str, None](), dict[str, None]()
    for place, defense, search in listed:
        tuned, short = tuned_name(defense), names[place, defense] != defense
        name = tuned.plain if tuned and short else defense.partition(" (")[0]
        telling = [part for part, differs in zip(place, varies, strict=True) if differs]
        name += f" ({', '.join(telling)})" if telling else ""
        if search:
            # What a search chose of the defense is in no words of the search: the defense's name says it.
            chosen = f" with {', '.join(tuned.parameters)}" if tuned and short and tuned.parameters else ""
            searched[f"{name}{chosen}, {search}"] = None
        elif tuned and short:
            named[f"{name}, {tuned.effort}" + (f": {tuned.settings}" if tuned.settings else "")] = None
    sentences = [*searched, *(["; ".join(named)] if named else [])]
    return f"Tuned: {'. '.join(sentences)}." if sentences else ""
