/* One leaky integrate-and-fire layer over all its time steps: forward, backward, and the noise inside it.
 *
 * The arithmetic is that of the torch operations in models/lif.py, in their order: compiled with -ffp-contract=off,
 * so that a multiplication and an addition are two roundings, and with fmaf where torch fuses them. The results are
 * the same bits. Tensors are dense; the innermost axis is the channel. bf16 is a storage format: all sums are float.
 */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024, GROUP = 64, LANES = 16, STEP_BITS = 24 };
enum { TRIANGULAR, RECTANGULAR, ARCTAN };

typedef uint16_t bf16;

static inline float load_f32(const float *p) { return *p; }
static inline void store_f32(float *p, float x) { *p = x; }
static inline float load_b16(const bf16 *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline void store_b16(bf16 *p, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
    *p = (bf16)((x != x ? (bits | 0x400000) : rounded) >> 16);
}

/* ---- noise: Philox-4x32-10 and a Box-Muller transform of plain IEEE operations, see models/random.py ---- */

static inline float unit(uint32_t word) { return ((float)(int32_t)(word >> 8) + 0.5f) * 0x1p-24f; }

static inline float log_unit(float u) {
    uint32_t bits;
    memcpy(&bits, &u, 4);
    bits += 0x3f800000u - 0x3f3504f3u;
    float exponent = (float)((int32_t)(bits >> 23) - 127);
    bits = (bits & 0x7fffffu) + 0x3f3504f3u;
    float m;
    memcpy(&m, &bits, 4);
    float f = m - 1.0f;
    float s = f / (2.0f + f);
    float z = s * s;
    float w = z * z;
    float odd = w * (0.40000972152f + w * 0.24279078841f);
    float even = z * (0.66666662693f + w * 0.28498786688f);
    float half = (0.5f * f) * f;
    float low = s * (half + (even + odd)) + exponent * 9.0580006145e-06f;
    return ((low - half) + f) + exponent * 0.69313812256f;
}

static inline void box_muller(uint32_t first, uint32_t second, float *a, float *b) {
    float radius = sqrtf(log_unit(unit(first)) * -2.0f);
    int32_t turn = (int32_t)(second >> 8);
    int32_t quarter = (turn + (1 << 21)) >> 22;
    float x = (((float)(turn - (quarter << 22)) + 0.5f) * 0x1p-24f) * 6.2831853072f;
    float z = x * x;
    float sine = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z + -1.6666654611e-1f) * z * x + x;
    float cosine = ((2.4433157118e-5f * z + -1.3887316255e-3f) * z + 4.1666645683e-2f) * z * z + (1.0f - 0.5f * z);
    float swapped_cosine = (quarter & 1) ? sine : cosine;
    float swapped_sine = (quarter & 1) ? cosine : sine;
    float sign_cosine = ((quarter + 1) & 2) ? -1.0f : 1.0f;
    float sign_sine = (quarter & 2) ? -1.0f : 1.0f;
    *a = radius * (swapped_cosine * sign_cosine);
    *b = radius * (swapped_sine * sign_sine);
}

typedef uint32_t lanes32 __attribute__((vector_size(4 * LANES)));
typedef uint64_t lanes64 __attribute__((vector_size(4 * LANES)));

/* Both halves of 16 products, by the even and the odd lanes: compilers do not find this by themselves. */
static inline void multiply(lanes32 c, uint32_t factor, lanes32 *low, lanes32 *high) {
    lanes64 half = (lanes64)c, mask = (lanes64){} + 0xffffffffu;
    lanes64 even = (half & mask) * factor, odd = (half >> 32) * factor;
    *low = (lanes32)((even & mask) | (odd << 32));
    *high = (lanes32)((even >> 32) | (odd & ~mask));
}

/* 64 numbers: number 16 j + i is made of word j of the block whose counter ends in i. */
static void normals(float *out, uint32_t block, uint32_t stream, uint32_t sample, uint32_t draw, uint64_t key) {
    lanes32 c0 = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, zero = {}, low0, high0, low1, high1;
    lanes32 c1 = zero + stream, c2 = zero + sample, c3 = zero + draw;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    c0 += block;
    for (int round = 0; round < 10; round++) {
        multiply(c0, 0xD2511F53u, &low0, &high0);
        multiply(c2, 0xCD9E8D57u, &low1, &high1);
        c0 = high1 ^ c1 ^ k0;
        c2 = high0 ^ c3 ^ k1;
        c1 = low1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint32_t words[4][LANES];
    memcpy(words[0], &c0, sizeof c0);
    memcpy(words[1], &c1, sizeof c1);
    memcpy(words[2], &c2, sizeof c2);
    memcpy(words[3], &c3, sizeof c3);
    for (int i = 0; i < LANES; i++) box_muller(words[0][i], words[1][i], out + i, out + LANES + i);
    for (int i = 0; i < LANES; i++)
        box_muller(words[2][i], words[3][i], out + 2 * LANES + i, out + 3 * LANES + i);
}

/* Standard normal numbers [T, N, L]. */
void fill_normal(float *out, int T, int64_t N, int64_t L, uint64_t key, uint32_t stream, const int64_t *samples,
                 const int64_t *draws, int threads) {
    int64_t groups = (L + GROUP - 1) / GROUP;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < (int64_t)T * N * groups; job++) {
        int64_t t = job / (N * groups), n = job / groups % N, g = job % groups;
        float z[GROUP];
        normals(z, ((uint32_t)t << STEP_BITS) + (uint32_t)(g * LANES), stream, (uint32_t)samples[n],
                (uint32_t)draws[n], key);
        int64_t count = L - g * GROUP < GROUP ? L - g * GROUP : GROUP;
        memcpy(out + (t * N + n) * L + g * GROUP, z, (size_t)count * sizeof(float));
    }
}

