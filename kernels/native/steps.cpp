// Native CPU kernels of the serving engine beside LoRA: attention row by row, and the steps between
// the products of a layer.

#include "vectors.h"

namespace {

constexpr int64_t SHARED = 1 << 17;  // elements from which waking a thread costs less than it saves

// e^x within 3e-6 relative (range reduction and polynomial of Cephes' expf); x is held to
// [-87, 88], NaN stays NaN.
inline floats exponential(floats x) {
    const floats zero = {}, one = zero + 1.0f;
    x = x > 88.0f ? zero + 88.0f : x;
    x = x < -87.0f ? zero - 87.0f : x;
    const ints n = __builtin_convertvector(
        x * 1.44269504f + (x < 0.0f ? zero - 0.5f : zero + 0.5f), ints);
    const floats whole = __builtin_convertvector(n, floats);
    const floats r = x - whole * 0.693145752f - whole * 1.42860677e-6f;
    floats p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (floats)((ints)(p * r * r + r + one) + (n << 23));
}

// out = scale * (head * cos + (head rolled by half) * sin).
template <class T, class Out>
inline void rotate(const T* head, const T* cos, const T* sin, int64_t dim, float scale, Out* out) {
    const int64_t half = dim / 2;
    for (int64_t part = 0; part < 2; ++part) {
        const int64_t at = part * half;
        const T *self = head + at, *other = head + half - at, *c = cos + at, *s = sin + at;
        int64_t d = 0;
        for (; d + LANES <= half; d += LANES)
            store((load(self + d) * load(c + d) + load(other + d) * load(s + d)) * scale,
                  out + at + d);
        for (; d < half; ++d)
            down((up(self[d]) * up(c[d]) + up(other[d]) * up(s[d])) * scale, out[at + d]);
    }
}

// Walks the positions of a sequence through its pages. Hardware fetches ahead within a page alone, so
// each step asks for the same position of the next page.
template <class T> struct Walk {
    const T* const* pages;
    int64_t per_page, dim, count;  // of pages
    const T* at = nullptr;
    int64_t left = 0, page = 0, jump = 0;

    inline const T* next() {
        if (left == 0) {
            at = pages[page++];
            jump = page < count ? pages[page] - at : 0;
            left = per_page;
        } else {
            at += dim;
        }
        --left;
        for (int64_t d = 0; d < dim; d += 64 / int64_t(sizeof(T))) __builtin_prefetch(at + jump + d);
        return at;
    }
};

// scores[g * stride + t] = query[g] * keys[t] for G heads that share their keys, where keys[t] is
// position t % per_page of page t / per_page; each of `pages` points to its page's keys.
template <int G, class T>
inline void score(const float* query, const T* const* pages, int64_t per_page, int64_t length,
                  int64_t dim, float* scores, int64_t stride) {
    Walk<T> keys{pages, per_page, dim, (length + per_page - 1) / per_page};
    for (int64_t t = 0; t < length; ++t) {
        const T* key = keys.next();
        floats sums[G] = {};
        int64_t d = 0;
        for (; d + LANES <= dim; d += LANES) {
            const floats part = load(key + d);
            for (int g = 0; g < G; ++g) sums[g] += load(query + g * dim + d) * part;
        }
        for (int g = 0; g < G; ++g) {
            float total = sum(sums[g]);
            for (int64_t rest = d; rest < dim; ++rest)
                total += query[g * dim + rest] * up(key[rest]);
            scores[g * stride + t] = total;
        }
    }
}

// mixed[g] = sum over t of scores[g * stride + t] * values[t], which lie in pages as keys do.
template <int G, class T>
inline void mix(const float* scores, int64_t stride, const T* const* pages, int64_t per_page,
                int64_t length, int64_t dim, float* mixed) {
    constexpr int W = 4;
    int64_t d = 0;
    for (; d + W * LANES <= dim; d += W * LANES) {
        floats sums[G][W] = {};
        Walk<T> values{pages, per_page, dim, (length + per_page - 1) / per_page};
        for (int64_t t = 0; t < length; ++t) {
            const T* value = values.next() + d;
            for (int w = 0; w < W; ++w) {
                const floats part = load(value + w * LANES);
                for (int g = 0; g < G; ++g) sums[g][w] += scores[g * stride + t] * part;
            }
        }
        for (int g = 0; g < G; ++g)
            for (int w = 0; w < W; ++w) store(sums[g][w], mixed + g * dim + d + w * LANES);
    }
    for (int g = 0; g < G; ++g) {
        std::fill(mixed + g * dim + d, mixed + (g + 1) * dim, 0.0f);
        for (int64_t t = 0; t < length && d < dim; ++t) {
            const T* value = pages[t / per_page] + t % per_page * dim;
            for (int64_t rest = d; rest < dim; ++rest)
                mixed[g * dim + rest] += scores[g * stride + t] * up(value[rest]);
        }
    }
}

// Softmax over `length` scores in place; the row has room up to the next multiple of LANES.
inline void softmax(float* scores, int64_t length) {
    const int64_t padded = (length + LANES - 1) / LANES * LANES;
    std::fill(scores + length, scores + padded, -std::numeric_limits<float>::infinity());
    floats tops = load(scores);
    for (int64_t t = LANES; t < padded; t += LANES) {
        const floats part = load(scores + t);
        tops = part > tops ? part : tops;
    }
    float top = tops[0];
    for (int lane = 1; lane < LANES; ++lane) top = std::max(top, float(tops[lane]));
    floats totals = {};
    for (int64_t t = 0; t < padded; t += LANES) {
        const floats part = exponential(load(scores + t) - top);
        store(part, scores + t);
        totals += part;
    }
    const float inverse = 1.0f / sum(totals);
    for (int64_t t = 0; t < padded; t += LANES) store(load(scores + t) * inverse, scores + t);
}

// Attention of rows that each attend over all of their sequence up to themselves: rotates queries
// and keys, writes every row's key and value to the page of its position, then attends over the
// sequence's pages. Rows of one sequence may be several, as those of a short prompt.
//
// qkv: (rows of the step, heads + 2 * kv, dim); cos, sin: (context, dim), rotate-half's sign folded
// into sin; pages: (any, 2, kv, per_page, dim); table: (slots, longest), the pages of each sequence;
// out: (rows of the step, heads, dim).
template <class T>
void attend(const T* qkv, const T* cos, const T* sin, const int64_t* rows, int64_t count,
            const int64_t* positions, const int64_t* slots, int64_t heads, int64_t kv, int64_t dim,
            int64_t per_page, const int32_t* table, int64_t longest, T* pages, T* out) {
    const int64_t group = heads / kv, half = kv * per_page * dim;  // of a page: its keys
    const float norm = 1.0f / std::sqrt(float(dim));
#pragma omp parallel
    {
        std::vector<float> scores, query(group * dim), mixed(group * dim);
        std::vector<const T*> keys, values;
#pragma omp for collapse(2) schedule(static)
        for (int64_t i = 0; i < count; ++i)
            for (int64_t h = 0; h < kv; ++h) {
                const int64_t row = rows[i], position = positions[row];
                const T* from = qkv + row * (heads + 2 * kv) * dim;
                const int64_t page = table[slots[row] * longest + position / per_page];
                T* key = pages + page * 2 * half + (h * per_page + position % per_page) * dim;
                rotate(from + (heads + h) * dim, cos + position * dim, sin + position * dim, dim,
                       1.0f, key);
                std::memcpy(key + half, from + (heads + kv + h) * dim, dim * sizeof(T));
            }
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t i = 0; i < count; ++i)
            for (int64_t h = 0; h < kv; ++h) {
                const int64_t row = rows[i], position = positions[row], length = position + 1;
                const T* from = qkv + row * (heads + 2 * kv) * dim;
                const T *c = cos + position * dim, *s = sin + position * dim;
                const int32_t* mine = table + slots[row] * longest;
                const auto keys_of = [&](int64_t at) {
                    return pages + mine[at / per_page] * 2 * half + h * per_page * dim;
                };
                for (int64_t g = 0; g < group; ++g)
                    rotate(from + (h * group + g) * dim, c, s, dim, norm, &query[g * dim]);

                const int64_t stride = (length + LANES - 1) / LANES * LANES;
                scores.resize(group * stride);
                keys.clear();
                values.clear();
                for (int64_t first = 0; first < length; first += per_page) {
                    keys.push_back(keys_of(first));
                    values.push_back(keys.back() + half);
                }
                tiled(group, [&](int64_t g, auto at_once) {
                    score<at_once>(&query[g * dim], keys.data(), per_page, length, dim,
                                   &scores[g * stride], stride);
                });
                for (int64_t g = 0; g < group; ++g) softmax(&scores[g * stride], length);
                tiled(group, [&](int64_t g, auto at_once) {
                    mix<at_once>(&scores[g * stride], stride, values.data(), per_page, length,
                                 dim, &mixed[g * dim]);
                });
                T* to = out + (row * heads + h * group) * dim;
                for (int64_t d = 0; d < group * dim; ++d) down(mixed[d], to[d]);
            }
    }
}

