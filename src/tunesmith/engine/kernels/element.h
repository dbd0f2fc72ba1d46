/* What all kernels share: the type of products (bfloat16 or float32) and functions that compilers make vectors of. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef BFLOAT16
typedef uint16_t element;
static inline float wide(element given) {
    union { uint32_t bits; float value; } as = {(uint32_t)given << 16};
    return as.value;
}
/* To the nearest, halves to even. */
static inline element narrow(float given) {
    union { float value; uint32_t bits; } as = {given};
    return (element)((as.bits + 0x7fff + ((as.bits >> 16) & 1)) >> 16);
}
#else
typedef float element;
static inline float wide(element given) { return given; }
static inline element narrow(float given) { return given; }
#endif

/* Asks memory for what will be read soon: into the second cache, which waits for more lines at once than the first. */
#define ASK_FOR(what) __builtin_prefetch(what, 0, 2)

#define INLINE static inline __attribute__((always_inline))

/* Numbers from which a second thread is worth waking. */
#define MANY 65536

static inline int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }
static inline int64_t larger(int64_t one, int64_t other) { return one > other ? one : other; }
static inline int64_t filled(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

/* e^x to 2e-7 of itself: 2^n e^r with |r| <= ln 2 / 2, the polynomial of Cephes' expf. Not-a-number stays one. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = rintf(x * 1.44269504f);
    const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return (fmaf(p, r * r, r) + 1.0f) * power.value;
}

/* line[begin, end) becomes its softmax. Returns the logarithm of the sum of e^line. */
static inline float softmax(float *line, int64_t begin, int64_t end) {
    float top = -INFINITY, sum = 0;
    #pragma omp simd reduction(max : top)
    for (int64_t i = begin; i < end; i++) top = line[i] > top ? line[i] : top;
    #pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; i++) sum += line[i] = exponential(line[i] - top);
    const float by = 1.0f / sum;
    #pragma omp simd
    for (int64_t i = begin; i < end; i++) line[i] *= by;
    return top + logf(sum);
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* A register's worth of numbers, and how many rows of sums there is room for beside them. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define TALL 8
#elif defined(__AVX2__)
#define LANES 8
#define TALL 4
#else
#define LANES 4
#define TALL 4
#endif
#define PANEL (2 * LANES)
typedef float lanes __attribute__((vector_size(4 * LANES)));

static inline lanes widened(const element *from) {
#ifdef BFLOAT16
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    typedef uint32_t wholes __attribute__((vector_size(4 * LANES)));
    halves given;
    memcpy(&given, from, sizeof given);
    return (lanes)(__builtin_convertvector(given, wholes) << 16);
#else
    lanes given;
    memcpy(&given, from, sizeof given);
    return given;
#endif
}

/* Terms of a product that fill 32 bits, a unit: a float32, or two neighbours in bfloat16 where the processor multiplies
   those and adds both to a float32 sum. */
#if defined(BFLOAT16) && defined(__AVX512BF16__)
#define TERMS 2
static inline float unit(float first, float second) {
    union { uint32_t bits; float value; } as = {narrow(first) | (uint32_t)narrow(second) << 16};
    return as.value;
}
/* LANES units: of 2 LANES numbers in a row, or of LANES numbers and those below them, which are 0 where null. */
static inline void unite(const float *first, const float *second, int below, float *into) {
    const __m512 one = _mm512_loadu_ps(first), other = second ? _mm512_loadu_ps(second) : _mm512_setzero_ps();
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(other, one);
    const __m512i halves = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    const __m512i others = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    _mm512_storeu_si512(into, below ? _mm512_or_si512(halves, _mm512_slli_epi32(others, 16)) : both);
}
#else
#define TERMS 1
static inline float unit(float first, float second) { return first; }
static inline void unite(const float *first, const float *second, int below, float *into) {}
#endif

/* sum + one * other, of units or of float32. */
INLINE lanes with(lanes sum, float one, lanes other, int units) {
#if TERMS == 2
    if (units) return (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(one), (__m512bh)other);
#endif
    return sum + one * other;
}

/* How many units a number of terms is. */
static inline int64_t units_of(int64_t terms) { return (terms + TERMS - 1) / TERMS; }

/* c [rows, columns] (+)= a b: a [rows, inner] by its strides `down` and `along`, b [inner, columns], both of units or
   of float32; rows are a multiple of TALL, columns of PANEL. A panel of TALL x PANEL sums stays in registers. */
INLINE void multiply(const float *a, int64_t down, int64_t along, const float *b, int64_t width, float *c,
                     int64_t stride, int64_t rows, int64_t inner, int64_t columns, int onto, int units) {
    for (int64_t column = 0; column < columns; column += PANEL)
        for (int64_t row = 0; row < rows; row += TALL) {
            lanes left[TALL], right[TALL];
            float *into = c + row * stride + column;
            const float *from = a + row * down, *by = b + column;
            #pragma GCC unroll 8
            for (int i = 0; i < TALL; i++) {
                left[i] = onto ? *(lanes *)(into + i * stride) : (lanes){0};
                right[i] = onto ? *(lanes *)(into + i * stride + LANES) : (lanes){0};
            }
            for (int64_t k = 0; k < inner; k++, from += along, by += width) {
                const lanes one = *(const lanes *)by, two = *(const lanes *)(by + LANES);
                #pragma GCC unroll 8
                for (int i = 0; i < TALL; i++) {
                    left[i] = with(left[i], from[i * down], one, units);
                    right[i] = with(right[i], from[i * down], two, units);
                }
            }
            #pragma GCC unroll 8
            for (int i = 0; i < TALL; i++) {
                *(lanes *)(into + i * stride) = left[i];
                *(lanes *)(into + i * stride + LANES) = right[i];
            }
        }
}

static inline float added(lanes given) {
    typedef float four __attribute__((vector_size(16)));
    union { lanes whole; four parts[LANES / 4]; } as = {given};
    four sum = as.parts[0];
    #pragma GCC unroll 4
    for (int i = 1; i < LANES / 4; i++) sum += as.parts[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
