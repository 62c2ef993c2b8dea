"""Ground truth: the exact robust accuracy of small spiking networks, by enumeration instead of attack.

What is proven. The function is the float64 network with its neuron noise off; the attacker's set is the l_inf ball
within the box, as `attacks.projections.LinfBall` has it. `robust` means that no image of that set is
misclassified or tied: every pattern of first-layer trains either has a positive margin whatever the rounding, or
is excluded by a certificate that was checked here and that holds with `SLACK` to spare, so that neither the linear
programs' tolerance nor the half-open ends of the trains' intervals enter. `broken` means that the model itself was
run on an image of the set and got it wrong. Everything else is `unknown`: a limit, or patterns that only images
within `SLACK` of a breakpoint can produce. Robust accuracy lies between the share of `robust` and one minus the
share of `broken`.
"""