/* ---- the layer ---- */

/* A batch normalisation with fixed statistics as torch computes it: its forward and backward round differently. */
void affine(const float *weight, const float *bias, const float *mean, const float *variance, double eps, int64_t C,
            float *scale, float *shift, float *back) {
    for (int64_t c = 0; c < C; c++) {
        scale[c] = 1.0f / sqrtf(variance[c] + (float)eps) * weight[c];
        shift[c] = fmaf(-mean[c], scale[c], bias[c]);
        back[c] = (float)(1.0 / sqrt((double)variance[c] + eps));
    }
}

/* a * x + b * y, and a * g and b * g: three roundings and two, as torch's separate operations. */
#define COMBINE(NAME, TYPE, LOAD, STORE)                                                                               \
    void combine_##NAME(const TYPE *x, const TYPE *y, float a, float b, int64_t size, TYPE *out, int threads) {        \
        _Pragma("omp parallel for simd schedule(static) num_threads(threads) if (parallel: threads > 1)") for (        \
            int64_t i = 0; i < size; i++) STORE(out + i, a * LOAD(x + i) + b * LOAD(y + i));                           \
    }                                                                                                                  \
    void spread_##NAME(const TYPE *g, float a, float b, int64_t size, TYPE *gx, TYPE *gy, int threads) {               \
        _Pragma("omp parallel for simd schedule(static) num_threads(threads) if (parallel: threads > 1)") for (        \
            int64_t i = 0; i < size; i++) {                                                                            \
            float value = LOAD(g + i);                                                                                 \
            STORE(gx + i, a * value);                                                                                  \
            STORE(gy + i, b * value);                                                                                  \
        }                                                                                                              \
    }

COMBINE(f32, float, load_f32, store_f32)
COMBINE(b16, bf16, load_b16, store_b16)

static void tile(float *to, const float *from, int64_t C, int64_t start, int count) {
    int64_t c = start % C;
    for (int i = 0; i < count;) {
        int run = C - c < count - i ? (int)(C - c) : count - i;
        memcpy(to + i, from + c, (size_t)run * sizeof(float));
        i += run;
        c = 0;
    }
}

/* Asks for the memory of the next block while this one is computed: a layer walks along one stream for each time step
 * and tensor, in turns too short for the processor to foresee. */
static inline void foresee(const void *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)from + i, 0, 2);
}

/* The bodies below are inlined, with constant flags, into small functions of one loop each: compilers turn these into
 * vector instructions, and not the same loops inside the parallel regions. A condition that always holds, `if (a)`, tells
 * them which pointers are never null. */
#define BODY static inline __attribute__((always_inline))
#define LOOP static __attribute__((noinline))

