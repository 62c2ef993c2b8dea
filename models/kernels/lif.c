/* One leaky integrate-and-fire layer over all its time steps: forward, backward, and the noise inside it.
 *
 * The arithmetic is that of the torch operations in models/lif.py, in their order: compiled with -ffp-contract=off,
 * so that a multiplication and an addition are two roundings, and with fmaf where torch fuses them. The results are
 * the same bits. Tensors are dense; the innermost axis is the channel. bf16 is a storage format: all sums are float.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, GROUP = 64, LANES = 16, STEP_BITS = 24 };
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

#define FORWARD(NAME, TYPE, LOAD, STORE)                                                                               \
    void NAME(const TYPE *current, int64_t step, int T, int64_t N, int64_t L, int64_t C, const float *scale,           \
              const float *shift, float decay, float threshold, float reset, const float *noise, int generate,         \
              uint64_t key, uint32_t stream, const int64_t *samples, const int64_t *draws, float sigma, TYPE *spikes,  \
              TYPE *v, TYPE *before, int threads) {                                                                    \
        int64_t blocks = (L + BLOCK - 1) / BLOCK, size = N * L;                                                        \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)") for (int64_t job = 0;       \
                                                                                                job < N * blocks;      \
                                                                                                job++) {               \
            int64_t n = job / blocks, from = job % blocks * BLOCK;                                                     \
            int count = L - from < BLOCK ? (int)(L - from) : BLOCK;                                                    \
            float a[BLOCK], b[BLOCK], u[BLOCK], w[BLOCK], z[BLOCK];                                                    \
            if (scale) {                                                                                               \
                tile(a, scale, C, from, count);                                                                        \
                tile(b, shift, C, from, count);                                                                        \
            }                                                                                                          \
            for (int t = 0; t < T; t++) {                                                                              \
                const TYPE *in = current + t * step + n * L + from;                                                    \
                int64_t at = t * size + n * L + from;                                                                  \
                if (scale)                                                                                             \
                    for (int i = 0; i < count; i++) w[i] = fmaf(LOAD(in + i), a[i], b[i]);                             \
                else                                                                                                   \
                    for (int i = 0; i < count; i++) w[i] = LOAD(in + i);                                               \
                if (t)                                                                                                 \
                    for (int i = 0; i < count; i++) w[i] = fmaf(u[i], decay, w[i]);                                    \
                if (before)                                                                                            \
                    for (int i = 0; i < count; i++) STORE(before + at + i, w[i]);                                      \
                if (generate) {                                                                                        \
                    for (int g = 0; g < count; g += GROUP)                                                             \
                        normals(z + g, ((uint32_t)t << STEP_BITS) + (uint32_t)((from + g) / GROUP * LANES), stream,    \
                                (uint32_t)samples[n], (uint32_t)draws[n], key);                                        \
                    for (int i = 0; i < count; i++) w[i] = w[i] + z[i] * sigma;                                        \
                } else if (noise)                                                                                      \
                    for (int i = 0; i < count; i++) w[i] = w[i] + noise[at + i];                                       \
                for (int i = 0; i < count; i++) {                                                                      \
                    float s = w[i] >= threshold ? 1.0f : 0.0f;                                                         \
                    STORE(spikes + at + i, s);                                                                         \
                    if (v) STORE(v + at + i, w[i]);                                                                    \
                    u[i] = w[i] >= threshold ? reset : w[i];                                                           \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

FORWARD(forward_f32, float, load_f32, store_f32)
FORWARD(forward_b16, bf16, load_b16, store_b16)

static inline __attribute__((always_inline)) float slope(int kind, float x, float p, float q) {
    float size = x < 0 ? -x : x;
    if (kind == TRIANGULAR) {
        float height = -size + p;
        return (height < 0 ? 0.0f : height) * q;
    }
    if (kind == RECTANGULAR) return (size < p ? 1.0f : 0.0f) * q;
    float scaled = x * p;
    return 1.0f / (scaled * scaled + 1.0f) * q;
}

#define STEP_BACK(KIND)                                                                                                \
    for (int i = 0; i < count; i++) {                                                                                  \
        float potential = m[i], x = potential - threshold;                                                             \
        float decayed = t + 1 < T && x < 0 ? u[i] : 0.0f;                                                              \
        float through = t + 1 < T && !detach ? u[i] * (reset - potential) + g[i] : g[i];                               \
        float out = slope(KIND, x, p, q) * through;                                                                    \
        w[i] = t + 1 < T ? out + decayed : out;                                                                        \
    }

/* The potentials are either given as `v`, or simulated once more from `current`: reading that again is cheaper than
 * writing and reading `v`, unless there is noise to draw. With `channelwise` the gradient in the spikes is one number a
 * channel, [T, N, C]. With `constant` the gradient [1, N, L] is the sum over time, first step first. */