// x += delta (where there is one), then out = x / rms(x) * weight. x, delta and out are (rows, n).
template <class T>
void add_rms_norm(T* x, const T* delta, const T* weight, T* out, int64_t rows, int64_t n,
                  float epsilon) {
#pragma omp parallel for schedule(static) if (rows * n >= SHARED)
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
#pragma omp parallel for schedule(static) if (rows * n >= SHARED)
    for (int64_t row = 0; row < rows; ++row) {
        const T *gates = gate_up + row * 2 * n, *ups = gates + n;
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            const floats gate = load(gates + i);
            store(gate / (1.0f + exponential(-gate)) * load(ups + i), out + row * n + i);
        }
        for (; i < n; ++i) {
            const float gate = up(gates[i]);
            down(gate / (1.0f + std::exp(-gate)) * up(ups[i]), out[row * n + i]);
        }
    }
}

// Of each row of logits (rows, n): the first of the largest, and log(sum(exp)).
template <class T>
void summarize(const T* logits, int64_t rows, int64_t n, int64_t* best, float* value, float* mass) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const T* line = logits + row * n;
        const floats zero = {};
        floats tops = zero - std::numeric_limits<float>::infinity();
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            const floats part = load(line + i);
            tops = part > tops ? part : tops;
        }
        float top = tops[0];
        for (int lane = 1; lane < LANES; ++lane) top = std::max(top, float(tops[lane]));
        for (; i < n; ++i) top = std::max(top, up(line[i]));
        floats totals = {};
        for (i = 0; i + LANES <= n; i += LANES) totals += exponential(load(line + i) - top);
        float total = sum(totals);
        for (; i < n; ++i) total += std::exp(up(line[i]) - top);
        for (i = 0; i + 1 < n && up(line[i]) != top; ++i) {}
        best[row] = i;
        value[row] = top;
        mass[row] = top + std::log(total);
    }
}

}  // namespace