#define LAYER(NAME, TYPE, LOAD, STORE)                                                                                 \
    BODY void step_##NAME(const TYPE *in, const float *a, const float *b, const float *z, float decay, float threshold,\
                          float reset, float *u, TYPE *spikes, TYPE *v, TYPE *before, int count, int first, int scaled,\
                          int noisy) {                                                                                 \
        _Pragma("omp simd") for (int i = 0; i < count; i++) {                                                          \
            float x = LOAD(in + i);                                                                                    \
            if (scaled) x = fmaf(x, a[i], b[i]);                                                                       \
            if (!first) x = fmaf(u[i], decay, x);                                                                      \
            if (before) STORE(before + i, x);                                                                          \
            if (noisy) x = x + z[i];                                                                                   \
            STORE(spikes + i, x >= threshold ? 1.0f : 0.0f);                                                           \
            if (v) STORE(v + i, x);                                                                                    \
            u[i] = x >= threshold ? reset : x;                                                                         \
        }                                                                                                              \
    }                                                                                                                  \
    LOOP void step_plain_##NAME(const TYPE *in, float decay, float threshold, float reset, float *u, TYPE *spikes,     \
                                int count) {                                                                           \
        step_##NAME(in, 0, 0, 0, decay, threshold, reset, u, spikes, 0, 0, count, 0, 0, 0);                            \
    }                                                                                                                  \
    LOOP void step_scaled_##NAME(const TYPE *in, const float *a, const float *b, float decay, float threshold,         \
                                 float reset, float *u, TYPE *spikes, int count) {                                     \
        step_##NAME(in, a, b, 0, decay, threshold, reset, u, spikes, 0, 0, count, 0, 1, 0);                            \
    }                                                                                                                  \
    LOOP void step_noisy_##NAME(const TYPE *in, const float *a, const float *b, const float *z, float decay,           \
                                float threshold, float reset, float *u, TYPE *spikes, TYPE *v, int count) {            \
        step_##NAME(in, a, b, z, decay, threshold, reset, u, spikes, v, 0, count, 0, 1, 1);                            \
    }                                                                                                                  \
    LOOP void step_any_##NAME(const TYPE *in, const float *a, const float *b, const float *z, float decay,             \
                              float threshold, float reset, float *u, TYPE *spikes, TYPE *v, TYPE *before, int count,  \
                              int first) {                                                                             \
        step_##NAME(in, a, b, z, decay, threshold, reset, u, spikes, v, before, count, first, a != 0, z != 0);         \
    }                                                                                                                  \
    BODY void again_##NAME(const TYPE *in, const float *a, const float *b, float decay, float threshold, float reset,  \
                           float *u, float *m, int count, int first, int scaled) {                                     \
        _Pragma("omp simd") for (int i = 0; i < count; i++) {                                                          \
            float x = LOAD(in + i);                                                                                    \
            if (scaled) x = fmaf(x, a[i], b[i]);                                                                       \
            if (!first) x = fmaf(u[i], decay, x);                                                                      \
            m[i] = x;                                                                                                  \
            u[i] = x >= threshold ? reset : x;                                                                         \
        }                                                                                                              \
    }                                                                                                                  \
    LOOP void again_first_##NAME(const TYPE *in, float threshold, float reset, float *u, float *m, int count) {        \
        again_##NAME(in, 0, 0, 0, threshold, reset, u, m, count, 1, 0);                                                \
    }                                                                                                                  \
    LOOP void again_first_scaled_##NAME(const TYPE *in, const float *a, const float *b, float threshold, float reset,  \
                                        float *u, float *m, int count) {                                               \
        again_##NAME(in, a, b, 0, threshold, reset, u, m, count, 1, 1);                                                \
    }                                                                                                                  \
    LOOP void again_next_##NAME(const TYPE *in, float decay, float threshold, float reset, float *u, float *m,         \
                                int count) {                                                                           \
        again_##NAME(in, 0, 0, decay, threshold, reset, u, m, count, 0, 0);                                            \
    }                                                                                                                  \
    LOOP void again_next_scaled_##NAME(const TYPE *in, const float *a, const float *b, float decay, float threshold,   \
                                       float reset, float *u, float *m, int count) {                                   \
        again_##NAME(in, a, b, decay, threshold, reset, u, m, count, 0, 1);                                            \
    }                                                                                                                  \
    BODY void back_##NAME(const float *m, const TYPE *g, const float *row, const TYPE *more, float *u, const float *a, \
                          const float *b, float decay, float threshold, float reset, float p, float q, float *total,   \
                          TYPE *out, int count, int kind, int last, int detach) {                                      \
        _Pragma("omp simd") for (int i = 0; i < count; i++) {                                                          \
            float x = m[i] - threshold, grad = g ? LOAD(g + i) : row[i];                                               \
            float through = !last && !detach ? u[i] * (reset - m[i]) + grad : grad;                                    \
            float w = slope(kind, x, p, q) * through;                                                                  \
            if (!last) w = w + (x < 0 ? u[i] : 0.0f);                                                                  \
            if (more) w = w + LOAD(more + i);                                                                          \
            u[i] = w * decay;                                                                                          \
            if (total)                                                                                                 \
                total[i] = w;                                                                                          \
            else                                                                                                       \
                STORE(out + i, a ? w * a[i] * b[i] : w);                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    LOOP void back_last_##NAME(const float *m, const TYPE *g, float *u, float decay, float threshold, float p, float q,\
                               TYPE *out, int count) {                                                                 \
        back_##NAME(m, g, 0, 0, u, 0, 0, decay, threshold, 0, p, q, 0, out, count, TRIANGULAR, 1, 0);                  \
    }                                                                                                                  \
    LOOP void back_last_scaled_##NAME(const float *m, const TYPE *g, float *u, const float *a, const float *b,         \
                                      float decay, float threshold, float p, float q, TYPE *out, int count) {          \
        if (a) back_##NAME(m, g, 0, 0, u, a, b, decay, threshold, 0, p, q, 0, out, count, TRIANGULAR, 1, 0);           \
    }                                                                                                                  \
    LOOP void back_plain_##NAME(const float *m, const TYPE *g, float *u, float decay, float threshold, float reset,    \
                                float p, float q, TYPE *out, int count) {                                              \
        back_##NAME(m, g, 0, 0, u, 0, 0, decay, threshold, reset, p, q, 0, out, count, TRIANGULAR, 0, 0);              \
    }                                                                                                                  \
    LOOP void back_scaled_##NAME(const float *m, const TYPE *g, float *u, const float *a, const float *b, float decay, \
                                 float threshold, float reset, float p, float q, TYPE *out, int count) {               \
        if (a) back_##NAME(m, g, 0, 0, u, a, b, decay, threshold, reset, p, q, 0, out, count, TRIANGULAR, 0, 0);       \
    }                                                                                                                  \
    LOOP void back_row_##NAME(const float *m, const float *row, float *u, const float *a, const float *b, float decay, \
                              float threshold, float reset, float p, float q, TYPE *out, int count, int last) {        \
        if (last && a)                                                                                                 \
            back_##NAME(m, 0, row, 0, u, a, b, decay, threshold, reset, p, q, 0, out, count, TRIANGULAR, 1, 0);        \
        else if (a)                                                                                                    \
            back_##NAME(m, 0, row, 0, u, a, b, decay, threshold, reset, p, q, 0, out, count, TRIANGULAR, 0, 0);        \
        else if (last)                                                                                                 \
            back_##NAME(m, 0, row, 0, u, 0, 0, decay, threshold, reset, p, q, 0, out, count, TRIANGULAR, 1, 0);        \
        else                                                                                                           \
            back_##NAME(m, 0, row, 0, u, 0, 0, decay, threshold, reset, p, q, 0, out, count, TRIANGULAR, 0, 0);        \
    }                                                                                                                  \
    LOOP void back_total_##NAME(const float *m, const TYPE *g, float *u, float decay, float threshold, float reset,    \
                                float p, float q, float *total, int count, int last) {                                 \
        if (!g || !total) return;                                                                                      \
        if (last)                                                                                                      \
            back_##NAME(m, g, 0, 0, u, 0, 0, decay, threshold, reset, p, q, total, 0, count, TRIANGULAR, 1, 0);        \
        else                                                                                                           \
            back_##NAME(m, g, 0, 0, u, 0, 0, decay, threshold, reset, p, q, total, 0, count, TRIANGULAR, 0, 0);        \
    }                                                                                                                  \
    LOOP void back_any_##NAME(const float *m, const TYPE *g, const float *row, const TYPE *more, float *u,             \
                              const float *a, const float *b, float decay, float threshold, float reset, float p,      \
                              float q, float *total, TYPE *out, int count, int kind, int last, int detach) {           \
        if (kind == TRIANGULAR)                                                                                        \
            back_##NAME(m, g, row, more, u, a, b, decay, threshold, reset, p, q, total, out, count, TRIANGULAR, last,  \
                        detach);                                                                                       \
        else if (kind == RECTANGULAR)                                                                                  \
            back_##NAME(m, g, row, more, u, a, b, decay, threshold, reset, p, q, total, out, count, RECTANGULAR, last, \
                        detach);                                                                                       \
        else                                                                                                           \
            back_##NAME(m, g, row, more, u, a, b, decay, threshold, reset, p, q, total, out, count, ARCTAN, last,      \
                        detach);                                                                                       \
    }                                                                                                                  \
                                                                                                                       \
    void forward_##NAME(const TYPE *current, int64_t step, int T, int64_t N, int64_t L, int64_t C, const float *scale, \
                        const float *shift, float decay, float threshold, float reset, const float *noise,             \
                        int generate, uint64_t key, uint32_t stream, const int64_t *samples, const int64_t *draws,     \
                        float sigma, TYPE *spikes, TYPE *v, TYPE *before, int threads) {                               \
        int64_t blocks = (L + BLOCK - 1) / BLOCK, size = N * L;                                                        \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                             \
        for (int64_t job = 0; job < N * blocks; job++) {                                                               \
            int64_t n = job / blocks, from = job % blocks * BLOCK;                                                     \
            int count = L - from < BLOCK ? (int)(L - from) : BLOCK;                                                    \
            float scales[BLOCK], shifts[BLOCK], u[BLOCK], drawn[BLOCK];                                                \
            float *a = scale ? scales : 0, *b = scale ? shifts : 0;                                                    \
            if (scale) {                                                                                               \
                tile(a, scale, C, from, count);                                                                        \
                tile(b, shift, C, from, count);                                                                        \
            }                                                                                                          \
            for (int t = 0; t < T; t++) {                                                                              \
                const TYPE *in = current + t * step + n * L + from;                                                    \
                int64_t at = t * size + n * L + from;                                                                  \
                TYPE *to = spikes + at, *keep = v ? v + at : 0, *seen = before ? before + at : 0;                      \
                const float *z = generate ? drawn : noise ? noise + at : 0;                                            \
                foresee(in + BLOCK, count * (int64_t)sizeof(TYPE));                                                    \
                foresee(to + BLOCK, count * (int64_t)sizeof(TYPE));                                                    \
                for (int g = 0; generate && g < count; g += GROUP)                                                     \
                    normals(drawn + g, ((uint32_t)t << STEP_BITS) + (uint32_t)((from + g) / GROUP * LANES), stream,    \
                            (uint32_t)samples[n], (uint32_t)draws[n], key);                                            \
                for (int i = 0; generate && i < count; i++) drawn[i] = drawn[i] * sigma;                               \
                if (t && !z && !keep && !seen && a)                                                                    \
                    step_scaled_##NAME(in, a, b, decay, threshold, reset, u, to, count);                               \
                else if (t && !z && !keep && !seen)                                                                    \
                    step_plain_##NAME(in, decay, threshold, reset, u, to, count);                                      \
                else if (t && z && keep && !seen && a)                                                                 \
                    step_noisy_##NAME(in, a, b, z, decay, threshold, reset, u, to, keep, count);                       \
                else                                                                                                   \
                    step_any_##NAME(in, a, b, z, decay, threshold, reset, u, to, keep, seen, count, !t);               \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    /* The potentials are either given as `v`, or simulated once more from `current`: reading that again is cheaper    \
     * than writing and reading `v`, unless there is noise to draw. With `channelwise` the gradient in the spikes is   \
     * one number a channel, [T, N, C]. With `constant` the gradient [1, N, L] is the sum over time, first step        \
     * first. `room` is 2 T BLOCK numbers for each thread. */                                                          \
    void backward_##NAME(const TYPE *v, const TYPE *current, int64_t step, const float *scale, const float *shift,     \
                         const TYPE *grad_spikes, int channelwise, const TYPE *grad_membrane, int T, int64_t N,        \
                         int64_t L, int64_t C, const float *first, const float *second, float decay, float threshold,  \
                         float reset, int detach, int kind, float p, float q, int constant, TYPE *grad_current,        \
                         float *room, int threads) {                                                                   \
        int64_t blocks = (L + BLOCK - 1) / BLOCK, size = N * L;                                                        \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                             \
        for (int64_t job = 0; job < N * blocks; job++) {                                                               \
            float *potentials = room + (int64_t)omp_get_thread_num() * 2 * T * BLOCK, *all = potentials + T * BLOCK;   \
            int64_t n = job / blocks, from = job % blocks * BLOCK;                                                     \
            int count = L - from < BLOCK ? (int)(L - from) : BLOCK;                                                    \
            float a[BLOCK], b[BLOCK], u[BLOCK], row[BLOCK], channels[BLOCK];                                           \
            if (current && scale) {                                                                                    \
                tile(a, scale, C, from, count);                                                                        \
                tile(b, shift, C, from, count);                                                                        \
            }                                                                                                          \
            for (int t = 0; t < T; t++) {                                                                              \
                float *m = potentials + t * BLOCK;                                                                     \
                const TYPE *in = current ? current + t * step + n * L + from : v + t * size + n * L + from;            \
                foresee(in + BLOCK, count * (int64_t)sizeof(TYPE));                                                    \
                if (!current)                                                                                          \
                    for (int i = 0; i < count; i++) m[i] = LOAD(in + i);                                               \
                else if (t && scale)                                                                                   \
                    again_next_scaled_##NAME(in, a, b, decay, threshold, reset, u, m, count);                          \
                else if (t)                                                                                            \
                    again_next_##NAME(in, decay, threshold, reset, u, m, count);                                       \
                else if (scale)                                                                                        \
                    again_first_scaled_##NAME(in, a, b, threshold, reset, u, m, count);                                \
                else                                                                                                   \
                    again_first_##NAME(in, threshold, reset, u, m, count);                                             \
            }                                                                                                          \
            if (first) {                                                                                               \
                tile(a, first, C, from, count);                                                                        \
                tile(b, second, C, from, count);                                                                       \
            }                                                                                                          \
            if (!grad_spikes) memset(row, 0, sizeof row);                                                              \
            for (int t = T - 1; t >= 0; t--) {                                                                         \
                int64_t at = t * size + n * L + from;                                                                  \
                float *m = potentials + t * BLOCK, *total = constant ? all + t * BLOCK : 0;                            \
                const TYPE *g = grad_spikes && !channelwise ? grad_spikes + at : 0;                                    \
                const TYPE *more = grad_membrane ? grad_membrane + at : 0;                                             \
                TYPE *out = grad_current + at;                                                                         \
                if (g) foresee(g + BLOCK, count * (int64_t)sizeof(TYPE));                                              \
                if (!constant) foresee(out + BLOCK, count * (int64_t)sizeof(TYPE));                                    \
                if (grad_spikes && channelwise && C <= BLOCK) {                                                        \
                    for (int i = 0; i < C; i++) channels[i] = LOAD(grad_spikes + (t * N + n) * C + i);                 \
                    tile(row, channels, C, from, count);                                                               \
                } else if (grad_spikes && channelwise)                                                                 \
                    for (int i = 0; i < count; i++) row[i] = LOAD(grad_spikes + (t * N + n) * C + (from + i) % C);     \
                int last = t == T - 1, usual = !more && !detach && kind == TRIANGULAR, plain = usual && g && !total;   \
                if (plain && last && first)                                                                            \
                    back_last_scaled_##NAME(m, g, u, a, b, decay, threshold, p, q, out, count);                        \
                else if (plain && last)                                                                                \
                    back_last_##NAME(m, g, u, decay, threshold, p, q, out, count);                                     \
                else if (plain && first)                                                                               \
                    back_scaled_##NAME(m, g, u, a, b, decay, threshold, reset, p, q, out, count);                      \
                else if (plain)                                                                                        \
                    back_plain_##NAME(m, g, u, decay, threshold, reset, p, q, out, count);                             \
                else if (usual && g)                                                                                   \
                    back_total_##NAME(m, g, u, decay, threshold, reset, p, q, total, count, last);                     \
                else if (usual && !total)                                                                              \
                    back_row_##NAME(m, row, u, first ? a : 0, b, decay, threshold, reset, p, q, out, count, last);     \
                else                                                                                                   \
                    back_any_##NAME(m, g, row, more, u, first ? a : 0, b, decay, threshold, reset, p, q, total, out,   \
                                    count, kind, last, detach);                                                        \
            }                                                                                                          \
            if (!constant) continue;                                                                                   \
            for (int t = 1; t < T; t++)                                                                                \
                for (int i = 0; i < count; i++) all[i] = all[i] + all[t * BLOCK + i];                                  \
            for (int i = 0; i < count; i++)                                                                            \
                STORE(grad_current + n * L + from + i, first ? all[i] * a[i] * b[i] : all[i]);                         \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    BODY void join_##NAME(const TYPE *x, const TYPE *y, float cx, float cy, const float *a, const float *b, float decay,\
                          float threshold, float reset, float *u, TYPE *sum, TYPE *spikes, int count, int first) {     \
        _Pragma("omp simd") for (int i = 0; i < count; i++) {                                                          \
            float stream = cx * LOAD(x + i) + cy * LOAD(y + i);                                                        \
            STORE(sum + i, stream);                                                                                    \
            float m = fmaf(stream, a[i], b[i]);                                                                        \
            if (!first) m = fmaf(u[i], decay, m);                                                                      \
            STORE(spikes + i, m >= threshold ? 1.0f : 0.0f);                                                           \
            u[i] = m >= threshold ? reset : m;                                                                         \
        }                                                                                                              \
    }                                                                                                                  \
    LOOP void join_first_##NAME(const TYPE *x, const TYPE *y, float cx, float cy, const float *a, const float *b,      \
                                float threshold, float reset, float *u, TYPE *sum, TYPE *spikes, int count) {          \
        join_##NAME(x, y, cx, cy, a, b, 0, threshold, reset, u, sum, spikes, count, 1);                                \
    }                                                                                                                  \
    LOOP void join_next_##NAME(const TYPE *x, const TYPE *y, float cx, float cy, const float *a, const float *b,       \
                               float decay, float threshold, float reset, float *u, TYPE *sum, TYPE *spikes,           \
                               int count) {                                                                            \
        join_##NAME(x, y, cx, cy, a, b, decay, threshold, reset, u, sum, spikes, count, 0);                            \
    }                                                                                                                  \
                                                                                                                       \
    /* The sum of a residual block, cx x + cy y, and the normalised layer that it enters, in one pass. */              \
    void join_forward_##NAME(const TYPE *x, const TYPE *y, float cx, float cy, int T, int64_t N, int64_t L, int64_t C, \
                             const float *scale, const float *shift, float decay, float threshold, float reset,        \
                             TYPE *sum, TYPE *spikes, int threads) {                                                   \
        int64_t blocks = (L + BLOCK - 1) / BLOCK, size = N * L;                                                        \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                             \
        for (int64_t job = 0; job < N * blocks; job++) {                                                               \
            int64_t n = job / blocks, from = job % blocks * BLOCK;                                                     \
            int count = L - from < BLOCK ? (int)(L - from) : BLOCK;                                                    \
            float a[BLOCK], b[BLOCK], u[BLOCK];                                                                        \
            tile(a, scale, C, from, count);                                                                            \
            tile(b, shift, C, from, count);                                                                            \
            for (int t = 0; t < T; t++) {                                                                              \
                int64_t at = t * size + n * L + from, bytes = count * (int64_t)sizeof(TYPE);                           \
                foresee(x + at + BLOCK, bytes);                                                                        \
                foresee(y + at + BLOCK, bytes);                                                                        \
                if (t)                                                                                                 \
                    join_next_##NAME(x + at, y + at, cx, cy, a, b, decay, threshold, reset, u, sum + at, spikes + at,  \
                                     count);                                                                           \
                else                                                                                                   \
                    join_first_##NAME(x + at, y + at, cx, cy, a, b, threshold, reset, u, sum + at, spikes + at, count);\
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    BODY void part_##NAME(const float *m, const TYPE *g, const float *row, const TYPE *more, float *u, const float *a, \
                          const float *b, float decay, float threshold, float reset, float p, float q, float cx,       \
                          float cy, TYPE *gx, TYPE *gy, int count, int last) {                                         \
        _Pragma("omp simd") for (int i = 0; i < count; i++) {                                                          \
            float x = m[i] - threshold, grad = g ? LOAD(g + i) : row[i];                                               \
            float through = last ? grad : u[i] * (reset - m[i]) + grad;                                                \
            float w = slope(TRIANGULAR, x, p, q) * through;                                                            \
            if (!last) w = w + (x < 0 ? u[i] : 0.0f);                                                                  \
            u[i] = w * decay;                                                                                          \
            float stream = w * a[i] * b[i];                                                                            \
            if (more) stream = stream + LOAD(more + i);                                                                \
            STORE(gx + i, cx * stream);                                                                                \
            STORE(gy + i, cy * stream);                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    LOOP void part_more_##NAME(const float *m, const TYPE *g, const TYPE *more, float *u, const float *a,              \
                               const float *b, float decay, float threshold, float reset, float p, float q, float cx,  \
                               float cy, TYPE *gx, TYPE *gy, int count, int last) {                                    \
        if (!g || !more) return;                                                                                       \
        if (last)                                                                                                      \
            part_##NAME(m, g, 0, more, u, a, b, decay, threshold, reset, p, q, cx, cy, gx, gy, count, 1);              \
        else                                                                                                           \
            part_##NAME(m, g, 0, more, u, a, b, decay, threshold, reset, p, q, cx, cy, gx, gy, count, 0);              \
    }                                                                                                                  \
    LOOP void part_alone_##NAME(const float *m, const TYPE *g, const float *row, float *u, const float *a,             \
                                const float *b, float decay, float threshold, float reset, float p, float q, float cx, \
                                float cy, TYPE *gx, TYPE *gy, int count, int last) {                                   \
        if (g && last)                                                                                                 \
            part_##NAME(m, g, 0, 0, u, a, b, decay, threshold, reset, p, q, cx, cy, gx, gy, count, 1);                 \
        else if (g)                                                                                                    \
            part_##NAME(m, g, 0, 0, u, a, b, decay, threshold, reset, p, q, cx, cy, gx, gy, count, 0);                 \
        else                                                                                                           \
            part_##NAME(m, 0, row, 0, u, a, b, decay, threshold, reset, p, q, cx, cy, gx, gy, count, last);            \
    }                                                                                                                  \
                                                                                                                       \
    /* Gradients in x and y, given that in the spikes and, or null, that in the sum from where else it went. The       \
     * surrogate is triangular, the reset is not detached. */                                                          \
    void join_backward_##NAME(const TYPE *sum, const TYPE *grad_sum, const TYPE *grad_spikes, int channelwise, float cx,\
                              float cy, int T, int64_t N, int64_t L, int64_t C, const float *scale, const float *shift,\
                              const float *first, const float *second, float decay, float threshold, float reset,      \
                              float p, float q, TYPE *grad_x, TYPE *grad_y, float *room, int threads) {                \
        int64_t blocks = (L + BLOCK - 1) / BLOCK, size = N * L;                                                        \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                             \
        for (int64_t job = 0; job < N * blocks; job++) {                                                               \
            float *potentials = room + (int64_t)omp_get_thread_num() * 2 * T * BLOCK;                                  \
            int64_t n = job / blocks, from = job % blocks * BLOCK;                                                     \
            int count = L - from < BLOCK ? (int)(L - from) : BLOCK;                                                    \
            int64_t bytes = count * (int64_t)sizeof(TYPE);                                                             \
            float a[BLOCK], b[BLOCK], u[BLOCK], row[BLOCK];                                                            \
            tile(a, scale, C, from, count);                                                                            \
            tile(b, shift, C, from, count);                                                                            \
            for (int t = 0; t < T; t++) {                                                                              \
                const TYPE *in = sum + t * size + n * L + from;                                                        \
                foresee(in + BLOCK, bytes);                                                                            \
                if (t)                                                                                                 \
                    again_next_scaled_##NAME(in, a, b, decay, threshold, reset, u, potentials + t * BLOCK, count);     \
                else                                                                                                   \
                    again_first_scaled_##NAME(in, a, b, threshold, reset, u, potentials, count);                       \
            }                                                                                                          \
            tile(a, first, C, from, count);                                                                            \
            tile(b, second, C, from, count);                                                                           \
            for (int t = T - 1; t >= 0; t--) {                                                                         \
                int64_t at = t * size + n * L + from;                                                                  \
                float *m = potentials + t * BLOCK;                                                                     \
                const TYPE *g = channelwise ? 0 : grad_spikes + at, *more = grad_sum ? grad_sum + at : 0;              \
                for (int i = 0; channelwise && i < count; i++)                                                         \
                    row[i] = LOAD(grad_spikes + (t * N + n) * C + (from + i) % C);                                     \
                if (g) foresee(g + BLOCK, bytes);                                                                      \
                if (more) foresee(more + BLOCK, bytes);                                                                \
                foresee(grad_x + at + BLOCK, bytes);                                                                   \
                foresee(grad_y + at + BLOCK, bytes);                                                                   \
                if (more && g)                                                                                         \
                    part_more_##NAME(m, g, more, u, a, b, decay, threshold, reset, p, q, cx, cy, grad_x + at,          \
                                     grad_y + at, count, t == T - 1);                                                  \
                else if (!more)                                                                                        \
                    part_alone_##NAME(m, g, row, u, a, b, decay, threshold, reset, p, q, cx, cy, grad_x + at,          \
                                      grad_y + at, count, t == T - 1);                                                 \
                else                                                                                                   \
                    part_##NAME(m, 0, row, more, u, a, b, decay, threshold, reset, p, q, cx, cy, grad_x + at,          \
                                grad_y + at, count, t == T - 1);                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }

