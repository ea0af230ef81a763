// SGMV for LoRA where an adapter has many rows: those of prompts. A block of rows goes through both
// products at once: a strip of the weights is brought into the form that the processor multiplies,
// and serves all rows of the block from the nearest cache. Weights of eight bits are widened strip by
// strip as well. Blocks are independent, so that threads share them without waiting.
//
// `Floats` runs anywhere and accumulates in registers of floats; `Tiles` takes bf16 rows where the
// processor multiplies matrices of them (AMX) and rounds X * A^T to bf16 in between, as torch does.

#include "lora.h"
#include "tiles.h"

namespace {

// Memory of one thread that grows, and is kept from call to call; what it holds is not.
class Room {
  public:
    template <class V> V* of(int64_t count) {
        const size_t wanted = count * sizeof(V) + 64;
        if (kept_.size() < wanted) kept_.resize(wanted);
        return reinterpret_cast<V*>((reinterpret_cast<uintptr_t>(kept_.data()) + 63) / 64 * 64);
    }

  private:
    std::vector<char> kept_;
};

inline float factor(const Low& low, int64_t rank) {
    return float(low.scale) * (low.factors == nullptr ? 1.0f : low.factors[rank]);
}

inline int64_t up_to(int64_t multiple, int64_t value) {
    return (value + multiple - 1) / multiple * multiple;
}

// y[c] += more[c]
template <class T> inline void add(const float* more, T* y, int64_t count) {
    int64_t c = 0;
    for (; c + LANES <= count; c += LANES) store(load(y + c) + load(more + c), y + c);
    for (; c < count; ++c) down(up(y[c]) + more[c], y[c]);
}

constexpr int64_t COLUMNS = 64;  // of a strip

// out (rows, ranks) = wide (rows, k) * lines (ranks, k) transposed; out's rows are `stride` apart.
void shrink_all(const float* wide, int64_t rows, const float* lines, int64_t ranks, int64_t k,
                float* out, int64_t stride) {
    tiled(ranks, [&](int64_t j, auto ranks_at_once) {
        tiled(rows, [&](int64_t i, auto rows_at_once) {
            shrink<rows_at_once, ranks_at_once>(wide + i * k, lines + j * k, k,
                                                out + i * stride + j, stride);
        });
    });
}

// sums (rows, COLUMNS) = part (rows, ranks) * lines (ranks, COLUMNS); part's rows are `stride` apart.
void expand_all(const float* part, int64_t stride, int64_t rows, const float* lines, int64_t ranks,
                float* sums) {
    tiled(rows, [&](int64_t top, auto rows_at_once) {
        constexpr int I = rows_at_once, V = COLUMNS / LANES;
        floats totals[I][V] = {};
        for (int64_t j = 0; j < ranks; ++j)
            for (int v = 0; v < V; ++v) {
                const floats line = load(lines + j * COLUMNS + v * LANES);
                for (int i = 0; i < I; ++i) totals[i][v] += part[(top + i) * stride + j] * line;
            }
        for (int i = 0; i < I; ++i)
            for (int v = 0; v < V; ++v)
                store(totals[i][v], sums + (top + i) * COLUMNS + v * LANES);
    });
}

template <class T, class W> class Floats {
  public:
    static constexpr int64_t TALLEST = 64;  // rows of a block; as floats they fit the nearer caches

    // One block: `rows` rows of x and y, from their first on.
    void operator()(const Low& low, const T* x, int64_t x_stride, int64_t k, int64_t rows, T* y,
                    int64_t y_stride) {
        float* wide = wide_.of<float>(rows * k);
        for (int64_t i = 0; i < rows; ++i) widen(x + i * x_stride, wide + i * k, k);
        float* shrunk = shrunk_.of<float>(rows * low.rank);
        float* lines = strip_.of<float>(std::max(4 * k, low.rank * COLUMNS));
        for (int64_t first = 0; first < low.rank; first += 4) {
            const int64_t ranks = std::min<int64_t>(4, low.rank - first);
            widen(static_cast<const W*>(low.a) + first * k, lines, ranks * k);
            shrink_all(wide, rows, lines, ranks, k, shrunk + first, low.rank);
        }
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < low.rank; ++j) shrunk[i * low.rank + j] *= factor(low, j);
        float* sums = sums_.of<float>(rows * COLUMNS);
        for (int64_t n = 0; n < low.blocks; ++n) {
            const Block& block = low.block[n];
            for (int64_t first = 0; first < block.width; first += COLUMNS) {
                const int64_t width = std::min(COLUMNS, block.width - first);
                for (int64_t j = 0; j < block.rank; ++j) {
                    const W* b = static_cast<const W*>(block.b) + j * block.width + first;
                    widen(b, lines + j * COLUMNS, width);
                    std::fill(lines + j * COLUMNS + width, lines + (j + 1) * COLUMNS, 0.0f);
                }
                expand_all(shrunk + block.row, low.rank, rows, lines, block.rank, sums);
                for (int64_t i = 0; i < rows; ++i)
                    add(sums + i * COLUMNS, y + i * y_stride + block.column + first, width);
            }
        }
    }

