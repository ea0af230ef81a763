// Y = X * W^T for a W that was packed once (see kernels/linear/native.py), in bf16 on the matrix unit.
// Threads share the strips of 32 outputs. With few rows a product takes as long as reading W does,
// which is asked for ahead; with many the strip stays in the nearest cache while they pass by.

#include "tiles.h"

namespace {

#ifdef TILES

constexpr int64_t TILE = 512;           // bf16 of a tile
constexpr int64_t STRIP = 32;           // outputs, two tiles side by side
constexpr int64_t AHEAD = 8 * TILE;     // what is asked for, in bf16
constexpr int64_t PANEL = 512;          // rows that go by a strip; with their depth they fit the cache

// sums (16 * M, STRIP) = x (16 * M, 32 * depth), rows `stride` apart, times a packed strip.
template <int M, bool ASK>
inline void multiply(const bf16* x, int64_t stride, const bf16* strip, int64_t depth, float* sums) {
    __asm__ volatile("" ::: "memory");  // the tile loads below do not say that they read memory
    const int64_t bytes = stride * sizeof(bf16), out = STRIP * sizeof(float);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t c = 0; c < depth; ++c, strip += 2 * TILE, x += 32) {
        if constexpr (ASK)
            for (int64_t line = 0; line < 2 * TILE; line += 32)
                __builtin_prefetch(strip + AHEAD + line);
        _tile_loadd(6, strip, 64);
        _tile_loadd(7, strip + TILE, 64);
        _tile_loadd(4, x, bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (M == 2) {
            _tile_loadd(5, x + 16 * stride, bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, out);
    _tile_stored(1, sums + 16, out);
    if constexpr (M == 2) {
        _tile_stored(2, sums + 16 * STRIP, out);
        _tile_stored(3, sums + 16 * STRIP + 16, out);
    }
    __asm__ volatile("" ::: "memory");
}

// `rows` rows of sums as bf16 to the first `width` columns of y.
inline void put(const float* sums, int64_t rows, int64_t width, bf16* y, int64_t y_stride) {
    const __mmask32 mask = width == STRIP ? ~__mmask32(0) : (__mmask32(1) << width) - 1;
    for (int64_t i = 0; i < rows; ++i, sums += STRIP, y += y_stride)
        _mm512_mask_storeu_epi16(
            y, mask,
            (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(sums + 16), _mm512_load_ps(sums)));
}

void product(bf16* y, int64_t d, const bf16* x, int64_t k, int64_t rows, const bf16* w) {
    const int64_t depth = k / 32, strips = (d + STRIP - 1) / STRIP, whole = rows / 16 * 16;
    // the rows of the last tile, with zeros below
    std::vector<bf16> rest(whole < rows ? 16 * k : 0);
    if (whole < rows) std::memcpy(rest.data(), x + whole * k, (rows - whole) * k * sizeof(bf16));
#pragma omp parallel
    {
        const Configured tiles;
        alignas(64) float sums[32 * STRIP];
        const int64_t threads = omp_get_num_threads(), mine = omp_get_thread_num();
        const int64_t first = strips * mine / threads, last = strips * (mine + 1) / threads;
        for (int64_t panel = 0; panel < rows; panel += PANEL)
            for (int64_t s = first; s < last; ++s) {
                const bf16* strip = w + s * depth * 2 * TILE;
                bf16* to = y + s * STRIP;
                const int64_t width = std::min(STRIP, d - s * STRIP);
                int64_t top = panel;
                const int64_t stop = std::min(whole, panel + PANEL);
                for (; top + 32 <= stop; top += 32) {
                    if (top == panel)
                        multiply<2, true>(x + top * k, k, strip, depth, sums);
                    else
                        multiply<2, false>(x + top * k, k, strip, depth, sums);
                    put(sums, 32, width, to + top * d, d);
                }
                if (top < stop) {
                    multiply<1, true>(x + top * k, k, strip, depth, sums);
                    put(sums, 16, width, to + top * d, d);
                }
                if (whole < rows && whole < panel + PANEL) {
                    multiply<1, true>(rest.data(), k, strip, depth, sums);
                    put(sums, rows - whole, width, to + whole * d, d);
                }
            }
    }
}

#endif

}  // namespace

extern "C" {
bool product_available() {
#ifdef TILES
    return tiles_allowed();
#else
    return false;
#endif
}

// y (rows, d) = x (rows, k) * W^T, where k is a multiple of 32. Only where it is available.
void product_bfloat16(void* y, int64_t d, const void* x, int64_t k, int64_t rows, const void* w) {
#ifdef TILES
    product(static_cast<bf16*>(y), d, static_cast<const bf16*>(x), k, rows,
            static_cast<const bf16*>(w));
#else
    (void)y, (void)d, (void)x, (void)k, (void)rows, (void)w;
#endif
}
}
