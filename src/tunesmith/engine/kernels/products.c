/* Products of not too many rows, whose weights are read as they lie. Of a few rows, as decoding has them, the time is
   that of reading: a processor foresees long runs of memory alone, and here a few rows of weights are all that is read
   before they are used, so those to come are asked for meanwhile. */

#include "element.h"

#define STEP(bytes) ((bytes) > 1 ? TERMS * LANES : LANES) /* numbers that a register takes */
#define WIDE 4 /* columns that ROWS rows are computed with together */
#if LANES == 16
#define ROWS 4
#else
#define ROWS 2
#endif
#define SUMS (ROWS * WIDE) /* what stays in registers */
#define BLOCK 32 /* columns that are a thread's at a time */
#define AHEAD 4 /* panels by which weights are asked for before they are needed */
#define LINE 64 /* bytes that memory gives at once */

/* A register of numbers, and of what they are multiplied with and added to: units of elements, or, with weights of 8
   bits, float32. Those fill a register with few operations as wholes, with many as halves. */
INLINE lanes taken(const element *from, const int bytes) {
#if TERMS == 2
    if (bytes > 1) return (lanes)_mm512_loadu_si512(from);
#endif
    return widened(from);
}
INLINE lanes weighed(const char *from, const int bytes) {
    if (bytes > 1) return taken((const element *)from, bytes);
#if LANES == 16
    return (lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
#else
    typedef int8_t eighths __attribute__((vector_size(LANES)));
    typedef int32_t wholes __attribute__((vector_size(4 * LANES)));
    eighths given;
    memcpy(&given, from, sizeof given);
    return __builtin_convertvector(__builtin_convertvector(given, wholes), lanes);
#endif
}
INLINE lanes added_to(lanes sum, lanes one, lanes other, const int bytes) {
#if TERMS == 2
    if (bytes > 1) return (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)one, (__m512bh)other);
#endif
    return sum + one * other;
}

/* The sum across each of SUMS registers. Where instructions allow, halves of two registers are added at once, then
   quarters of four, and so on, until one register holds all: three operations a sum, one by one they take a dozen. */
INLINE void across(const lanes *sums, float *into) {
#if LANES == 16
    __m512 halves[8], quarters[4], pairs[2];
    #pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const __m512 one = (__m512)sums[i % 4 + i / 4 * 8], other = (__m512)sums[i % 4 + i / 4 * 8 + 4];
        halves[i] = _mm512_shuffle_f32x4(one, other, 0x44) + _mm512_shuffle_f32x4(one, other, 0xee);
    }
    #pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        quarters[i] = _mm512_shuffle_f32x4(halves[i], halves[i + 4], 0x88) +
                      _mm512_shuffle_f32x4(halves[i], halves[i + 4], 0xdd);
    #pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        pairs[i] = _mm512_unpacklo_ps(quarters[2 * i], quarters[2 * i + 1]) +
                   _mm512_unpackhi_ps(quarters[2 * i], quarters[2 * i + 1]);
    const __m512d first = (__m512d)pairs[0], second = (__m512d)pairs[1];
    _mm512_storeu_ps(into, (__m512)_mm512_unpacklo_pd(first, second) + (__m512)_mm512_unpackhi_pd(first, second));
#else
    #pragma GCC unroll 8
    for (int i = 0; i < SUMS; i++) into[i] = added(sums[i]);
#endif
}

/* What a panel reads: rows, weights of elements, or of 8 bits with scales; and the weights it asks for meanwhile. */
typedef struct {
    const element *x;
    const char *weights, *ahead;
    const element *scales;
    int64_t inner;
} given;

/* x [rows, inner] times the weights [columns, inner], which are `bytes` wide, to out [rows, outer]; a step asks for so
   many lines. Rows times columns are SUMS at most. */
