"""LIF with a threshold that follows the potential's deviation from a remembered trajectory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.lif import LIFParams, drawn, spike
from models.random import Noise
from models.shaped import ShapedLIF


class HomeostaticLIF(ShapedLIF):
    """LIF until it is told to adapt; then its threshold rises with e[t] = V[t] - reference[t].

    threshold[t] = threshold[t-1] + theta e[t], from v_threshold before the first step; then it is compared with V[t].
    reference [T, *] is the mean potential on clean inputs (`record_reference`), theta [*] is learnt. Both, and whether
    the layer adapts, are kept with the weights.

    Source: TA-LIF of HoSNN, Geng and Li, TMLR 2025. The official code differentiates the spike as if the threshold
    were fixed and learns theta by a rule of its own; here the threshold is differentiated as the equation says, for
    training and for attackers alike. (Gradients that replace a layer's own backward pass take it as given.)

    Args:
        theta: its value before training, not negative.
        **lif: arguments of `LIF`.
    """

    undecayed = ("theta",)
    theta: Tensor
    reference_potential: Tensor
    seen: Tensor
    adapting: Tensor

    def __init__(self, theta: float = 0.2, **lif: object) -> None:
        super().__init__(**lif)  # type: ignore[arg-type]
        self.initial_theta = theta

    def initial(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"theta": torch.full(shape, self.initial_theta)}

    def remembered(self, steps: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {
            "reference_potential": torch.zeros(steps, *shape),
            "seen": torch.zeros(()),
            "adapting": torch.zeros(()),
        }

    def constants(self, current: Tensor) -> LIFParams:
        with torch.no_grad():
            return self.params._replace(v_threshold=self._run(current, self.noise_source(current))[2])

    def equations(
        self, current: Tensor, noise: Noise | Tensor | None, with_membrane: bool
    ) -> tuple[Tensor, Tensor | None]:
        spikes, membrane, thresholds = self._run(current, noise)
        return spikes, self.recorded(membrane, thresholds) if with_membrane else None

    def _run(self, current: Tensor, noise: Noise | Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, potentials before noise and thresholds, [T, N, *] each."""
        # The equations of other layers, too, compute in float32 where tensors are stored in bfloat16.
        current = current.float() if current.dtype == torch.bfloat16 else current
        given = drawn(noise, current)
        gain = self.theta * self.adapting
        u, threshold = torch.zeros_like(current[0]), torch.full_like(current[0], self.v_threshold)
        steps: list[Sequence[Tensor]] = []
        for t in range(current.shape[0]):
            v = self.decay * u + current[t]
            threshold = threshold + gain * (v - self.reference_potential[t])
            met = v if given is None else v + given[t]
            s = spike(met - threshold, self.surrogate)
            steps.append((s, v, threshold))
            gate = s.detach() if self.detach_reset else s
            u = (1 - gate) * met + self.v_reset * gate
        spikes, membrane, thresholds = (torch.stack(values) for values in zip(*steps, strict=True))
        return spikes, membrane, thresholds

    @property
    def needs_equations(self) -> bool:
        # The threshold is differentiated for whoever asks, not only where theta is trained.
        return True
