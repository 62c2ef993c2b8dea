"""Neurons that differ by time step or place: their parameters take their shape from the currents."""

import torch
from torch import Tensor, nn

from models.neurons import LIF


class ShapedLIF(LIF):
    """Base of the layers with a parameter for each time step, or for each neuron.

    A layer is built before anybody knows what it will be shown, so the parameters are made at its first call:
    `settle_shapes` makes that call, before weights are loaded or trained.

    A subclass implements `initial`, may implement `remembered`, and may name parameters that weight decay leaves alone
    in `undecayed`.
    """

    undecayed: tuple[str, ...] = ()
    fitted: tuple[int, ...] | None = None

    def initial(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The parameters' values before training, by name, for T steps of currents [N, *shape]."""
        raise NotImplementedError

    def remembered(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The same of what is kept with the weights and not trained."""
        return {}

    def forward(self, current: Tensor, norm: nn.Module | None = None, steps: int = 0) -> Tensor:
        """As `LIF.forward`.

        Raises:
            ValueError: another number of steps, or currents of another shape, than at the first call.
        """
        now = (steps or current.shape[0], *current.shape[2:])
        if self.fitted is None:
            for name, value in self.initial(now[0], now[1:]).items():
                self.register_parameter(name, nn.Parameter(value.to(current.device)))
            for name, value in self.remembered(now[0], now[1:]).items():
                self.register_buffer(name, value.to(current.device))
            self.fitted = now
        if now != self.fitted:
            raise ValueError(
                f"a layer with parameters for {self.fitted[0]} steps of {list(self.fitted[1:])} neurons was shown "
                f"{now[0]} of {list(now[1:])}; give T and the image size that it was built for"
            )
        return super().forward(current, norm, steps)


def settle_shapes(model: nn.Module, in_shape: tuple[int, ...], T: int, *, frames: bool) -> None:
    """Show a new network one blank input, so that every neuron's parameters exist; nothing else of it changes.

    Args:
        model: a network as built.
        in_shape: [C, H, W] of an image, or of each frame.
        T: number of frames.
        frames: whether its inputs are frames.
    """
    if not any(isinstance(module, ShapedLIF) and module.fitted is None for module in model.modules()):
        return
    modes = [(module, module.training) for module in model.modules()]
    blank = torch.zeros(1, *([T] if frames else []), *in_shape, device=next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        model(blank)
    for module, mode in modes:
        module.training = mode
