// SGMV for LoRA where an adapter has few rows: those that decode. Reading its weights once is the
// whole cost.

#include "lora.h"

namespace {

// y[i] += sum over j of part[i][j] * b[j] for I rows and J ranks over `width` columns. Ranks are the
// rows of b, so that memory is read in long runs; y rests in the first-level cache.
template <int I, int J, class W>
inline void expand(float* y, int64_t y_stride, const float* part, int64_t part_stride, const W* b,
                   int64_t b_stride, int64_t width) {
    int64_t c = 0;
    for (; c + LANES <= width; c += LANES) {
        floats lines[J];
        for (int j = 0; j < J; ++j) {
            __builtin_prefetch(b + (j + J) * b_stride + c);
            lines[j] = load(b + j * b_stride + c);
        }
        for (int i = 0; i < I; ++i) {
            floats total = load(y + i * y_stride + c);
            for (int j = 0; j < J; ++j) total += part[i * part_stride + j] * lines[j];
            store(total, y + i * y_stride + c);
        }
    }
    for (; c < width; ++c)
        for (int i = 0; i < I; ++i)
            for (int j = 0; j < J; ++j)
                y[i * y_stride + c] += part[i * part_stride + j] * up(b[j * b_stride + c]);
}

constexpr int64_t RANKS = 8;       // of one piece of shrinking
constexpr int64_t COLUMNS = 1024;  // of one piece of expanding, at most
constexpr int64_t TALL = 16;       // rows of one piece of expanding, at most

// Y[s] += scale * (X[s] * A^T) * B^T for every segment s. Pieces are 8 ranks when shrinking, and
// columns when expanding: whole blocks where there are many, fewer columns where one large segment
// must be shared. `scratch` holds rows * (k + most ranks) floats.
template <class T, class W>
void sgmv(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t rows, int64_t k,
          const Low* table, int64_t segments, float* scratch, int64_t most_ranks) {
    float* wide = scratch;                // X as floats, (rows, k)
    float* shrunk = scratch + rows * k;   // X * A^T, (rows, most_ranks)
    Pieces shrinks, expands;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t s = 0; s < segments; ++s)
            for (int64_t row = table[s].start; row < table[s].stop; ++row)
                for (int64_t i = 0; i < k; ++i) wide[row * k + i] = up(x[row * x_stride + i]);

        int64_t piece = 0, mine = shrinks.take();
        for (int64_t s = 0; s < segments; ++s) {
            const Low& low = table[s];
            const W* a = static_cast<const W*>(low.a);
            for (int64_t first = 0; first < low.rank; first += RANKS) {
                if (piece++ != mine) continue;
                mine = shrinks.take();
                const int64_t last = std::min(first + RANKS, low.rank);
                tiled(low.stop - low.start, [&](int64_t i, auto rows_at_once) {
                    const int64_t row = low.start + i;
                    tiled(last - first, [&](int64_t j, auto ranks_at_once) {
                        shrink<rows_at_once, ranks_at_once>(
                            wide + row * k, a + (first + j) * k, k,
                            shrunk + row * most_ranks + first + j, most_ranks);
                    });
                });
                for (int64_t row = low.start; row < low.stop; ++row)
                    for (int64_t j = first; j < last; ++j)
                        shrunk[row * most_ranks + j] *=
                            float(low.scale) * (low.factors == nullptr ? 1.0f : low.factors[j]);
            }
        }
#pragma omp barrier
        const bool few = segments < 2 * omp_get_num_threads();
        const int64_t columns = few ? COLUMNS / 8 : COLUMNS;
        alignas(64) float total[TALL * COLUMNS];
        piece = 0, mine = expands.take();
        for (int64_t s = 0; s < segments; ++s) {
            const Low& low = table[s];
            for (int64_t n = 0; n < low.blocks; ++n) {
                const Block& block = low.block[n];
                for (int64_t first = 0; first < block.width; first += columns) {
                    if (piece++ != mine) continue;
                    mine = expands.take();
                    const W* b = static_cast<const W*>(block.b) + first;
                    const int64_t width = std::min(columns, block.width - first);
                    for (int64_t top = low.start; top < low.stop; top += TALL) {
                        const int64_t tall = std::min(TALL, low.stop - top);
                        std::fill(total, total + tall * columns, 0.0f);
                        const float* part = shrunk + top * most_ranks + block.row;
                        tiled(block.rank, [&](int64_t j, auto ranks_at_once) {
                            tiled(tall, [&](int64_t i, auto rows_at_once) {
                                expand<rows_at_once, ranks_at_once>(
                                    total + i * columns, columns, part + i * most_ranks + j,
                                    most_ranks, b + j * block.width, block.width, width);
                            });
                        });
                        for (int64_t i = 0; i < tall; ++i) {
                            T* to = y + (top + i) * y_stride + block.column + first;
                            for (int64_t c = 0; c < width; ++c)
                                down(up(to[c]) + total[i * columns + c], to[c]);
                        }
                    }
                }
            }
        }
    }
}

}  // namespace

#define SGMV(NAME, T, W)                                                                          \
    void sgmv_##NAME(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t rows,          \
                     int64_t k, const Low* table, int64_t segments, float* scratch,               \
                     int64_t most_ranks) {                                                        \
        sgmv<T, W>(y, y_stride, x, x_stride, rows, k, table, segments, scratch, most_ranks);      \
    }

extern "C" {
SGMV(float32, float, float)
SGMV(float32_int8, float, int8_t)
SGMV(bfloat16, bf16, bf16)
SGMV(bfloat16_int8, bf16, int8_t)
}
