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
void norm_back(const float *x, const float *weight, const float *scale, const element *grad, float *back, int64_t rows,
               int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width, by = scale[row];
        const element *g = grad + row * width;
        float *into = back + row * width, along = 0;
        #pragma omp simd reduction(+ : along)
        for (int64_t i = 0; i < width; i++) along += wide(g[i]) * weight[i] * from[i];
        along *= by * by / width;
        #pragma omp simd
        for (int64_t i = 0; i < width; i++) into[i] = (wide(g[i]) * weight[i] - from[i] * along) * by;
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

/* out = product (+ delta) (+ bias [width]) (+ residual), summed in float32; what is null is left out. */
void total(const element *product, const element *delta, const float *bias, const float *residual, float *out,
           int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * width;
        #pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            float value = wide(product[at + i]);
            if (delta) value += wide(delta[at + i]);
            if (bias) value += bias[i];
            if (residual) value += residual[at + i];
            out[at + i] = value;
        }
    }
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

/* out [rows, width] = silu(gate) up of both = [gate, up]; a delta is added to both first, and kept there. */
void gated(element *both, const element *delta, element *out, int64_t rows, int64_t width) {
    #pragma omp parallel for schedule(static) if (rows * width > MANY)
    for (int64_t row = 0; row < rows; row++) {
        element *gate = both + row * 2 * width, *up = gate + width, *into = out + row * width;
        const element *more = delta + row * 2 * width;
        if (delta)
            #pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                const float g = wide(gate[i]) + wide(more[i]), u = wide(up[i]) + wide(more[width + i]);
                gate[i] = narrow(g);
                up[i] = narrow(u);
                into[i] = narrow(g * sigmoid(g) * u);
            }
        else
            #pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                const float g = wide(gate[i]);
                into[i] = narrow(g * sigmoid(g) * wide(up[i]));
            }
    }
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
