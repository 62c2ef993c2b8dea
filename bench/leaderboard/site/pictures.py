"""Clean and attacked images of an entry."""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.errors import BenchError
from bench.leaderboard.entry import Entry
from bench.store import Store

IMAGES = 4


def pictures(
    entry: Entry, store: Store, checkpoints: Path | None, data_dir: Path | None, model_name: str | None = None
) -> str:
    """The first test images, what the strongest attack makes of them, and the difference; or why there are none."""
    head = "<h2>Attacked images</h2>"
    if not entry.seeds:
        return ""
    if checkpoints is None or data_dir is None:
        return f'{head}<p class="about">No pictures: weights and images were not at hand.</p>'
    import torch

    from bench.data.stills import stills
    from bench.evidence.attacked import attacked_images
    from bench.evidence.stored import stored_cell, stored_images, stored_network, stored_weights
    from bench.runtime import pick_device

    seed = entry.seeds[0]
    row = next(row for row in seed.cells if row.attack == seed.strongest)
    device = pick_device("cpu", None)
    try:
        # First of all: a page without pictures says the same whatever data and code are at hand, and fetches nothing.
        if not stored_weights(row.weights_key, store, checkpoints)[0].exists():
            raise BenchError("the weights are not at hand")
        cell = stored_cell(row)
        images = stored_images(cell, data_dir)
        model = stored_network(cell, store, checkpoints, device, model_name=model_name)
        x = images.pixels(images.x_test[:IMAGES], device)
        y = images.y_test[: len(x)].to(device)
        attacked = attacked_images(model, x, y, cell)
        # On one scale, so that what was added can be seen.
        x, attacked = stills(torch.cat([x, attacked])).chunk(2)
    except BenchError as error:
        return f'{head}<p class="about">No pictures: {escape(str(error))}.</p>'
    outcome = store.outcome(row.key)
    assert outcome is not None
    shown = []
    for i in range(len(x)):
        label = escape(images.class_names[int(y[i])])
        stands = "stands" if outcome.robust_last[i] > 0.5 else "falls"
        difference = 0.5 + 0.5 * (attacked[i] - x[i]) / max(float((attacked[i] - x[i]).abs().max()), 1e-9)
        drawn = (("clean", x[i]), (f"attacked: {stands}", attacked[i]), ("difference, scaled", difference))
        three = "".join(
            f'<figure><img src="{_data(image)}" alt="image {i}, {label}, {name}" loading="lazy">'
            f"<figcaption>{name}</figcaption></figure>"
            for name, image in drawn
        )
        shown.append(f'<li><p class="about">Image {i}, class {label}</p><div class="three">{three}</div></li>')
    return (
        f'{head}<p class="about">The first test images under {escape(row.attack)} (seed {seed.seed}, last iterate).</p>'
        f'<ul class="pictures">{"".join(shown)}</ul>'
    )


def _data(image: Tensor) -> str:
    from PIL import Image

    array = (image.detach().cpu().numpy().transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(array[..., 0] if array.shape[-1] != 3 else array)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
