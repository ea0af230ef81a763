// What the LoRA kernels of few and of many rows are told, and how their threads share the work.
#pragma once

#include "vectors.h"

namespace {

// out[i * out_stride + j] = x[i] * a[j] for I rows of x and J rows of a, all of length k. Asks for the
// J rows of a that follow: a page of memory ends before the processor's own prefetching pays.
template <int I, int J, class W>
inline void shrink(const float* x, const W* a, int64_t k, float* out, int64_t out_stride) {
    floats sums[I][J] = {};
    int64_t c = 0;
    for (; c + LANES <= k; c += LANES)
        for (int j = 0; j < J; ++j) {
            __builtin_prefetch(a + (j + J) * k + c);
            const floats line = load(a + j * k + c);
            for (int i = 0; i < I; ++i) sums[i][j] += load(x + i * k + c) * line;
        }
    for (int i = 0; i < I; ++i)
        for (int j = 0; j < J; ++j) {
            float total = sum(sums[i][j]);
            for (int64_t rest = c; rest < k; ++rest) total += x[i * k + rest] * up(a[j * k + rest]);
            out[i * out_stride + j] = total;
        }
}

// One linear's B inside a fused linear: columns [column, column + width) read ranks
// [row, row + rank) of the stacked A. `b` is (rank, width): B transposed.
struct Block { int64_t column, row, width, rank; const void* b; };

// Rows [start, stop) of the batch and their adapter. `a` is (rank, k); `factors`, where there are
// some, undo the quantization of each rank's rows of A and of B transposed.
struct Low {
    int64_t start, stop;
    const void* a;
    int64_t rank;
    double scale;
    const float* factors;
    int64_t blocks;
    Block block[3];
};

// Hands out pieces of work: whoever is free takes the next, since adapters differ in rank.
class Pieces {
  public:
    int64_t take() {
        int64_t mine;
#pragma omp atomic capture
        mine = next_++;
        return mine;
    }

  private:
    int64_t next_ = 0;
};

}  // namespace