INLINE void panel(given of, element *out, int64_t outer, const int rows, const int columns, const int bytes,
                  const int lines) {
    const int64_t inner = of.inner;
    lanes sums[SUMS] = {0}, from[ROWS];
    float found[SUMS];
    element made[SUMS];
    int64_t k = 0;
    for (; k + STEP(bytes) <= inner; k += STEP(bytes), of.ahead += lines * LINE) {
        #pragma GCC unroll 4
        for (int i = 0; i < lines; i++) ASK_FOR(of.ahead + i * LINE);
        #pragma GCC unroll 4
        for (int i = 0; i < rows; i++) from[i] = taken(of.x + i * inner + k, bytes);
        #pragma GCC unroll 4
        for (int j = 0; j < columns; j++) {
            const lanes by = weighed(of.weights + (j * inner + k) * bytes, bytes);
            #pragma GCC unroll 4
            for (int i = 0; i < rows; i++) sums[i * columns + j] = added_to(sums[i * columns + j], from[i], by, bytes);
        }
    }
    across(sums, found);
    for (; k < inner; k++)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                const char *at = of.weights + (j * inner + k) * bytes;
                const float by = bytes > 1 ? wide(*(const element *)at) : *(const int8_t *)at;
                found[i * columns + j] += wide(of.x[i * inner + k]) * by;
            }
    for (int i = 0; bytes == 1 && i < rows * columns; i++) found[i] *= wide(of.scales[i % columns]);
    #pragma omp simd
    for (int i = 0; i < SUMS; i++) made[i] = narrow(found[i]);
    for (int i = 0; i < rows; i++) memcpy(out + i * outer, made + i * columns, columns * sizeof(element));
}

/* All rows times the weights of a panel's columns. Rows are taken in turns, and each turn, of so many or a few more,
   asks for its share of what comes AHEAD: memory is never idle. */
INLINE void every_row(given of, element *out, int64_t rows, int64_t outer, const int columns, const int bytes,
                      const int turns) {
    const int lines = larger(1, columns * bytes * STEP(bytes) / LINE / turns);
    of.ahead = of.weights + AHEAD * columns * of.inner * bytes;
    for (int64_t left = (rows + ROWS - 1) / ROWS, count; left; left--, rows -= count) {
        count = (rows + left - 1) / left;
        switch (count) {
        #if ROWS == 4
        case 4: panel(of, out, outer, 4, columns, bytes, lines); break;
        case 3: panel(of, out, outer, 3, columns, bytes, lines); break;
        #endif
        case 2: panel(of, out, outer, 2, columns, bytes, lines); break;
        default: panel(of, out, outer, 1, columns, bytes, lines);
        }
        of.x += count * of.inner, out += count * outer, of.ahead += of.inner / STEP(bytes) * lines * LINE;
    }
}

/* All rows times the weights of a block of columns. */
INLINE void block(given of, element *out, int64_t rows, int64_t outer, int64_t columns, const int bytes) {
    #define SOME_COLUMNS(together, turns)                                                           \
        for (; columns >= together; columns -= together, out += together) {                         \
            every_row(of, out, rows, outer, together, bytes, turns);                                \
            of.weights += together * of.inner * bytes, of.scales += bytes == 1 ? together : 0;      \
        }
    if (rows <= ROWS) SOME_COLUMNS(WIDE, 1)
    else if (rows <= 3 * ROWS) SOME_COLUMNS(WIDE, 2)
    else SOME_COLUMNS(WIDE, 4)
    SOME_COLUMNS(1, 1)
}

/* x [rows, inner] times weights [outer, inner], to out [rows, outer]. */
void few(const element *x, const element *weights, element *out, int64_t rows, int64_t inner, int64_t outer) {
    #pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < outer; at += BLOCK)
        block((given){x, (const char *)(weights + at * inner), 0, 0, inner}, out + at, rows, outer,
              smaller(BLOCK, outer - at), sizeof(element));
}

/* The same with weights of 8 bits, each column's to be multiplied by its scale, scales [outer]. */
void few_eighths(const element *x, const int8_t *weights, const element *scales, element *out, int64_t rows,
                 int64_t inner, int64_t outer) {
    #pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < outer; at += BLOCK)
        block((given){x, (const char *)(weights + at * inner), 0, scales + at, inner}, out + at, rows, outer,
              smaller(BLOCK, outer - at), 1);
}
