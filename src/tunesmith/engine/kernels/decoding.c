/* A decoding step's attention: one new token a row against all that the row holds. The time is that of reading keys and
   values, which lie turned, so that a register takes as many places as it can. */

#include "element.h"

#define TOGETHER 4 /* heads of a group that are looked up together */
#define RUNS 8 /* columns of keys that are read side by side */
#define AHEAD 16 /* columns by which keys and values are asked for before they are needed */

/* scores [heads, room] of some queries with keys [size, room] at the places [from, to). Keys are read in long runs side
   by side, which the processor foresees, and asked for ahead. */
INLINE void weigh(const float *query, const element *keys, float *scores, int64_t from, int64_t to, int64_t room,
                  int64_t size, float scale, const int heads) {
    for (int64_t first = 0, last; first < size; first = last) {
        last = smaller(first + RUNS, size);
        for (int64_t at = from; at < to; at += PANEL) {
            lanes left[TOGETHER] = {0}, right[TOGETHER] = {0};
            for (int64_t c = first; c < last; c++) {
                const lanes one = widened(keys + c * room + at), two = widened(keys + c * room + at + LANES);
                ASK_FOR(keys + (c + AHEAD) * room + at);
                #pragma GCC unroll 4
                for (int i = 0; i < heads; i++) {
                    left[i] += query[i * size + c] * one;
                    right[i] += query[i * size + c] * two;
                }
            }
            #pragma GCC unroll 4
            for (int i = 0; i < heads; i++) {
                lanes *into = (lanes *)(scores + i * room + at);
                into[0] = first ? into[0] + scale * left[i] : scale * left[i];
                into[1] = first ? into[1] + scale * right[i] : scale * right[i];
            }
        }
    }
}

/* out [heads, size]: each head's weights [heads, room] with values [size, room], from the place `at` to `end`. */
INLINE void blend(const float *weights, const element *values, element *out, int64_t at, int64_t end, int64_t room,
                  int64_t size, const int heads) {
    for (int64_t c = 0; c < size; c++) {
        lanes sums[TOGETHER] = {0};
        for (int64_t i = at; i < end; i += LANES) {
            const lanes value = widened(values + c * room + i);
            ASK_FOR(values + (c + AHEAD) * room + i);
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
INLINE void look_back(const float *query, const element *keys, const element *values, float *weights, element *out,
                      int64_t begin, int64_t end, int64_t room, int64_t size, float scale, const int heads) {
    const int64_t from = begin / PANEL * PANEL, to = filled(end, PANEL);
    weigh(query, keys, weights, from, to, room, size, scale, heads);
    for (int head = 0; head < heads; head++) {
        float *line = weights + head * room;
        softmax(line, begin, end);
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
            const float *from = joined + row * stride, *key = from + (heads + group) * size;
            const float *value = key + groups * size;
            for (int64_t c = 0; c < size; c++) {
                keys[c * room + end - 1] = narrow(key[c]);
                values[c * room + end - 1] = narrow(value[c]);
            }
            for (int64_t i = 0, many; i < repeats; i += many) {
                const float *query = from + (group * repeats + i) * size;
                element *into = out + (row * heads + group * repeats + i) * size;
                many = smaller(TOGETHER, repeats - i);
                #define LOOK_BACK(heads) \
                    look_back(query, keys, values, weights, into, begin, end, room, size, scale, heads)
                if (many == 4) LOOK_BACK(4);
                else if (many == 3) LOOK_BACK(3);
                else if (many == 2) LOOK_BACK(2);
                else LOOK_BACK(1);
            }
        }
        free(weights);
    }
}
