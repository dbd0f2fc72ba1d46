/* The steps of a decoder layer between its products, each one pass over memory. Rows are tokens. */

#include "element.h"

/* RMSNorm: out = x / rms(x) * weight; scale [rows] gets 1 / rms(x), unless it is null. */
void norm(const float *x, const float *weight, float epsilon, element *out, float *scale, int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width;
        element *into = out + row * width;
        float squares = 0;
        #pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; i++) squares += from[i] * from[i];
        const float by = 1.0f / sqrtf(squares / width + epsilon);
        if (scale) scale[row] = by;
        #pragma omp simd
        for (int64_t i = 0; i < width; i++) into[i] = narrow(from[i] * by * weight[i]);
    }
}

/* back = (g w - x^ mean(g w x^)) / rms(x), with x^ = x / rms(x) and g = grad. */
void norm_back(const float *x, const float *weight, const float *scale, const element *grad, const float *beside,
               float *back, int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width, by = scale[row];
        const element *g = grad + row * width;
        float *into = back + row * width, along = 0;
        #pragma omp simd reduction(+ : along)
        for (int64_t i = 0; i < width; i++) along += wide(g[i]) * weight[i] * from[i];
        along *= by * by / width;
        #pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            const float found = (wide(g[i]) * weight[i] - from[i] * along) * by;
            into[i] = beside ? found + beside[row * width + i] : found;
        }
    }
}

/* learned [width] = sum over rows of g x^. A thread has columns of its own: the order of the sum is always the same. */
void norm_learned(const float *x, const float *scale, const element *grad, float *learned, int64_t rows,
                  int64_t width) {
    const int64_t strip = 64;
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t column = 0; column < width; column += strip) {
        const int64_t end = smaller(column + strip, width);
        for (int64_t i = column; i < end; i++) learned[i] = 0;
        for (int64_t row = 0; row < rows; row++) {
            const float *from = x + row * width, by = scale[row];
            const element *g = grad + row * width;
            #pragma omp simd
            for (int64_t i = column; i < end; i++) learned[i] += wide(g[i]) * from[i] * by;
        }
    }
}

/* What adapters add to a product: low [rows, ranks] times up [width, ranks], of which pieces [count, 4] say which
   columns (from, to) and which ranks (from, to) go together; elsewhere up is 0. */
typedef struct {
    const element *low, *up;
    const int64_t *pieces;
    int64_t count, ranks, rows, width;
} adapters;

/* Numbers of a block of what adapters add: TALL rows of so many columns, and where a block begins in a panel. */
#define BLOCK 256
#define STRIDE (BLOCK + PANEL)

/* Up as units, a row of all columns for each: the pieces one below the other. To be freed. */
static float *raised(const adapters *a) {
    const int64_t padded = filled(a->width, PANEL);
    float *units = aligned_alloc(64, (a->ranks + a->count) * padded * sizeof(float)), *into = units;
    memset(units, 0, (a->ranks + a->count) * padded * sizeof(float));
    for (int64_t piece = 0; piece < a->count; piece++) {
        const int64_t *of = a->pieces + 4 * piece;
        for (int64_t rank = of[2]; rank < of[3]; rank += TERMS, into += padded)
            for (int64_t column = of[0]; column < of[1]; column++) {
                const element *from = a->up + column * a->ranks + rank;
                into[column] = unit(wide(from[0]), TERMS > 1 && rank + 1 < of[3] ? wide(from[1]) : 0);
            }
    }
    return units;
}

/* What adapters add to some columns of TALL rows from `row` on, at most BLOCK, in `block`. Returns where they begin. */
static const float *brought(const adapters *a, const float *units, int64_t row, int64_t column, int64_t columns,
                            float *factors, float *block) {
    const int64_t padded = filled(a->width, PANEL), first = column / PANEL * PANEL, rows = smaller(TALL, a->rows - row);
    memset(block, 0, TALL * STRIDE * sizeof(float));
    for (int64_t piece = 0; piece < a->count; piece++) {
        const int64_t *of = a->pieces + 4 * piece, terms = units_of(of[3] - of[2]);
        const int64_t from = larger(first, of[0] / PANEL * PANEL), to = smaller(column + columns, of[1]);
        if (from < to) {
            for (int64_t i = 0; i < TALL; i++)
                for (int64_t k = 0; k < terms; k++) {
                    const element *at = a->low + (row + i) * a->ranks + of[2] + k * TERMS;
                    const int more = TERMS > 1 && of[2] + k * TERMS + 1 < of[3];
                    factors[i * terms + k] = i < rows ? unit(wide(at[0]), more ? wide(at[1]) : 0) : 0;
                }
            multiply(factors, terms, 1, units + from, padded, block + from - first, STRIDE, TALL, terms,
                     filled(to - from, PANEL), 1, 1);
        }
        units += terms * padded;
    }
    return block + column - first;
}

/* out = product (+ delta) (+ more) (+ bias) (+ residual) of one row, summed in float32; what is null is left out. */
INLINE void sum_up(const element *product, const element *delta, const float *more, const float *bias,
                   const float *residual, float *out, int64_t width) {
    #pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float value = wide(product[i]);
        if (delta) value += wide(delta[i]);
        if (more) value += more[i];
        if (bias) value += bias[i];
        if (residual) value += residual[i];
        out[i] = value;
    }
}

void total(const element *product, const element *delta, const float *bias, const float *residual, float *out,
           int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * width;
        sum_up(product + at, delta ? delta + at : 0, 0, bias, residual ? residual + at : 0, out + at, width);
    }
}