#define BACKWARD(NAME, TYPE, LOAD, STORE)                                                                              \
    void NAME(const TYPE *v, const TYPE *current, int64_t step, const float *scale, const float *shift,                \
              const TYPE *grad_spikes, int channelwise, const TYPE *grad_membrane, int T, int64_t N, int64_t L,        \
              int64_t C, const float *first, const float *second, float decay, float threshold, float reset,           \
              int detach, int kind, float p, float q, int constant, TYPE *grad_current, int threads) {                 \
        int64_t blocks = (L + BLOCK - 1) / BLOCK, size = N * L;                                                        \
        _Pragma("omp parallel num_threads(threads) if (threads > 1)") {                                                \
            float *potentials = malloc(sizeof(float) * BLOCK * (size_t)T);                                             \
            float *all = constant ? malloc(sizeof(float) * BLOCK * (size_t)T) : 0;                                     \
            _Pragma("omp for schedule(static)") for (int64_t job = 0; job < N * blocks; job++) {                       \
                int64_t n = job / blocks, from = job % blocks * BLOCK;                                                 \
                int count = L - from < BLOCK ? (int)(L - from) : BLOCK;                                                \
                float a[BLOCK], b[BLOCK], u[BLOCK], own[BLOCK], g[BLOCK], row[BLOCK];                                  \
                if (current && scale) {                                                                                \
                    tile(a, scale, C, from, count);                                                                    \
                    tile(b, shift, C, from, count);                                                                    \
                }                                                                                                      \
                for (int t = 0; t < T; t++) {                                                                          \
                    float *m = potentials + t * BLOCK;                                                                 \
                    const TYPE *in = current ? current + t * step + n * L + from : v + t * size + n * L + from;        \
                    if (current && scale)                                                                              \
                        for (int i = 0; i < count; i++) m[i] = fmaf(LOAD(in + i), a[i], b[i]);                         \
                    else                                                                                               \
                        for (int i = 0; i < count; i++) m[i] = LOAD(in + i);                                           \
                    if (!current) continue;                                                                            \
                    if (t)                                                                                             \
                        for (int i = 0; i < count; i++) m[i] = fmaf(u[i], decay, m[i]);                                \
                    for (int i = 0; i < count; i++) u[i] = m[i] >= threshold ? reset : m[i];                           \
                }                                                                                                      \
                memset(u, 0, sizeof u);                                                                                \
                if (first) {                                                                                           \
                    tile(a, first, C, from, count);                                                                    \
                    tile(b, second, C, from, count);                                                                   \
                }                                                                                                      \
                for (int t = T - 1; t >= 0; t--) {                                                                     \
                    int64_t at = t * size + n * L + from;                                                              \
                    float *w = constant ? all + t * BLOCK : own, *m = potentials + t * BLOCK;                          \
                    if (!grad_spikes)                                                                                  \
                        memset(g, 0, sizeof g);                                                                        \
                    else if (channelwise) {                                                                            \
                        if (C <= BLOCK) {                                                                              \
                            for (int i = 0; i < C; i++) row[i] = LOAD(grad_spikes + (t * N + n) * C + i);              \
                            tile(g, row, C, from, count);                                                              \
                        } else                                                                                         \
                            for (int i = 0; i < count; i++)                                                            \
                                g[i] = LOAD(grad_spikes + (t * N + n) * C + (from + i) % C);                           \
                    } else                                                                                             \
                        for (int i = 0; i < count; i++) g[i] = LOAD(grad_spikes + at + i);                             \
                    if (kind == TRIANGULAR)                                                                            \
                        STEP_BACK(TRIANGULAR)                                                                          \
                    else if (kind == RECTANGULAR)                                                                      \
                        STEP_BACK(RECTANGULAR)                                                                         \
                    else                                                                                               \
                        STEP_BACK(ARCTAN)                                                                              \
                    if (grad_membrane)                                                                                 \
                        for (int i = 0; i < count; i++) w[i] = w[i] + LOAD(grad_membrane + at + i);                    \
                    for (int i = 0; i < count; i++) u[i] = w[i] * decay;                                               \
                    if (constant) continue;                                                                            \
                    if (first)                                                                                         \
                        for (int i = 0; i < count; i++) STORE(grad_current + at + i, w[i] * a[i] * b[i]);              \
                    else                                                                                               \
                        for (int i = 0; i < count; i++) STORE(grad_current + at + i, w[i]);                            \
                }                                                                                                      \
                if (!constant) continue;                                                                               \
                for (int t = 1; t < T; t++)                                                                            \
                    for (int i = 0; i < count; i++) all[i] = all[i] + all[t * BLOCK + i];                              \
                for (int i = 0; i < count; i++) {                                                                      \
                    float total = first ? all[i] * a[i] * b[i] : all[i];                                               \
                    STORE(grad_current + n * L + from + i, total);                                                     \
                }                                                                                                      \
            }                                                                                                          \
            free(all);                                                                                                 \
            free(potentials);                                                                                          \
        }                                                                                                              \
    }

BACKWARD(backward_f32, float, load_f32, store_f32)
BACKWARD(backward_b16, bf16, load_b16, store_b16)

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