  private:
    template <class V> static void widen(const V* from, float* to, int64_t count) {
        int64_t c = 0;
        for (; c + LANES <= count; c += LANES) store(load(from + c), to + c);
        for (; c < count; ++c) to[c] = up(from[c]);
    }

    Room wide_, shrunk_, strip_, sums_;
};

#ifdef TILES
template <class W> class Tiles {
  public:
    static constexpr int64_t TALLEST = 256;

    // As Floats does.
    void operator()(const Low& low, const bf16* x, int64_t x_stride, int64_t k, int64_t rows,
                    bf16* y, int64_t y_stride) {
        const int64_t padded = up_to(32, k), tall = up_to(16, rows), ranks = up_to(16, low.rank);
        bf16* rows_of_x = x_.of<bf16>(tall * padded);
        for (int64_t i = 0; i < tall; ++i) {
            bf16* to = rows_of_x + i * padded;
            if (i < rows) std::memcpy(to, x + i * x_stride, k * sizeof(bf16));
            std::memset(to + (i < rows ? k : 0), 0, (padded - (i < rows ? k : 0)) * sizeof(bf16));
        }
        float* shrunk = shrunk_.of<float>(tall * ranks);
        uint32_t* strip = strip_.of<uint32_t>(padded / 32 * TILE);
        for (int64_t first = 0; first < ranks; first += 16) {
            turn(static_cast<const W*>(low.a) + first * k, std::min<int64_t>(16, low.rank - first),
                 k, strip);
            multiply(rows_of_x, padded, tall / 16, strip, TILE, shrunk + first, ranks);
        }
        for (int64_t n = 0; n < low.blocks; ++n) {
            const Block& block = low.block[n];
            const int64_t deep = up_to(32, block.rank);
            bf16* part = part_.of<bf16>(tall * deep);
            std::memset(part, 0, tall * deep * sizeof(bf16));
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < block.rank; ++j)
                    down(shrunk[i * ranks + block.row + j] * factor(low, block.row + j),
                         part[i * deep + j]);
            uint32_t* lines = strip_.of<uint32_t>(deep / 32 * 2 * TILE);
            float* sums = sums_.of<float>(tall * 32);
            for (int64_t first = 0; first < block.width; first += 32) {
                const int64_t width = std::min<int64_t>(32, block.width - first);
                pair(static_cast<const W*>(block.b) + first, block.rank, block.width, width, lines);
                for (int64_t half = 0; half < 32; half += 16)
                    multiply(part, deep, tall / 16, lines + half / 16 * TILE, 2 * TILE,
                             sums + half, 32);
                for (int64_t i = 0; i < rows; ++i)
                    add(sums + i * 32, y + i * y_stride + block.column + first, width);
            }
        }
    }

  private:
    static constexpr int64_t TILE = 256;  // of pairs

    // 32 values from `from` on as bf16, zeros beyond `count` of them. Eight bits lose nothing.
    static __m512i line(const bf16* from, int64_t count) {
        return _mm512_maskz_loadu_epi16(leading(count), from);
    }
    static __m512i line(const int8_t* from, int64_t count) {
        const __m256i bytes = _mm256_maskz_loadu_epi8(leading(count), from);
        const auto floats_of = [](__m128i part) {
            return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(part));
        };
        return (__m512i)_mm512_cvtne2ps_pbh(floats_of(_mm256_extracti128_si256(bytes, 1)),
                                            floats_of(_mm256_castsi256_si128(bytes)));
    }
    static __mmask32 leading(int64_t count) {
        return count >= 32 ? ~__mmask32(0) : (__mmask32(1) << count) - 1;
    }

    // `lines` (up to 16) rows of k values → tiles of their transposed pairs.
    static void turn(const W* rows, int64_t lines, int64_t k, uint32_t* tiles) {
        for (int64_t c = 0; c < k; c += 32, tiles += TILE) {
            __m512i r[16], t[16];
            for (int64_t j = 0; j < 16; ++j)
                r[j] = j < lines ? line(rows + j * k + c, k - c) : _mm512_setzero_si512();
            for (int i = 0; i < 16; i += 2) {
                t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
                t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
            }
            for (int i = 0; i < 16; i += 4) {
                r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
                r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
                r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
                r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
            }
            for (int i = 0; i < 4; ++i) {
                const __m512i even_top = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
                const __m512i even_low = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
                const __m512i odd_top = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
                const __m512i odd_low = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
                put(_mm512_shuffle_i32x4(even_top, even_low, 0x88), tiles + i * 16);
                put(_mm512_shuffle_i32x4(odd_top, odd_low, 0x88), tiles + (4 + i) * 16);
                put(_mm512_shuffle_i32x4(even_top, even_low, 0xdd), tiles + (8 + i) * 16);
                put(_mm512_shuffle_i32x4(odd_top, odd_low, 0xdd), tiles + (12 + i) * 16);
            }
        }
    }

    // `ranks` rows of up to 32 columns → for every 32 ranks, a tile of pairs of the left 16 columns,
    // and one of the right.
    static void pair(const W* rows, int64_t ranks, int64_t stride, int64_t width, uint32_t* tiles) {
        alignas(64) uint16_t left[32], right[32];
        for (int i = 0; i < 16; ++i) {
            left[2 * i] = i, left[2 * i + 1] = 32 + i;
            right[2 * i] = 16 + i, right[2 * i + 1] = 48 + i;
        }
        const __m512i to_left = _mm512_load_si512(left), to_right = _mm512_load_si512(right);
        const __m512i none = _mm512_setzero_si512();
        for (int64_t j = 0; j < up_to(32, ranks); j += 2) {
            const __m512i upper = j < ranks ? line(rows + j * stride, width) : none;
            const __m512i lower = j + 1 < ranks ? line(rows + (j + 1) * stride, width) : none;
            uint32_t* to = tiles + j / 32 * 2 * TILE + j % 32 / 2 * 16;
            put(_mm512_permutex2var_epi16(upper, to_left, lower), to);
            put(_mm512_permutex2var_epi16(upper, to_right, lower), to + TILE);
        }
    }

    static void put(__m512i values, uint32_t* to) { _mm512_storeu_si512(to, values); }

    // out (count * 16 rows, 16 columns) = left (count * 16 rows, deep) * tiles.
    static void multiply(const bf16* left, int64_t deep, int64_t count, const uint32_t* tiles,
                         int64_t tile_stride, float* out, int64_t out_stride) {
        for (int64_t i = 0; i < count; i += 4)
            multiply_four(left + i * 16 * deep, deep, count - i, tiles, tile_stride,
                          out + i * 16 * out_stride, out_stride);
    }

    // The same for up to four times 16 rows, each with an accumulator of its own.
    static void multiply_four(const bf16* left, int64_t deep, int64_t count, const uint32_t* tiles,
                         int64_t tile_stride, float* out, int64_t out_stride) {
        __asm__ volatile("" ::: "memory");  // the tile loads below do not say that they read memory
        const int64_t bytes = deep * sizeof(bf16), out_bytes = out_stride * sizeof(float);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t c = 0; c < deep; c += 32, tiles += tile_stride) {
            _tile_loadd(7, tiles, 64);
            _tile_loadd(4, left + c, bytes);
            _tile_dpbf16ps(0, 4, 7);
            if (count > 1) {
                _tile_loadd(5, left + 16 * deep + c, bytes);
                _tile_dpbf16ps(1, 5, 7);
            }
            if (count > 2) {
                _tile_loadd(6, left + 32 * deep + c, bytes);
                _tile_dpbf16ps(2, 6, 7);
            }
            if (count > 3) {
                _tile_loadd(4, left + 48 * deep + c, bytes);
                _tile_dpbf16ps(3, 4, 7);
            }
        }
        _tile_stored(0, out, out_bytes);
        if (count > 1) _tile_stored(1, out + 16 * out_stride, out_bytes);
        if (count > 2) _tile_stored(2, out + 32 * out_stride, out_bytes);
        if (count > 3) _tile_stored(3, out + 48 * out_stride, out_bytes);
        __asm__ volatile("" ::: "memory");
    }

    Room x_, shrunk_, strip_, part_, sums_;
};
#endif

