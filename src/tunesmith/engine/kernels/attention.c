/* Attention of packed segments, a block of queries at a time; nothing of the size of queries x keys is kept.

   A span is up to 128 neighbouring queries of one segment with all keys they may see: ranges of flat positions of which
   the last ends with the queries. Its keys and values are laid out once for each group of heads that shares them; then
   a block of queries (all heads of the group) takes two products and a softmax. Backward computes the weights again
   from what forward keeps of each softmax, its normaliser (Dao et al. 2022, arXiv 2205.14135, algorithm 4).

   Scores are products of float32; weights, gradients and what they are multiplied by may be units of two bfloat16. Sums
   are float32. */

#include "element.h"

#define BLOCK 48 /* rows (a query and a head) that are looked up together */

/* What is asked: joined [tokens, heads + 2 groups, size] (queries, keys, values) and its spans. */
typedef struct {
    const float *joined;
    const int32_t *queries, *offsets, *ranges; /* [spans, 2], [spans + 1] into ranges, [*, 2] */
    int64_t spans, heads, groups, size, window;
    float scale;
} asked;

/* Where one thread works: rows of `padded` numbers for keys, values and queries, rows of `most` for scores; turned are
   keys, and values as units. */
typedef struct {
    float *whole, *keys, *values, *keys_turned, *values_turned, *key_units, *value_units, *back_keys, *back_values;
    float *scores, *slopes, *units, *query, *upper, *found;
    int64_t padded, most;
} bench;

/* Numbers as units of neighbours along a row, or of one row and the next, in `into`; as they are where a unit is one.
   Rows are filled up to a multiple of PANEL. */
static const float *along(const float *from, int64_t width, int64_t rows, int64_t columns, float *into) {
    if (TERMS == 1) return from;
    for (int64_t row = 0; row < rows; row++, from += width)
        for (int64_t c = 0; c < columns; c += PANEL)
            unite(from + c, from + c + LANES, 0, into + (row * width + c) / 2);
    return into;
}

static const float *across(const float *from, int64_t width, int64_t rows, int64_t columns, float *into) {
    if (TERMS == 1) return from;
    for (int64_t row = 0; row < rows; row += 2, from += 2 * width)
        for (int64_t c = 0; c < columns; c += LANES)
            unite(from + c, row + 1 < rows ? from + width + c : 0, 1, into + row / 2 * width + c);
    return into;
}

static int64_t keys_of(const asked *a, int64_t span) {
    int64_t count = 0;
    for (int32_t at = a->offsets[span]; at < a->offsets[span + 1]; at++)
        count += a->ranges[2 * at + 1] - a->ranges[2 * at];
    return count;
}

static int64_t most_keys(const asked *a) {
    int64_t most = 0;
    for (int64_t span = 0; span < a->spans; span++) most = larger(most, keys_of(a, span));
    return filled(most, PANEL);
}

static int64_t stride_of(const asked *a) { return (a->heads + 2 * a->groups) * a->size; }

static bench laid(const asked *a, int64_t most, int backward) {
    bench b = {.padded = filled(a->size, PANEL), .most = most};
    const int64_t rows = filled(larger(BLOCK, a->heads / a->groups), TALL);
    const int64_t side = most * b.padded, line = rows * most, block = rows * b.padded, longest = larger(line, block);
    const int64_t bytes = filled(((backward ? 8 : 4) * side + (backward ? 2 : 1) * line + longest + 3 * block) * 4, 64);
    float *at = b.whole = aligned_alloc(64, bytes);
    memset(at, 0, bytes);
    b.keys = at, at += side;
    b.values = at, at += side;
    b.keys_turned = at, at += side;
    b.value_units = at, at += side;
    if (backward) {
        b.key_units = at, at += side;
        b.values_turned = at, at += side;
        b.back_keys = at, at += side;
        b.back_values = at, at += side;
        b.slopes = at, at += line;
    }
    b.scores = at, at += line;
    b.units = at, at += longest;
    b.query = at, at += block;
    b.upper = at, at += block;
    b.found = at;
    return b;
}

