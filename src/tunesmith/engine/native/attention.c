/* Attention of packed segments in float32, a block of queries at a time; nothing of the size of queries x keys is kept.

   A span is up to 128 neighbouring queries of one segment with all keys they may see: ranges of flat positions of which
   the last ends with the queries. Its keys and values are laid out once for each group of heads that shares them; then
   a block of queries (all heads of the group) takes two products and a softmax. Backward computes the weights again from
   what forward keeps of each softmax, its normaliser (Dao et al. 2022, arXiv 2205.14135, algorithm 4). */

#include "element.h"

#define PANEL (2 * LANES)
#define BLOCK 48 /* rows (a query and a head) that are looked up together */

/* What is asked: joined [tokens, heads + 2 groups, size] (queries, keys, values) and its spans. */
typedef struct {
    const float *joined;
    const int32_t *queries, *offsets, *ranges; /* [spans, 2], [spans + 1] into ranges, [*, 2] */
    int64_t spans, heads, groups, size, window;
    float scale;
} asked;

/* Where one thread works: rows of `padded` numbers for keys, values and queries, rows of `most` for scores. */
typedef struct {
    float *whole, *keys, *values, *keys_turned, *values_turned, *back_keys, *back_values, *scores, *slopes, *query, *upper, *found;
    int64_t padded, most;
} bench;

/* c [rows, columns] (+)= a b: a [rows, inner] by its strides `down` and `along`, b [inner, columns]; rows are a multiple
   of TALL, columns of PANEL. A panel of TALL x PANEL sums stays in registers. */
static inline __attribute__((always_inline)) void multiply(const float *a, int64_t down, int64_t along, const float *b,
                                                           int64_t width, float *c, int64_t stride, int64_t rows,
                                                           int64_t inner, int64_t columns, int onto) {
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
                    left[i] += from[i * down] * one;
                    right[i] += from[i * down] * two;
                }
            }
            #pragma GCC unroll 8
            for (int i = 0; i < TALL; i++) {
                *(lanes *)(into + i * stride) = left[i];
                *(lanes *)(into + i * stride + LANES) = right[i];
            }
        }
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
    const int64_t side = most * b.padded, line = rows * most, block = rows * b.padded;
    const int64_t bytes = filled(((backward ? 6 : 3) * side + (backward ? 2 : 1) * line + 3 * block) * 4, 64);
    float *at = b.whole = aligned_alloc(64, bytes);
    memset(at, 0, bytes);
    b.keys = at, at += side;
    b.values = at, at += side;
    b.keys_turned = at, at += side;
    if (backward) {
        b.values_turned = at, at += side;
        b.back_keys = at, at += side;
        b.back_values = at, at += side;
        b.slopes = at, at += line;
    }
    b.scores = at, at += line;
    b.query = at, at += block;
    b.upper = at, at += block;
    b.found = at;
    return b;
}

/* The keys (or values) of a span from a column of `joined`, one below the other, and the same turned, unless null. */
static void collect(const asked *a, const bench *b, int64_t span, int64_t column, float *plain, float *turned) {
    const int64_t stride = stride_of(a);
    int64_t place = 0;
    for (int32_t at = a->offsets[span]; at < a->offsets[span + 1]; at++)
        for (int64_t key = a->ranges[2 * at]; key < a->ranges[2 * at + 1]; key++, place++)
            memcpy(plain + place * b->padded, a->joined + key * stride + column, a->size * sizeof(float));
    for (int64_t c = 0; turned && c < a->size; c++)
        for (int64_t i = 0; i < place; i++) turned[c * b->most + i] = plain[i * b->padded + c];
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
    multiply(b->query, b->padded, 1, b->keys_turned, b->most, b->scores, b->most, q->tall, a->size, filled(q->seen, PANEL), 0);
}

/* out [tokens, heads, size]; normaliser [tokens, heads] gets the logarithm of each softmax's sum, unless it is null. */
void attend(const float *joined, element *out, float *normaliser, const int32_t *queries, const int32_t *offsets,
            const int32_t *ranges, int64_t spans, int64_t heads, int64_t groups, int64_t size, int64_t window, float scale) {
    const asked a = {joined, queries, offsets, ranges, spans, heads, groups, size, window, scale};
    const int64_t most = most_keys(&a);
    #pragma omp parallel if (spans > 1)
    {
        const bench b = laid(&a, most, 0);
        #pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < spans * groups; item++) {
            const int64_t span = item / groups, group = item % groups, keys = keys_of(&a, span);
            collect(&a, &b, span, (heads + group) * size, b.keys, b.keys_turned);
            collect(&a, &b, span, (heads + groups + group) * size, b.values, 0);
            block q;
            for (int64_t first = queries[2 * span]; first < queries[2 * span + 1]; first = q.last) {
                q = block_of(&a, span, group, first, keys);
                look(&a, &b, &q);
                for (int64_t row = 0; row < q.rows; row++) {
                    float *line = b.scores + row * most, top = -INFINITY, sum = 0;
                    const int64_t end = end_of(&q, row), begin = begin_of(&a, end);
                    #pragma omp simd reduction(max : top)
                    for (int64_t i = begin; i < end; i++) top = line[i] > top ? line[i] : top;
                    #pragma omp simd reduction(+ : sum)
                    for (int64_t i = begin; i < end; i++) sum += line[i] = exponential(line[i] - top);
                    const float by = 1.0f / sum;
                    #pragma omp simd
                    for (int64_t i = begin; i < end; i++) line[i] *= by;
                    memset(line, 0, begin * sizeof(float));
                    memset(line + end, 0, (q.seen - end) * sizeof(float));
                    if (normaliser) normaliser[place_of(&a, &q, row)] = top + logf(sum);
                }
                multiply(b.scores, most, 1, b.values, b.padded, b.found, b.padded, q.tall, q.seen, b.padded, 0);
                for (int64_t row = 0; row < q.rows; row++) {
                    element *into = out + place_of(&a, &q, row) * size;
                    for (int64_t c = 0; c < size; c++) into[c] = narrow(b.found[row * b.padded + c]);
                }
            }
        }
        free(b.whole);
    }
}