/* The same with what adapters add. */
void total_adapted(const element *product, const element *low, const element *up, const int64_t *pieces, int64_t count,
                   int64_t ranks, const float *residual, float *out, int64_t rows, int64_t width) {
    const adapters a = {low, up, pieces, count, ranks, rows, width};
    float *units = raised(&a);
    #pragma omp parallel if (rows * width > MANY)
    {
        float *factors = aligned_alloc(64, filled(TALL * ranks * sizeof(float), 64));
        float *block = aligned_alloc(64, TALL * STRIDE * sizeof(float));
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row += TALL)
            for (int64_t column = 0; column < width; column += BLOCK) {
                const int64_t columns = smaller(BLOCK, width - column);
                const float *more = brought(&a, units, row, column, columns, factors, block);
                for (int64_t i = 0; i < smaller(TALL, rows - row); i++) {
                    const int64_t at = (row + i) * width + column;
                    sum_up(product + at, 0, more + i * STRIDE, 0, residual ? residual + at : 0, out + at, columns);
                }
            }
        free(factors);
        free(block);
    }
    free(units);
}

/* The first heads of each row turned by its position, by [size] angles of which both halves are the same; the rest is
   copied. */
void turn(const float *joined, const float *cosine, const float *sine, float sign, float *out, int64_t rows,
          int64_t heads, int64_t size, int64_t width) {
    const int64_t half = size / 2;
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const float *c = cosine + row * size, *s = sine + row * size, *from = joined + row * width;
        float *into = out + row * width;
        for (int64_t head = 0; head < heads; head++, from += size, into += size)
            #pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                const float first = from[i], second = from[i + half], by = sign * s[i];
                into[i] = first * c[i] - second * by;
                into[i + half] = second * c[i] + first * by;
            }
        if (into != from) memcpy(into, from, (width - heads * size) * sizeof(float));
    }
}

/* into = silu(gate) up; what there is to be added to gate and up is added first, and kept there. What is null has to be
   known when this is compiled: a loop that asks is no loop of vectors. */
INLINE void through_gate(element *gate, element *up, const element *delta_gate, const element *delta_up,
                         const float *more_gate, const float *more_up, element *into, int64_t width) {
    #pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float g = wide(gate[i]), u = wide(up[i]);
        if (delta_gate) g += wide(delta_gate[i]), u += wide(delta_up[i]);
        if (more_gate) g += more_gate[i], u += more_up[i];
        if (delta_gate || more_gate) gate[i] = narrow(g), up[i] = narrow(u);
        into[i] = narrow(g * sigmoid(g) * u);
    }
}

/* out [rows, width] = silu(gate) up of both = [gate, up]; a delta is added to both first, and kept there. */
void gated(element *both, const element *delta, element *out, int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        element *gate = both + row * 2 * width, *into = out + row * width;
        const element *more = delta + row * 2 * width;
        if (delta) through_gate(gate, gate + width, more, more + width, 0, 0, into, width);
        else through_gate(gate, gate + width, 0, 0, 0, 0, into, width);
    }
}

/* The same with what adapters add. */
void gated_adapted(element *both, const element *low, const element *up, const int64_t *pieces, int64_t count,
                   int64_t ranks, element *out, int64_t rows, int64_t width) {
    const adapters a = {low, up, pieces, count, ranks, rows, 2 * width};
    float *units = raised(&a);
    #pragma omp parallel if (rows * width > MANY)
    {
        float *factors = aligned_alloc(64, filled(TALL * ranks * sizeof(float), 64));
        float *block = aligned_alloc(64, 2 * TALL * STRIDE * sizeof(float));
        #pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row += TALL)
            for (int64_t column = 0; column < width; column += BLOCK) {
                const int64_t columns = smaller(BLOCK, width - column);
                const float *gate = brought(&a, units, row, column, columns, factors, block);
                const float *other = brought(&a, units, row, width + column, columns, factors, block + TALL * STRIDE);
                for (int64_t i = 0; i < smaller(TALL, rows - row); i++) {
                    element *at = both + (row + i) * 2 * width + column;
                    through_gate(at, at + width, 0, 0, gate + i * STRIDE, other + i * STRIDE,
                                 out + (row + i) * width + column, columns);
                }
            }
        free(factors);
        free(block);
    }
    free(units);
}

/* Gradients of gate and up, side by side: d u s (1 + g (1 - s)) and d g s, with s = sigmoid(g). */
void gated_back(const element *both, const element *grad, element *back, int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const element *gate = both + row * 2 * width, *up = gate + width, *from = grad + row * width;
        element *into = back + row * 2 * width;
        #pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            const float g = wide(gate[i]), s = sigmoid(g), d = wide(from[i]);
            into[i] = narrow(d * wide(up[i]) * s * (1.0f + g * (1.0f - s)));
            into[width + i] = narrow(d * g * s);
        }
    }
}

/* Of each row of scores the logarithm of the sum of e^score, and the place of the highest; with `shares` the row's
   probabilities take the place of its scores. */
void likelihoods(element *scores, float *normaliser, int64_t *likeliest, int64_t rows, int64_t width, int64_t shares) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        element *line = scores + row * width;
        float top = -INFINITY, sum = 0;
        #pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < width; i++) {
            const float score = wide(line[i]);
            top = score > top ? score : top;
        }
        int64_t place = 0;
        while (place < width - 1 && wide(line[place]) != top) place++;
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += exponential(wide(line[i]) - top);
        normaliser[row] = top + logf(sum);
        likeliest[row] = place;
        if (shares) {
            const float by = 1.0f / sum;
            #pragma omp simd
            for (int64_t i = 0; i < width; i++) line[i] = narrow(exponential(wide(line[i]) - top) * by);
        }
    }
}