/* The keys (or values) of a span from a column of `joined`, one below the other, and rows of zeros. */
static void collect(const asked *a, const bench *b, int64_t span, int64_t column, float *into) {
    const int64_t stride = stride_of(a);
    int64_t place = 0;
    for (int32_t at = a->offsets[span]; at < a->offsets[span + 1]; at++)
        for (int64_t key = a->ranges[2 * at]; key < a->ranges[2 * at + 1]; key++, place++)
            memcpy(into + place * b->padded, a->joined + key * stride + column, a->size * sizeof(float));
    memset(into + place * b->padded, 0, (filled(place, PANEL) - place) * b->padded * sizeof(float));
}

static void turn_over(const float *from, int64_t width, int64_t rows, int64_t columns, float *into, int64_t most) {
    for (int64_t c = 0; c < columns; c++)
        for (int64_t row = 0; row < rows; row++) into[c * most + row] = from[row * width + c];
}

/* Queries first to last of a span, their heads of one group: where they lie, and what each row of them sees. */
typedef struct {
    int64_t first, last, repeats, head, rows, tall, seen;
    int64_t before; /* keys before the one that stands at the first query itself */
} block;

static block block_of(const asked *a, int64_t span, int64_t group, int64_t first, int64_t keys) {
    block q = {.first = first, .repeats = a->heads / a->groups};
    q.head = group * q.repeats;
    q.last = smaller(first + larger(1, BLOCK / q.repeats), a->queries[2 * span + 1]);
    q.rows = (q.last - first) * q.repeats;
    q.tall = filled(q.rows, TALL);
    q.before = keys - (a->queries[2 * span + 1] - first);
    q.seen = q.before + q.last - first;
    return q;
}

/* Place of a row's token and head among [tokens, heads]. */
static inline int64_t place_of(const asked *a, const block *q, int64_t row) {
    return (q->first + row / q->repeats) * a->heads + q->head + row % q->repeats;
}

/* The keys a row sees: [begin, end). */
static inline int64_t end_of(const block *q, int64_t row) { return q->before + row / q->repeats + 1; }
static inline int64_t begin_of(const asked *a, int64_t end) { return a->window > 0 ? larger(0, end - a->window) : 0; }

/* Scaled queries, one row each, and their scores with every key of the span. */
static void look(const asked *a, const bench *b, const block *q) {
    for (int64_t row = 0; row < q->rows; row++) {
        const int64_t token = q->first + row / q->repeats, head = q->head + row % q->repeats;
        const float *from = a->joined + token * stride_of(a) + head * a->size;
        for (int64_t c = 0; c < a->size; c++) b->query[row * b->padded + c] = from[c] * a->scale;
    }
    multiply(b->query, b->padded, 1, b->keys_turned, b->most, b->scores, b->most, q->tall, a->size,
             filled(q->seen, PANEL), 0, 0);
}

/* The scores of a row become weights, zero where nothing is seen. Returns the logarithm of the softmax's sum. */
static float weigh(const asked *a, const bench *b, const block *q, int64_t row) {
    float *line = b->scores + row * b->most;
    const int64_t end = end_of(q, row), begin = begin_of(a, end);
    memset(line, 0, begin * sizeof(float));
    memset(line + end, 0, (filled(q->seen, PANEL) - end) * sizeof(float));
    return softmax(line, begin, end);
}

