// Native CPU kernels of the serving engine: SGMV for LoRA, attention of decoding rows, and the
// steps between the products of a layer.
//
// Compiled on the machine that runs them (see build.py), so -march=native decides between AVX-512,
// AVX2 and scalar code. T is float or bf16 (a uint16_t that holds the upper half of a float);
// every sum is a float. Loops are written so that the compiler vectorizes the innermost one.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <omp.h>

namespace {

struct bf16 { uint16_t bits; };

inline float up(float value) { return value; }
inline float up(bf16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

inline void down(float value, float& out) { out = value; }
inline void down(float value, bf16& out) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    out.bits = uint16_t(value != value ? 0x7fc0 : rounded);
}

template <class T> inline float dot(const float* x, const T* y, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] * up(y[i]);
    return sum;
}

// One linear's B inside a fused linear: columns [column, column + width) read ranks
// [row, row + rank) of the stacked A. `b` is (rank, width): B transposed.
struct Block { int64_t column, row, width, rank; const void* b; };

// Rows [start, stop) of the batch and their adapter. `a` is (rank, k).
struct Low {
    int64_t start, stop;
    const void* a;
    int64_t rank;
    double scale;
    int64_t blocks;
    Block block[3];
};

constexpr int64_t RANKS = 8;      // of one piece of shrinking
constexpr int64_t COLUMNS = 128;  // of one piece of expanding

// Y[s] += scale * (X[s] * A^T) * B^T for every segment s. Threads take pieces in turn: of 8 ranks
// when shrinking, of 128 columns when expanding, so one large segment is shared like many small
// ones. `scratch` holds rows * (k + most ranks) floats.
template <class T>
void sgmv(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t rows, int64_t k,
          const Low* table, int64_t segments, float* scratch, int64_t most_ranks) {
    float* wide = scratch;                // X as floats, (rows, k)
    float* shrunk = scratch + rows * k;   // X * A^T, (rows, most_ranks)
#pragma omp parallel
    {
        const int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
        int64_t piece = 0;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t i = 0; i < k; ++i) wide[row * k + i] = up(x[row * x_stride + i]);

        for (int64_t s = 0; s < segments; ++s) {
            const Low& low = table[s];
            const T* a = static_cast<const T*>(low.a);
            for (int64_t first = 0; first < low.rank; first += RANKS) {
                if (piece++ % threads != me) continue;
                const int64_t last = std::min(first + RANKS, low.rank);
                for (int64_t r = first; r < last; ++r)
                    for (int64_t row = low.start; row < low.stop; ++row)
                        shrunk[row * most_ranks + r] = dot(wide + row * k, a + r * k, k);
            }
        }
#pragma omp barrier
        piece = 0;
        for (int64_t s = 0; s < segments; ++s) {
            const Low& low = table[s];
            for (int64_t n = 0; n < low.blocks; ++n) {
                const Block& block = low.block[n];
                const T* b = static_cast<const T*>(block.b);
                for (int64_t first = 0; first < block.width; first += COLUMNS) {
                    if (piece++ % threads != me) continue;
                    const int64_t width = std::min(COLUMNS, block.width - first);
                    for (int64_t row = low.start; row < low.stop; ++row) {
                        const float* part = shrunk + row * most_ranks + block.row;
                        float sum[COLUMNS] = {};
                        for (int64_t r = 0; r < block.rank; ++r) {
                            const T* line = b + r * block.width + first;
                            for (int64_t c = 0; c < width; ++c) sum[c] += part[r] * up(line[c]);
                        }
                        T* out = y + row * y_stride + block.column + first;
                        const float scale = float(low.scale);
                        for (int64_t c = 0; c < width; ++c)
                            down(up(out[c]) + scale * sum[c], out[c]);
                    }
                }
            }
        }
    }
}

