// Numbers and vectors of the native CPU kernels.
//
// Compiled on the machine that runs them (see build.py), so -march=native decides between AVX-512,
// AVX2 and scalar code. T is float or bf16 (a uint16_t that holds the upper half of a float);
// every sum is a float. Inner loops are written in vectors of 16 floats, which the compiler maps to
// one AVX-512 register, two of AVX2 or four of SSE.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <omp.h>

namespace {

struct bf16 { uint16_t bits; };

inline float up(float value) { return value; }
inline float up(int8_t value) { return value; }
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

constexpr int64_t LANES = 16;
typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef int8_t bytes __attribute__((vector_size(16)));

inline floats load(const float* from) {
    floats result;
    std::memcpy(&result, from, sizeof result);
    return result;
}
inline floats load(const bf16* from) {
    halves upper;
    std::memcpy(&upper, from, sizeof upper);
    return (floats)(__builtin_convertvector(upper, words) << 16);
}

inline floats load(const int8_t* from) {
    bytes packed;
    std::memcpy(&packed, from, sizeof packed);
    return __builtin_convertvector(__builtin_convertvector(packed, ints), floats);
}

inline void store(floats value, float* to) { std::memcpy(to, &value, sizeof value); }
inline void store(floats value, bf16* to) {  // rounds as `down` does
#ifdef __AVX512BF16__  // in one instruction, to which the smallest numbers (below 2^-126) are zeros
    const __m256bh upper = _mm512_cvtneps_pbh((__m512)value);
#else
    const words bits = (words)value;
    const words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const words nan = rounded * 0 + 0x7fc0;
    const halves upper = __builtin_convertvector(value != value ? nan : rounded, halves);
#endif
    std::memcpy(to, &upper, sizeof upper);
}

inline float sum(floats v) {
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return v[0] + v[1];
}

// Calls `tile` with up to 4 as a compile-time number until `count` items are done.
template <class F> inline void tiled(int64_t count, const F& tile) {
    int64_t at = 0;
    for (; at + 4 <= count; at += 4) tile(at, std::integral_constant<int, 4>{});
    switch (count - at) {
        case 3: tile(at, std::integral_constant<int, 3>{}); break;
        case 2: tile(at, std::integral_constant<int, 2>{}); break;
        case 1: tile(at, std::integral_constant<int, 1>{});
    }
}

}  // namespace
