/* Products of a few rows, as decoding has them: their time is that of reading the weights. A processor foresees long
   runs of memory alone, and here a few rows of weights are all that is read before they are used, so those to come are
   asked for meanwhile. */

#include "element.h"

#define WIDE 4 /* columns of the output that are computed together */
#define AHEAD 2 /* how many times so many columns' weights are asked for before they are needed */
#define STEP (TERMS * LANES)
#if LANES == 16
#define ROWS 6 /* rows that are computed together: their sums stay in registers */
#else
#define ROWS 2
#endif

/* Units of STEP numbers, and what they are multiplied with and added to. */
#if TERMS == 2
INLINE lanes taken(const element *from) { return (lanes)_mm512_loadu_si512(from); }
INLINE lanes rounded(const int8_t *from) {
    const __m512i whole = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from));
    const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(whole));
    const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(whole, 1));
    return (lanes)_mm512_cvtne2ps_pbh(_mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low));
}
INLINE lanes added_to(lanes sum, lanes one, lanes other) {
    return (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)one, (__m512bh)other);
}
#else
INLINE lanes taken(const element *from) { return widened(from); }
INLINE lanes rounded(const int8_t *from) {
    typedef int8_t eighths __attribute__((vector_size(LANES)));
    eighths given;
    memcpy(&given, from, sizeof given);
    return __builtin_convertvector(given, lanes);
}
INLINE lanes added_to(lanes sum, lanes one, lanes other) { return sum + one * other; }
#endif

/* x [rows, inner] times each of WIDE columns' weights [columns, inner], to out [rows, outer]; the weights are elements,
   or with `scales [columns]` of 8 bits. */
INLINE void panel(const element *x, const void *weights, const element *scales, element *out, int64_t inner,
                  int64_t outer, const int rows, const int columns, const int first) {
    const element *whole = weights;
    const int8_t *eighths = weights;
    lanes sums[ROWS][WIDE], by[WIDE];
    int64_t k = 0;
    #pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
        #pragma GCC unroll 4
        for (int j = 0; j < columns; j++) sums[i][j] = (lanes){0};
    for (; k + STEP <= inner; k += STEP) {
        #pragma GCC unroll 4
        for (int j = 0; j < columns; j++) {
            const int64_t at = j * inner + k, next = at + AHEAD * WIDE * inner;
            by[j] = scales ? rounded(eighths + at) : taken(whole + at);
            if (first) __builtin_prefetch(scales ? (const void *)(eighths + next) : (const void *)(whole + next));
        }
        #pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            const lanes from = taken(x + i * inner + k);
            #pragma GCC unroll 4
            for (int j = 0; j < columns; j++) sums[i][j] = added_to(sums[i][j], from, by[j]);
        }
    }
    #pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
        #pragma GCC unroll 4
        for (int j = 0; j < columns; j++) {
            float sum = added(sums[i][j]);
            for (int64_t rest = k; rest < inner; rest++) {
                const int64_t at = j * inner + rest;
                sum += wide(x[i * inner + rest]) * (scales ? (float)eighths[at] : wide(whole[at]));
            }
            out[i * outer + j] = narrow(scales ? sum * wide(scales[j]) : sum);
        }
}

/* All rows times the weights of some columns. */
INLINE void columns_of(const element *x, const void *weights, const element *scales, element *out, int64_t rows,
                       int64_t inner, int64_t outer, const int columns) {
    for (int64_t row = 0; row < rows; row += ROWS) {
        #define PANEL_OF(count) \
            panel(x + row * inner, weights, scales, out + row * outer, inner, outer, count, columns, row == 0)
        switch (smaller(ROWS, rows - row)) {
        #if ROWS == 6
        case 6: PANEL_OF(6); break;
        case 5: PANEL_OF(5); break;
        case 4: PANEL_OF(4); break;
        case 3: PANEL_OF(3); break;
        #endif
        case 2: PANEL_OF(2); break;
        default: PANEL_OF(1);
        }
    }
}

/* The weights [outer, inner] are `bytes` wide. */
INLINE void every(const element *x, const char *weights, int64_t bytes, const element *scales, element *out,
                  int64_t rows, int64_t inner, int64_t outer) {
    #pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < outer; at += WIDE) {
        const int64_t columns = smaller(WIDE, outer - at);
        if (columns == WIDE)
            columns_of(x, weights + at * inner * bytes, scales ? scales + at : 0, out + at, rows, inner, outer, WIDE);
        for (int64_t one = at; columns < WIDE && one < outer; one++)
            columns_of(x, weights + one * inner * bytes, scales ? scales + one : 0, out + one, rows, inner, outer, 1);
    }
}

/* x [rows, inner] times weights [outer, inner], to out [rows, outer]. */
void few(const element *x, const element *weights, element *out, int64_t rows, int64_t inner, int64_t outer) {
    every(x, (const char *)weights, sizeof(element), 0, out, rows, inner, outer);
}

/* The same with weights of 8 bits, each column's to be multiplied by its scale, scales [outer]. */
void few_eighths(const element *x, const int8_t *weights, const element *scales, element *out, int64_t rows,
                 int64_t inner, int64_t outer) {
    every(x, (const char *)weights, 1, scales, out, rows, inner, outer);
}