// Attention of rows that hold a sequence's newest token: rotates queries and keys, writes key and
// value to the row's slot, attends over the slot up to its position.
//
// qkv: (rows of the step, heads + 2 * kv, dim); cos, sin: (context, dim), rotate-half's sign folded
// into sin; keys, values: (slots, kv, context, dim); out: (rows of the step, heads, dim).
template <class T>
void attend(const T* qkv, const T* cos, const T* sin, const int64_t* rows, int64_t count,
            const int64_t* positions, const int64_t* slots, int64_t heads, int64_t kv, int64_t dim,
            int64_t context, T* keys, T* values, T* out) {
    const int64_t group = heads / kv, half = dim / 2;
    const float norm = 1.0f / std::sqrt(float(dim));
#pragma omp parallel
    {
        std::vector<float> scores, query(group * dim), mixed(group * dim);
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t i = 0; i < count; ++i)
            for (int64_t h = 0; h < kv; ++h) {
                const int64_t row = rows[i], position = positions[row], length = position + 1;
                const T* from = qkv + row * (heads + 2 * kv) * dim;
                const T *c = cos + position * dim, *s = sin + position * dim;
                const auto rotated = [&](const T* head, int64_t d) {
                    return up(head[d]) * up(c[d]) + up(head[(d + half) % dim]) * up(s[d]);
                };
                T* slot_keys = keys + (slots[row] * kv + h) * context * dim;
                T* slot_values = values + (slots[row] * kv + h) * context * dim;
                for (int64_t d = 0; d < dim; ++d) {
                    down(rotated(from + (heads + h) * dim, d), slot_keys[position * dim + d]);
                    slot_values[position * dim + d] = from[(heads + kv + h) * dim + d];
                }
                for (int64_t g = 0; g < group; ++g)
                    for (int64_t d = 0; d < dim; ++d)
                        query[g * dim + d] = rotated(from + (h * group + g) * dim, d) * norm;

                scores.resize(group * length);
                for (int64_t t = 0; t < length; ++t)
                    for (int64_t g = 0; g < group; ++g)
                        scores[g * length + t] = dot(&query[g * dim], slot_keys + t * dim, dim);
                for (int64_t g = 0; g < group; ++g) {
                    float* row_scores = &scores[g * length];
                    const float top = *std::max_element(row_scores, row_scores + length);
                    float total = 0;
                    for (int64_t t = 0; t < length; ++t)
                        total += row_scores[t] = std::exp(row_scores[t] - top);
                    for (int64_t t = 0; t < length; ++t) row_scores[t] /= total;
                }
                std::fill(mixed.begin(), mixed.end(), 0.0f);
                for (int64_t t = 0; t < length; ++t)
                    for (int64_t g = 0; g < group; ++g) {
                        const float weight = scores[g * length + t];
                        for (int64_t d = 0; d < dim; ++d)
                            mixed[g * dim + d] += weight * up(slot_values[t * dim + d]);
                    }
                T* to = out + (row * heads + h * group) * dim;
                for (int64_t d = 0; d < group * dim; ++d) down(mixed[d], to[d]);
            }
    }
}

// x += delta (where there is one), then out = x / rms(x) * weight. x, delta and out are (rows, n).
template <class T>
void add_rms_norm(T* x, const T* delta, const T* weight, T* out, int64_t rows, int64_t n,
                  float epsilon) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        T* line = x + row * n;
        if (delta != nullptr)
            for (int64_t i = 0; i < n; ++i) down(up(line[i]) + up(delta[row * n + i]), line[i]);
        float squares = 0;
        for (int64_t i = 0; i < n; ++i) squares += up(line[i]) * up(line[i]);
        const float inverse = 1.0f / std::sqrt(squares / float(n) + epsilon);
        for (int64_t i = 0; i < n; ++i)
            down(up(line[i]) * inverse * up(weight[i]), out[row * n + i]);
    }
}

// out = silu(gate) * up for gate_up (rows, 2 * n): the gate's columns first.
template <class T> void silu_mul(const T* gate_up, T* out, int64_t rows, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = 0; i < n; ++i) {
            const float gate = up(gate_up[row * 2 * n + i]);
            down(gate / (1.0f + std::exp(-gate)) * up(gate_up[row * 2 * n + n + i]),
                 out[row * n + i]);
        }
}

}  // namespace

#define KERNELS(NAME, T)                                                                          \
    void sgmv_##NAME(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t rows,          \
                     int64_t k, const Low* table, int64_t segments, float* scratch,               \
                     int64_t most_ranks) {                                                        \
        sgmv(y, y_stride, x, x_stride, rows, k, table, segments, scratch, most_ranks);            \
    }                                                                                             \
    void attend_##NAME(const T* qkv, const T* cos, const T* sin, const int64_t* rows,             \
                       int64_t count, const int64_t* positions, const int64_t* slots,             \
                       int64_t heads, int64_t kv, int64_t dim, int64_t context, T* keys,          \
                       T* values, T* out) {                                                       \
        attend(qkv, cos, sin, rows, count, positions, slots, heads, kv, dim, context, keys,       \
               values, out);                                                                      \
    }                                                                                             \
    void add_rms_norm_##NAME(T* x, const T* delta, const T* weight, T* out, int64_t rows,         \
                             int64_t n, float epsilon) {                                          \
        add_rms_norm(x, delta, weight, out, rows, n, epsilon);                                    \
    }                                                                                             \
    void silu_mul_##NAME(const T* gate_up, T* out, int64_t rows, int64_t n) {                     \
        silu_mul(gate_up, out, rows, n);                                                          \
    }

extern "C" {
KERNELS(float32, float)
KERNELS(bfloat16, bf16)
}