/* One row: scores become weights p, and what the weights' gradients are, d, becomes that of the scores, p (d - sum p d);
   zero where nothing is seen. */
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

/* back [tokens, heads + 2 groups, size] from grad [tokens, heads, size]. Keys are looked at by many, so each of so many
   threads sums their gradients in a part of spare [threads, tokens, 2 groups, size], and the parts are added up in order:
   the same threads give the same bits. */
void attend_back(const float *joined, const float *normaliser, const element *grad, float *back,
                 float *spare, int64_t threads, int64_t tokens, const int32_t *queries, const int32_t *offsets,
                 const int32_t *ranges, int64_t spans, int64_t heads, int64_t groups, int64_t size, int64_t window, float scale) {
    const asked a = {joined, queries, offsets, ranges, spans, heads, groups, size, window, scale};
    const int64_t most = most_keys(&a), sides = 2 * groups * size, stride = stride_of(&a);
    double all = 0;
    for (int64_t span = 0; span < spans; span++)
        all += (double)groups * keys_of(&a, span) * (queries[2 * span + 1] - queries[2 * span]);
    #pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int64_t thread = 0; thread < threads; thread++) {
        const bench b = laid(&a, most, 1);
        float *own = spare + thread * tokens * sides;
        double done = 0;
        memset(own, 0, tokens * sides * sizeof(float));
        for (int64_t item = 0; item < spans * groups; item++) {
            const int64_t group = item / spans, span = item % spans, keys = keys_of(&a, span);
            const double work = (double)keys * (queries[2 * span + 1] - queries[2 * span]), middle = done + work / 2;
            done += work;
            if (smaller((int64_t)(middle / all * threads), threads - 1) != thread) continue;
            collect(&a, &b, span, (heads + group) * size, b.keys, b.keys_turned);
            collect(&a, &b, span, (heads + groups + group) * size, b.values, b.values_turned);
            memset(b.back_keys, 0, filled(keys, TALL) * b.padded * sizeof(float));
            memset(b.back_values, 0, filled(keys, TALL) * b.padded * sizeof(float));
            block q;
            for (int64_t first = queries[2 * span]; first < queries[2 * span + 1]; first = q.last) {
                q = block_of(&a, span, group, first, keys);
                look(&a, &b, &q);
                for (int64_t row = 0; row < q.rows; row++) {
                    const element *from = grad + place_of(&a, &q, row) * size;
                    for (int64_t c = 0; c < size; c++) b.upper[row * b.padded + c] = wide(from[c]);
                }
                multiply(b.upper, b.padded, 1, b.values_turned, most, b.slopes, most, q.tall, size, filled(q.seen, PANEL), 0);
                for (int64_t row = 0; row < q.rows; row++) slope(&a, &b, &q, row, normaliser);
                multiply(b.slopes, most, 1, b.keys, b.padded, b.found, b.padded, q.tall, q.seen, b.padded, 0);
                for (int64_t row = 0; row < q.rows; row++) {
                    const int64_t token = q.first + row / q.repeats, head = q.head + row % q.repeats;
                    float *into = back + token * stride + head * size;
                    for (int64_t c = 0; c < size; c++) into[c] = b.found[row * b.padded + c] * scale;
                }
                const int64_t tall = filled(q.seen, TALL);
                multiply(b.slopes, 1, most, b.query, b.padded, b.back_keys, b.padded, tall, q.rows, b.padded, 1);
                multiply(b.scores, 1, most, b.upper, b.padded, b.back_values, b.padded, tall, q.rows, b.padded, 1);
            }
            int64_t place = 0;
            for (int32_t at = offsets[span]; at < offsets[span + 1]; at++)
                for (int64_t key = ranges[2 * at]; key < ranges[2 * at + 1]; key++, place++) {
                    float *into = own + key * sides + group * size;
                    for (int64_t c = 0; c < size; c++) {
                        into[c] += b.back_keys[place * b.padded + c];
                        into[groups * size + c] += b.back_values[place * b.padded + c];
                    }
                }
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

#define TOGETHER 4 /* heads of a group that are looked up together */

/* scores [heads, room] of some queries with keys [size, room], from the place `at` on, a panel at a time. */
static inline __attribute__((always_inline)) void weigh(const float *query, const element *keys, float *scores, int64_t at,
                                                        int64_t room, int64_t size, float scale, const int heads) {
    lanes left[TOGETHER] = {0}, right[TOGETHER] = {0};
    for (int64_t c = 0; c < size; c++) {
        const lanes one = widened(keys + c * room + at), two = widened(keys + c * room + at + LANES);
        #pragma GCC unroll 4
        for (int i = 0; i < heads; i++) {
            left[i] += query[i * size + c] * one;
            right[i] += query[i * size + c] * two;
        }
    }
    for (int i = 0; i < heads; i++) {
        left[i] *= scale, right[i] *= scale;
        memcpy(scores + i * room + at, left + i, sizeof(lanes));
        memcpy(scores + i * room + at + LANES, right + i, sizeof(lanes));
    }
}

/* out [heads, size]: each head's weights [heads, room] with values [size, room], from the place `at` to `end`. */
static inline __attribute__((always_inline)) void blend(const float *weights, const element *values, element *out, int64_t at,
                                                        int64_t end, int64_t room, int64_t size, const int heads) {
    for (int64_t c = 0; c < size; c++) {
        lanes sums[TOGETHER] = {0};
        for (int64_t i = at; i < end; i += LANES) {
            const lanes value = widened(values + c * room + i);
            #pragma GCC unroll 4
            for (int head = 0; head < heads; head++) {
                lanes weight;
                memcpy(&weight, weights + head * room + i, sizeof weight);
                sums[head] += weight * value;
            }
        }
        for (int head = 0; head < heads; head++) out[head * size + c] = narrow(added(sums[head]));
    }
}

/* Some heads of one row: out [heads, size]. The row holds keys and values at the places [begin, end). */
static inline __attribute__((always_inline)) void look_back(const float *query, const element *keys, const element *values,
                                                            float *weights, element *out, int64_t begin, int64_t end,
                                                            int64_t room, int64_t size, float scale, const int heads) {
    const int64_t from = begin / PANEL * PANEL, to = filled(end, PANEL);
    for (int64_t at = from; at < to; at += PANEL) weigh(query, keys, weights, at, room, size, scale, heads);
    for (int head = 0; head < heads; head++) {
        float *line = weights + head * room, top = -INFINITY, sum = 0;
        #pragma omp simd reduction(max : top)
        for (int64_t i = begin; i < end; i++) top = line[i] > top ? line[i] : top;
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = begin; i < end; i++) sum += line[i] = exponential(line[i] - top);
        const float by = 1.0f / sum;
        #pragma omp simd
        for (int64_t i = begin; i < end; i++) line[i] *= by;
        memset(line + from, 0, (begin - from) * sizeof(float));
        memset(line + end, 0, (to - end) * sizeof(float));
    }
    blend(weights, values, out, from, to, room, size, heads);
}

/* One new token a row, joined [rows, heads + 2 groups, size]: its key and value are kept at the row's length in
   kept [2, rows, groups, size, room], then it looks at all the row holds. out [rows, heads, size]. Room is a multiple
   of PANEL; what nothing was kept at holds numbers. */
void decode(const float *joined, element *kept, const int64_t *lengths, element *out, int64_t rows, int64_t heads,
            int64_t groups, int64_t room, int64_t size, int64_t window, float scale) {
    const int64_t repeats = heads / groups, stride = (heads + 2 * groups) * size;
    #pragma omp parallel if (rows * groups > 1)
    {
        float *weights = aligned_alloc(64, TOGETHER * room * sizeof(float));
        #pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < rows * groups; item++) {
            const int64_t row = item / groups, group = item % groups, end = lengths[row] + 1;
            const int64_t begin = window > 0 ? larger(0, end - window) : 0;
            element *keys = kept + item * room * size, *values = keys + rows * groups * room * size;
            const float *from = joined + row * stride, *key = from + (heads + group) * size, *value = key + groups * size;
            for (int64_t c = 0; c < size; c++) {
                keys[c * room + end - 1] = narrow(key[c]);
                values[c * room + end - 1] = narrow(value[c]);
            }
            for (int64_t i = 0, many; i < repeats; i += many) {
                const float *query = from + (group * repeats + i) * size;
                element *into = out + (row * heads + group * repeats + i) * size;
                many = smaller(TOGETHER, repeats - i);
                if (many == 4) look_back(query, keys, values, weights, into, begin, end, room, size, scale, 4);
                else if (many == 3) look_back(query, keys, values, weights, into, begin, end, room, size, scale, 3);
                else if (many == 2) look_back(query, keys, values, weights, into, begin, end, room, size, scale, 2);
                else look_back(query, keys, values, weights, into, begin, end, room, size, scale, 1);
            }
        }
        free(weights);
    }
}