// Y[s] += scale * (X[s] * A^T) * B^T for every segment s.
template <class T, class W>
void sgmv_long(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t k, const Low* table,
               int64_t segments, bool tiles) {
    int64_t rows = 0;
    for (int64_t s = 0; s < segments; ++s) rows += table[s].stop - table[s].start;
    // four blocks a thread at least, so that none is left without
    const int64_t share = up_to(16, rows / (4 * omp_get_max_threads()) + 1);
    Pieces pieces;
    const auto take_turns = [&](auto& work) {
        const int64_t height = std::min(share, std::remove_reference_t<decltype(work)>::TALLEST);
        int64_t piece = 0, mine = pieces.take();
        for (int64_t s = 0; s < segments; ++s)
            for (int64_t top = table[s].start; top < table[s].stop; top += height) {
                if (piece++ != mine) continue;
                mine = pieces.take();
                work(table[s], x + top * x_stride, x_stride, k,
                     std::min(height, table[s].stop - top), y + top * y_stride, y_stride);
            }
    };
#ifdef TILES
    if constexpr (std::is_same_v<T, bf16>)
        if (tiles && tiles_allowed()) {
#pragma omp parallel
            {
                static thread_local Tiles<W> work;
                const Configured configured;
                take_turns(work);
            }
            return;
        }
#endif
#pragma omp parallel
    {
        static thread_local Floats<T, W> work;
        take_turns(work);
    }
}

}  // namespace

#define SGMV_LONG(NAME, T, W)                                                                     \
    void sgmv_long_##NAME(T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t k,        \
                          const Low* table, int64_t segments, bool tiles) {                       \
        sgmv_long<T, W>(y, y_stride, x, x_stride, k, table, segments, tiles);                     \
    }

extern "C" {
SGMV_LONG(float32, float, float)
SGMV_LONG(float32_int8, float, int8_t)
SGMV_LONG(bfloat16, bf16, bf16)
SGMV_LONG(bfloat16_int8, bf16, int8_t)
}
