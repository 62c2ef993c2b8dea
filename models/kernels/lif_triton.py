# mypy: ignore-errors
"""One leaky integrate-and-fire layer over all its time steps in Triton: forward, backward, and the noise inside it.

The arithmetic is that of lif.c, operation by operation. What Triton's compiler would do on its own is ruled out: it is
launched with `enable_fp_fusion=False`, so that a multiplication and an addition are two roundings; `tl.fma` stands
where one is meant; divisions and roots are `div_rn` and `sqrt_rn`, because `/` and `tl.sqrt` are approximations there.
Subnormal numbers are kept. Importing this module needs triton; `models.kernels.gpu` does it on the first use.
"""

import triton
import triton.language as tl


@triton.jit
def _unit(word):
    return ((word >> 8).to(tl.int32).to(tl.float32) + 0.5) * 5.9604644775390625e-08


@triton.jit
def _log_unit(u):
    bits = u.to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    m = ((bits & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)
    f = m - 1.0
    s = tl.div_rn(f, f + 2.0)
    z = s * s
    w = z * z
    odd = w * (w * 0.24279078841 + 0.40000972152)
    even = z * (w * 0.28498786688 + 0.66666662693)
    half = f * 0.5 * f
    low = s * (half + (even + odd)) + exponent * 9.0580006145e-06
    return ((low - half) + f) + exponent * 0.69313812256


@triton.jit
def _box_muller(first, second):
    radius = tl.sqrt_rn(_log_unit(_unit(first)) * -2.0)
    turn = (second >> 8).to(tl.int32)
    quarter = (turn + (1 << 21)) >> 22
    x = ((turn - (quarter << 22)).to(tl.float32) + 0.5) * 5.9604644775390625e-08 * 6.2831853072
    z = x * x
    sine = ((z * -1.9515295891e-4 + 8.3321608736e-3) * z + -1.6666654611e-1) * z * x + x
    cosine = ((z * 2.4433157118e-5 + -1.3887316255e-3) * z + 4.1666645683e-2) * z * z + (1.0 - z * 0.5)
    odd = (quarter & 1) != 0
    first_sign = tl.where(((quarter + 1) & 2) != 0, -1.0, 1.0)
    second_sign = tl.where((quarter & 2) != 0, -1.0, 1.0)
    a = radius * (tl.where(odd, sine, cosine) * first_sign)
    b = radius * (tl.where(odd, cosine, sine) * second_sign)
    return a, b


@triton.jit
def _normals(position, stream, sample, draw, key_low, key_high):
    """Four numbers of each block, 16 apart among the group's 64."""
    c0, c1, c2, c3 = tl.philox_impl(position, stream, sample, draw, key_low, key_high, 10)
    z0, z1 = _box_muller(c0, c1)
    z2, z3 = _box_muller(c2, c3)
    return z0, z1, z2, z3


@triton.jit
def _word(samples, n):
    return tl.load(samples + n).to(tl.uint32)


@triton.jit
def _factors(scale, shift, at, C, mask):
    channel = at % C
    return tl.load(scale + channel, mask=mask, other=0.0), tl.load(shift + channel, mask=mask, other=0.0)


@triton.jit
def _step(
    current,
    spikes,
    v,
    before,
    noise,
    at,
    mask,
    later,
    u,
    a,
    b,
    z,
    sigma,
    decay,
    threshold,
    reset,
    AFFINE: tl.constexpr,
    GIVEN: tl.constexpr,
    GENERATED: tl.constexpr,
    FIRE: tl.constexpr,
    KEEP: tl.constexpr,
    BEFORE: tl.constexpr,
):
    """One time step of a tile, whose pointers stand at its sample; gives the potential after reset."""
    w = tl.load(current + at, mask=mask, other=0.0).to(tl.float32)
    if AFFINE:
        w = tl.fma(w, a, b)
    # Not for u = 0 at the first step: -0 would become 0.
    w = tl.where(later, tl.fma(u, decay, w), w)
    if BEFORE:
        tl.store(before + at, w.to(before.dtype.element_ty), mask=mask)
    if GENERATED:
        w = w + z * sigma
    if GIVEN:
        w = w + tl.load(noise + at, mask=mask, other=0.0)
    fires = w >= threshold
    if FIRE:
        tl.store(spikes + at, tl.where(fires, 1.0, 0.0).to(spikes.dtype.element_ty), mask=mask)
    if KEEP:
        tl.store(v + at, w.to(v.dtype.element_ty), mask=mask)
    return tl.where(fires, reset, w)


@triton.jit(do_not_specialize=["key_low", "key_high", "stream"])
def forward(
    current,
    step,
    size,
    L,
    C,
    scale,
    shift,
    decay,
    threshold,
    reset,
    noise,
    key_low,
    key_high,
    stream,
    samples,
    draws,
    sigma,
    spikes,
    v,
    before,
    AFFINE: tl.constexpr,
    GIVEN: tl.constexpr,
    GENERATED: tl.constexpr,
    FIRE: tl.constexpr,
    KEEP: tl.constexpr,
    BEFORE: tl.constexpr,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A tile of BLOCK elements of one sample over all time steps, as the four quarters that a Philox block feeds."""
    blocks = tl.cdiv(L, BLOCK)
    job = tl.program_id(0)
    n = job // blocks
    start = job % blocks * BLOCK
    k = tl.arange(0, BLOCK // 4)
    at0 = start + k // 16 * 64 + k % 16
    at1, at2, at3 = at0 + 16, at0 + 32, at0 + 48
    m0, m1, m2, m3 = at0 < L, at1 < L, at2 < L, at3 < L
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    if AFFINE:
        a0, b0 = _factors(scale, shift, at0, C, m0)
        a1, b1 = _factors(scale, shift, at1, C, m1)
        a2, b2 = _factors(scale, shift, at2, C, m2)
        a3, b3 = _factors(scale, shift, at3, C, m3)
    if GENERATED:
        k0, k1 = key_low.to(tl.uint32, bitcast=True), key_high.to(tl.uint32, bitcast=True)
        layer, sample, draw = stream.to(tl.uint32, bitcast=True), _word(samples, n), _word(draws, n)
    position = (start // 4 + k).to(tl.uint32)
    u0 = tl.zeros([BLOCK // 4], tl.float32)
    u1, u2, u3 = u0, u0, u0
    inside = n.to(tl.int64) * L
    outside = inside
    for t in range(T):
        x, s, p, q, r = current + inside, spikes + outside, v + outside, before + outside, noise + outside
        later = t > 0
        if GENERATED:
            z0, z1, z2, z3 = _normals(position, layer, sample, draw, k0, k1)
        else:
            z0, z1, z2, z3 = 0.0, 0.0, 0.0, 0.0
        u0 = _step(
            *(x, s, p, q, r, at0, m0, later, u0, a0, b0, z0, sigma, decay, threshold, reset),
            *(AFFINE, GIVEN, GENERATED, FIRE, KEEP, BEFORE),
        )
        u1 = _step(
            *(x, s, p, q, r, at1, m1, later, u1, a1, b1, z1, sigma, decay, threshold, reset),
            *(AFFINE, GIVEN, GENERATED, FIRE, KEEP, BEFORE),
        )
        u2 = _step(
            *(x, s, p, q, r, at2, m2, later, u2, a2, b2, z2, sigma, decay, threshold, reset),
            *(AFFINE, GIVEN, GENERATED, FIRE, KEEP, BEFORE),
        )
        u3 = _step(
            *(x, s, p, q, r, at3, m3, later, u3, a3, b3, z3, sigma, decay, threshold, reset),
            *(AFFINE, GIVEN, GENERATED, FIRE, KEEP, BEFORE),
        )
        inside += step
        outside += size
        position += 1 << 24


@triton.jit(do_not_specialize=["key_low", "key_high", "stream"])
def fill_normal(out, size, L, key_low, key_high, stream, samples, draws, T: tl.constexpr, BLOCK: tl.constexpr):
    """Standard normal numbers [T, N, L], tile by tile as in `forward`."""
    blocks = tl.cdiv(L, BLOCK)
    job = tl.program_id(0)
    n = job // blocks
    start = job % blocks * BLOCK
    k = tl.arange(0, BLOCK // 4)
    at = start + k // 16 * 64 + k % 16
    k0, k1 = key_low.to(tl.uint32, bitcast=True), key_high.to(tl.uint32, bitcast=True)
    layer, sample, draw = stream.to(tl.uint32, bitcast=True), _word(samples, n), _word(draws, n)
    position = (start // 4 + k).to(tl.uint32)
    outside = n.to(tl.int64) * L
    for _ in range(T):
        z0, z1, z2, z3 = _normals(position, layer, sample, draw, k0, k1)
        to = out + outside
        tl.store(to + at, z0, mask=at < L)
        tl.store(to + (at + 16), z1, mask=at + 16 < L)
        tl.store(to + (at + 32), z2, mask=at + 32 < L)
        tl.store(to + (at + 48), z3, mask=at + 48 < L)
        outside += size
        position += 1 << 24


@triton.jit
def _slope(x, p, q, KIND: tl.constexpr):
    """The surrogates in the order of `models.kernels.gpu`; the last two to the accuracy of the device's exponential."""
    magnitude = tl.abs(x)
    if KIND == 0:
        height = -magnitude + p
        out = tl.where(height < 0, 0.0, height) * q
    elif KIND == 1:
        out = tl.where(magnitude < p, 1.0, 0.0) * q
    elif KIND == 2:
        scaled = x * p
        out = tl.div_rn(tl.full(x.shape, 1.0, tl.float32), scaled * scaled + 1.0) * q
    elif KIND == 3:
        # s (1 - s) is even in x, and the exponential of a negative number cannot overflow.
        e = tl.exp(-(magnitude * p))
        s = tl.div_rn(e, e + 1.0)
        out = s * (1.0 - s) * q
    else:
        scaled = x * p
        out = tl.exp(scaled * scaled * -0.5) * q
    return out


@triton.jit
def backward(
    v,
    grad_spikes,
    grad_membrane,
    size,
    L,
    C,
    wide,
    first,
    second,
    decay,
    threshold,
    reset,
    p,
    q,
    grad_current,
    DETACH: tl.constexpr,
    KIND: tl.constexpr,
    SPIKES: tl.constexpr,
    CHANNELWISE: tl.constexpr,
    MEMBRANE: tl.constexpr,
    AFFINE: tl.constexpr,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A tile of BLOCK elements of one sample, from the last time step to the first.

    With CHANNELWISE the gradient in the spikes is one number a channel, [T, N, C], `wide` = N * C apart.
    """
    blocks = tl.cdiv(L, BLOCK)
    job = tl.program_id(0)
    n = job // blocks
    k = job % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = k < L
    a, b = 0.0, 0.0
    if AFFINE:
        a, b = _factors(first, second, k, C, mask)
    u = tl.zeros([BLOCK], tl.float32)
    last = tl.full([], T - 1, tl.int64)
    at = n.to(tl.int64) * L + last * size
    row = n.to(tl.int64) * C + last * wide
    for t in range(T):
        inner = t > 0
        potential = tl.load(v + at + k, mask=mask, other=0.0).to(tl.float32)
        x = potential - threshold
        g = tl.zeros([BLOCK], tl.float32)
        if SPIKES:
            if CHANNELWISE:
                g = tl.load(grad_spikes + row + k % C, mask=mask, other=0.0).to(tl.float32)
            else:
                g = tl.load(grad_spikes + at + k, mask=mask, other=0.0).to(tl.float32)
        through = g
        if not DETACH:
            through = tl.where(inner, u * (reset - potential) + g, g)
        out = _slope(x, p, q, KIND) * through
        w = tl.where(inner, out + tl.where(x < 0, u, 0.0), out)
        if MEMBRANE:
            w = w + tl.load(grad_membrane + at + k, mask=mask, other=0.0).to(tl.float32)
        u = w * decay
        if AFFINE:
            w = w * a * b
        tl.store(grad_current + at + k, w.to(grad_current.dtype.element_ty), mask=mask)
        at -= size
        row -= wide


@triton.jit
def total(grad, size, L, C, first, second, out, AFFINE: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of float32 [T, N, L] over time, first step first, and then the factors of a normalisation."""
    blocks = tl.cdiv(L, BLOCK)
    job = tl.program_id(0)
    k = job % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = k < L
    start = (job // blocks).to(tl.int64) * L
    at = start
    w = tl.load(grad + at + k, mask=mask, other=0.0)
    for _ in range(T - 1):
        at += size
        w = w + tl.load(grad + at + k, mask=mask, other=0.0)
    if AFFINE:
        a, b = _factors(first, second, k, C, mask)
        w = w * a * b
    tl.store(out + start + k, w.to(out.dtype.element_ty), mask=mask)


@triton.jit
def affine(weight, bias, mean, variance, C, scale, shift, back, EPS: tl.constexpr, BLOCK: tl.constexpr):
    """A batch normalisation with fixed statistics as torch computes it: its backward begins in double precision."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = c < C
    spread = tl.load(variance + c, mask=mask, other=1.0)
    root = tl.sqrt_rn(spread + tl.full([BLOCK], EPS, tl.float32))
    factor = tl.div_rn(tl.full([BLOCK], 1.0, tl.float32), root) * tl.load(weight + c, mask=mask, other=0.0)
    tl.store(scale + c, factor, mask=mask)
    at_zero = tl.fma(-tl.load(mean + c, mask=mask, other=0.0), factor, tl.load(bias + c, mask=mask, other=0.0))
    tl.store(shift + c, at_zero, mask=mask)
    # In double precision `/` and `tl.sqrt` are rounded correctly.
    exact = tl.sqrt(spread.to(tl.float64) + tl.full([BLOCK], EPS, tl.float64))
    tl.store(back + c, (tl.full([BLOCK], 1.0, tl.float64) / exact).to(tl.float32), mask=mask)


@triton.jit
def combine(x, y, a, b, size, out, BLOCK: tl.constexpr):
    """a * x + b * y with three roundings, as torch's separate operations."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    k = tl.arange(0, BLOCK)
    mask = start + k < size
    left = tl.load(x + start + k, mask=mask, other=0.0).to(tl.float32) * a
    right = tl.load(y + start + k, mask=mask, other=0.0).to(tl.float32) * b
    tl.store(out + start + k, (left + right).to(out.dtype.element_ty), mask=mask)


@triton.jit
def spread(grad, a, b, size, first, second, BLOCK: tl.constexpr):
    """a * grad and b * grad."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    k = tl.arange(0, BLOCK)
    mask = start + k < size
    value = tl.load(grad + start + k, mask=mask, other=0.0).to(tl.float32)
    tl.store(first + start + k, (value * a).to(first.dtype.element_ty), mask=mask)
    tl.store(second + start + k, (value * b).to(second.dtype.element_ty), mask=mask)