/* out [tokens, heads, size]; normaliser [tokens, heads] gets the logarithm of each softmax's sum, unless it is null. */
void attend(const float *joined, element *out, float *normaliser, const int32_t *queries, const int32_t *offsets,
            const int32_t *ranges, int64_t spans, int64_t heads, int64_t groups, int64_t size, int64_t window,
            float scale) {
    const asked a = {joined, queries, offsets, ranges, spans, heads, groups, size, window, scale};
    const int64_t most = most_keys(&a);
    #pragma omp parallel if (spans > 1)
    {
        const bench b = laid(&a, most, 0);
        #pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < spans * groups; item++) {
            const int64_t span = item / groups, group = item % groups, keys = keys_of(&a, span);
            collect(&a, &b, span, (heads + group) * size, b.keys);
            turn_over(b.keys, b.padded, keys, size, b.keys_turned, most);
            collect(&a, &b, span, (heads + groups + group) * size, b.values);
            const float *values = across(b.values, b.padded, keys, size, b.value_units);
            block q;
            for (int64_t first = queries[2 * span]; first < queries[2 * span + 1]; first = q.last) {
                q = block_of(&a, span, group, first, keys);
                look(&a, &b, &q);
                for (int64_t row = 0; row < q.rows; row++) {
                    const float sum = weigh(&a, &b, &q, row);
                    if (normaliser) normaliser[place_of(&a, &q, row)] = sum;
                }
                const float *weights = along(b.scores, most, q.rows, q.seen, b.units);
                multiply(weights, most / TERMS, 1, values, b.padded, b.found, b.padded, q.tall, units_of(q.seen),
                         b.padded, 0, 1);
                for (int64_t row = 0; row < q.rows; row++) {
                    element *into = out + place_of(&a, &q, row) * size;
                    for (int64_t c = 0; c < size; c++) into[c] = narrow(b.found[row * b.padded + c]);
                }
            }
        }
        free(b.whole);
    }
}

/* One row: scores become weights p, and the weights' gradients, d, those of the scores, p (d - sum p d); zero where
   nothing is seen. */
static void slope(const asked *a, const bench *b, const block *q, int64_t row, const float *normaliser) {
    float *p = b->scores + row * b->most, *d = b->slopes + row * b->most, along = 0;
    const int64_t end = end_of(q, row), begin = begin_of(a, end);
    const float less = normaliser[place_of(a, q, row)];
    #pragma omp simd reduction(+ : along)
    for (int64_t i = begin; i < end; i++) {
        p[i] = exponential(p[i] - less);
        along += p[i] * d[i];
    }
    #pragma omp simd
    for (int64_t i = begin; i < end; i++) d[i] = p[i] * (d[i] - along);
    for (int part = 0; part < 2; part++) {
        float *line = part ? d : p;
        memset(line, 0, begin * sizeof(float));
        memset(line + end, 0, (filled(q->seen, PANEL) - end) * sizeof(float));
    }
}

/* A block's gradients: of its queries into `back`, of the keys and values it sees onto those of the span. */
static void learn(const asked *a, const bench *b, const block *q, const float *normaliser, const element *grad,
                  const float *keys, float *back) {
    const int64_t size = a->size, padded = b->padded, most = b->most, tall = filled(q->seen, TALL);
    const int64_t wide_seen = filled(q->seen, PANEL);
    look(a, b, q);
    for (int64_t row = 0; row < q->rows; row++) {
        const element *from = grad + place_of(a, q, row) * size;
        for (int64_t c = 0; c < size; c++) b->upper[row * padded + c] = wide(from[c]);
    }
    const float *one = along(b->upper, padded, q->rows, size, b->units), *other;
    multiply(one, padded / TERMS, 1, b->values_turned, most, b->slopes, most, q->tall, units_of(size), wide_seen, 0, 1);
    for (int64_t row = 0; row < q->rows; row++) slope(a, b, q, row, normaliser);
    one = along(b->slopes, most, q->rows, q->seen, b->units);
    multiply(one, most / TERMS, 1, keys, padded, b->found, padded, q->tall, units_of(q->seen), padded, 0, 1);
    for (int64_t row = 0; row < q->rows; row++) {
        const int64_t token = q->first + row / q->repeats, head = q->head + row % q->repeats;
        float *into = back + token * stride_of(a) + head * size;
        for (int64_t c = 0; c < size; c++) into[c] = b->found[row * padded + c] * a->scale;
    }
    one = across(b->slopes, most, q->rows, tall, b->units), other = across(b->query, padded, q->rows, padded, b->found);
    multiply(one, 1, most, other, padded, b->back_keys, padded, tall, units_of(q->rows), padded, 1, 1);
    one = across(b->scores, most, q->rows, tall, b->units), other = across(b->upper, padded, q->rows, padded, b->found);
    multiply(one, 1, most, other, padded, b->back_values, padded, tall, units_of(q->rows), padded, 1, 1);
}