#define KERNELS(NAME, T)                                                                          \
    void attend_##NAME(const T* qkv, const T* cos, const T* sin, const int64_t* rows,             \
                       int64_t count, const int64_t* positions, const int64_t* slots,             \
                       int64_t heads, int64_t kv, int64_t dim, int64_t per_page,                  \
                       const int32_t* table, int64_t longest, T* pages, T* out) {                 \
        attend(qkv, cos, sin, rows, count, positions, slots, heads, kv, dim, per_page, table,     \
               longest, pages, out);                                                              \
    }                                                                                             \
    void add_rms_norm_##NAME(T* x, const T* delta, const T* weight, T* out, int64_t rows,         \
                             int64_t n, float epsilon) {                                          \
        add_rms_norm(x, delta, weight, out, rows, n, epsilon);                                    \
    }                                                                                             \
    void silu_mul_##NAME(const T* gate_up, T* out, int64_t rows, int64_t n) {                     \
        silu_mul(gate_up, out, rows, n);                                                          \
    }                                                                                             \
    void summarize_##NAME(const T* logits, int64_t rows, int64_t n, int64_t* best, float* value,  \
                          float* mass) {                                                          \
        summarize(logits, rows, n, best, value, mass);                                            \
    }

extern "C" {
KERNELS(float32, float)
KERNELS(bfloat16, bf16)
}
