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

constexpr int64_t COLUMNS = 1024;  // that are expanded at once, at most
constexpr int64_t TALL = 16;       // rows that are expanded at once, at most

// One call, whose parts may be done by any thread, in this order for each segment.
template <class T, class W> struct Call {
    T* y;
    int64_t y_stride;
    const T* x;
    int64_t x_stride, k;
    float* wide;    // X as floats, (rows, k)
    float* shrunk;  // scale * X * A^T, (rows, most_ranks)
    int64_t most_ranks;

    void widen(const Low& low) const {
        for (int64_t row = low.start; row < low.stop; ++row)
            for (int64_t i = 0; i < k; ++i) wide[row * k + i] = up(x[row * x_stride + i]);
    }

    void shrink_to(const Low& low, int64_t first, int64_t last) const {
        const W* a = static_cast<const W*>(low.a);
        tiled(low.stop - low.start, [&](int64_t i, auto rows_at_once) {
            const int64_t row = low.start + i;
            tiled(last - first, [&](int64_t j, auto ranks_at_once) {
                shrink<rows_at_once, ranks_at_once>(wide + row * k, a + (first + j) * k, k,
                                                    shrunk + row * most_ranks + first + j,
                                                    most_ranks);
            });
        });
        for (int64_t row = low.start; row < low.stop; ++row)
            for (int64_t j = first; j < last; ++j)
                shrunk[row * most_ranks + j] *=
                    float(low.scale) * (low.factors == nullptr ? 1.0f : low.factors[j]);
    }

    // Columns [first, first + width) of a block; `total` has room for TALL rows of them.
    void expand_to(const Low& low, const Block& block, int64_t first, int64_t width,
                   float* total) const {
        const W* b = static_cast<const W*>(block.b) + first;
        for (int64_t top = low.start; top < low.stop; top += TALL) {
            const int64_t tall = std::min(TALL, low.stop - top);
            std::fill(total, total + tall * width, 0.0f);
            const float* part = shrunk + top * most_ranks + block.row;
            tiled(block.rank, [&](int64_t j, auto ranks_at_once) {
                tiled(tall, [&](int64_t i, auto rows_at_once) {
                    expand<rows_at_once, ranks_at_once>(
                        total + i * width, width, part + i * most_ranks + j, most_ranks,
                        b + j * block.width, block.width, width);
                });
            });
            for (int64_t i = 0; i < tall; ++i) {
                T* to = y + (top + i) * y_stride + block.column + first;
                for (int64_t c = 0; c < width; ++c) down(up(to[c]) + total[i * width + c], to[c]);
            }
        }
    }
};

// Many segments: each thread takes whole ones, and nobody waits.
template <class T, class W>
void one_by_one(const Call<T, W>& call, const Low* table, int64_t segments) {
#pragma omp parallel
    {
        alignas(64) float total[TALL * COLUMNS];
#pragma omp for schedule(dynamic)
        for (int64_t s = 0; s < segments; ++s) {
            const Low& low = table[s];
            call.widen(low);
            call.shrink_to(low, 0, low.rank);
            for (int64_t n = 0; n < low.blocks; ++n)
                for (int64_t first = 0; first < low.block[n].width; first += COLUMNS)
                    call.expand_to(low, low.block[n], first,
                                   std::min(COLUMNS, low.block[n].width - first), total);
        }
    }
}

// A few segments: the threads share each, 8 ranks at a time when shrinking, and some columns when
// expanding.
template <class T, class W>
void in_pieces(const Call<T, W>& call, const Low* table, int64_t segments) {
    constexpr int64_t RANKS = 8, SOME = COLUMNS / 8;
    Pieces shrinks, expands;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t s = 0; s < segments; ++s) call.widen(table[s]);

        int64_t piece = 0, mine = shrinks.take();
        for (int64_t s = 0; s < segments; ++s)
            for (int64_t first = 0; first < table[s].rank; first += RANKS) {
                if (piece++ != mine) continue;
                mine = shrinks.take();
                call.shrink_to(table[s], first, std::min(first + RANKS, table[s].rank));
            }
#pragma omp barrier
        alignas(64) float total[TALL * SOME];
        piece = 0, mine = expands.take();
        for (int64_t s = 0; s < segments; ++s)
            for (int64_t n = 0; n < table[s].blocks; ++n) {
                const Block& block = table[s].block[n];
                for (int64_t first = 0; first < block.width; first += SOME) {
                    if (piece++ != mine) continue;
                    mine = expands.take();
                    call.expand_to(table[s], block, first, std::min(SOME, block.width - first),
                                   total);
                }
            }
    }
}

// Y[s] += scale * (X[s] * A^T) * B^T for every segment s. `scratch` holds rows * (k + most ranks)
// floats.
template <class T, class W>
void sgmv(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t rows, int64_t k,
          const Low* table, int64_t segments, float* scratch, int64_t most_ranks) {
    const Call<T, W> call{y, y_stride, x, x_stride, k, scratch, scratch + rows * k, most_ranks};
    const bool many = segments >= 4 * omp_get_max_threads();
    many ? one_by_one(call, table, segments) : in_pieces(call, table, segments);
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