/* Add the gradients of a span's keys and values to those of their tokens, own [tokens, 2 groups, size]. */
static void scatter(const asked *a, const bench *b, int64_t span, int64_t group, float *own) {
    int64_t place = 0;
    for (int32_t at = a->offsets[span]; at < a->offsets[span + 1]; at++)
        for (int64_t key = a->ranges[2 * at]; key < a->ranges[2 * at + 1]; key++, place++) {
            float *into = own + (2 * a->groups * key + group) * a->size;
            for (int64_t c = 0; c < a->size; c++) {
                into[c] += b->back_keys[place * b->padded + c];
                into[a->groups * a->size + c] += b->back_values[place * b->padded + c];
            }
        }
}

static double work_of(const asked *a, int64_t span) {
    return (double)keys_of(a, span) * (a->queries[2 * span + 1] - a->queries[2 * span]);
}

/* back [tokens, heads + 2 groups, size] from grad [tokens, heads, size]. Keys are looked at by many, so each of so many
   threads sums their gradients in a part of spare [threads, tokens, 2 groups, size], and the parts are added up in
   order: the same threads give the same bits. */
void attend_back(const float *joined, const float *normaliser, const element *grad, float *back, float *spare,
                 int64_t threads, int64_t tokens, const int32_t *queries, const int32_t *offsets,
                 const int32_t *ranges, int64_t spans, int64_t heads, int64_t groups, int64_t size, int64_t window,
                 float scale) {
    const asked a = {joined, queries, offsets, ranges, spans, heads, groups, size, window, scale};
    const int64_t most = most_keys(&a), sides = 2 * groups * size, stride = stride_of(&a);
    double all = 0;
    for (int64_t span = 0; span < spans; span++) all += groups * work_of(&a, span);
    #pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int64_t thread = 0; thread < threads; thread++) {
        const bench b = laid(&a, most, 1);
        float *own = spare + thread * tokens * sides;
        double done = 0;
        memset(own, 0, tokens * sides * sizeof(float));
        for (int64_t item = 0; item < spans * groups; item++) {
            const int64_t group = item / spans, span = item % spans, keys = keys_of(&a, span);
            const double work = work_of(&a, span), middle = done + work / 2;
            done += work;
            if (smaller((int64_t)(middle / all * threads), threads - 1) != thread) continue;
            collect(&a, &b, span, (heads + group) * size, b.keys);
            turn_over(b.keys, b.padded, keys, size, b.keys_turned, most);
            const float *key_units = across(b.keys, b.padded, keys, size, b.key_units);
            collect(&a, &b, span, (heads + groups + group) * size, b.values);
            const float *value_units = along(b.values, b.padded, keys, size, b.value_units);
            turn_over(value_units, b.padded / TERMS, keys, units_of(size), b.values_turned, most);
            memset(b.back_keys, 0, filled(keys, TALL) * b.padded * sizeof(float));
            memset(b.back_values, 0, filled(keys, TALL) * b.padded * sizeof(float));
            block q;
            for (int64_t first = queries[2 * span]; first < queries[2 * span + 1]; first = q.last) {
                q = block_of(&a, span, group, first, keys);
                learn(&a, &b, &q, normaliser, grad, key_units, back);
            }
            scatter(&a, &b, span, group, own);
        }
        free(b.whole);
    }
    #pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < tokens; token++) {
        float *into = back + token * stride + heads * size;
        memcpy(into, spare + token * sides, sides * sizeof(float));
        for (int64_t thread = 1; thread < threads; thread++)
            for (int64_t c = 0; c < sides; c++) into[c] += spare[(thread * tokens + token) * sides + c];
    }
}