static inline __attribute__((always_inline)) float slope(int kind, float x, float p, float q) {
    /* fabsf and one comparison: with a branch on the sign compilers split the loop by cases. */
    if (kind == TRIANGULAR) {
        float height = p - fabsf(x);
        return (0.0f > height ? 0.0f : height) * q;
    }
    if (kind == RECTANGULAR) return (fabsf(x) < p ? 1.0f : 0.0f) * q;
    float scaled = x * p;
    return 1.0f / (scaled * scaled + 1.0f) * q;
}

LAYER(f32, float, load_f32, store_f32)
LAYER(b16, bf16, load_b16, store_b16)

/* ---- the membrane constraint: sum of max(0, delta - |v - threshold|), and its gradient, see defenses/mc.py ---- */

enum { PART = 1 << 16 };

#define CLOSENESS(NAME, TYPE, LOAD, STORE)                                                                             \
    double closeness_##NAME(const TYPE *v, int64_t size, float threshold, float delta, int threads) {                  \
        int64_t parts = (size + PART - 1) / PART;                                                                      \
        /* Added part by part in one order: the same sum whatever the number of threads. */                            \
        double total = 0, *sums = calloc((size_t)parts + 1, sizeof(double));                                           \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)") for (int64_t part = 0;      \
                                                                                                part < parts;          \
                                                                                                part++) {              \
            int64_t from = part * PART, to = from + PART < size ? from + PART : size;                                  \
            double lanes[LANES] = {0};                                                                                 \
            int64_t i = from;                                                                                          \
            for (; i + LANES <= to; i += LANES)                                                                        \
                for (int j = 0; j < LANES; j++) {                                                                      \
                    float hinge = delta - fabsf(LOAD(v + i + j) - threshold);                                          \
                    lanes[j] += hinge < 0 ? 0.0f : hinge;                                                              \
                }                                                                                                      \
            for (; i < to; i++) {                                                                                      \
                float hinge = delta - fabsf(LOAD(v + i) - threshold);                                                  \
                lanes[0] += hinge < 0 ? 0.0f : hinge;                                                                  \
            }                                                                                                          \
            for (int j = 0; j < LANES; j++) sums[part] += lanes[j];                                                    \
        }                                                                                                              \
        for (int64_t part = 0; part < parts; part++) total += sums[part];                                              \
        free(sums);                                                                                                    \
        return total;                                                                                                  \
    }                                                                                                                  \
    void closeness_grad_##NAME(const TYPE *v, int64_t size, float threshold, float delta, float grad, TYPE *out,       \
                               int threads) {                                                                          \
        _Pragma("omp parallel for simd schedule(static) num_threads(threads) if (parallel: threads > 1)") for (        \
            int64_t i = 0; i < size; i++) {                                                                            \
            float x = LOAD(v + i) - threshold, size_of_x = fabsf(x);                                                   \
            float towards = x > 0 ? -grad : x < 0 ? grad : 0.0f;                                                       \
            STORE(out + i, delta - size_of_x > 0 ? towards : 0.0f);                                                    \
        }                                                                                                              \
    }

CLOSENESS(f32, float, load_f32, store_f32)
CLOSENESS(b16, bf16, load_b16, store_b16)
