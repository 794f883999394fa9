/* Executes tapes: the operations of operations.py, with the same names, operands and results.

   Plain C without headers of torch or Python, so that one file serves all their versions; native.py
   hands over addresses. All numbers are float32, and arrays are contiguous except factors of
   products. Results equal those of Python up to rounding. They depend neither on the number of
   threads nor, apart from fused multiply-adds, on the instruction set: sums are formed in the order
   that is written here. */

#include "elementary.h"

#include <stdlib.h>
#include <string.h>

/* A loop whose iterations are independent even if arrays coincide, as in place. */
#if defined(__clang__)
#define EACH(size) _Pragma("clang loop vectorize(assume_safety)") LOOP(size)
#elif defined(__GNUC__)
#define EACH(size) _Pragma("GCC ivdep") LOOP(size)
#elif defined(_MSC_VER)
#define EACH(size) __pragma(loop(ivdep)) LOOP(size)
#else
#define EACH(size) LOOP(size)
#endif
#define LOOP(size) for (int64_t i = 0, end = (size); i < end; ++i)

typedef struct {
  void *data; /* NULL for None */
  int32_t rows, columns, row_step, column_step;
} Array;

/* An operation. Operands are in the order of its definition, separated by kind. */
typedef struct {
  int64_t code;
  Array arrays[7];
  double numbers[3];
} Step;

typedef struct {
  const Step *steps;
  int64_t count;
} Tape;

/* What a thread needs besides its tape: a copy of features, and the generator mt19937. */
typedef struct {
  float *rows;
  int64_t size;
  uint32_t state[624];
  int next;
} Lane;

/* Addresses from Python: products, and the number of MKL's threads for the calling thread (NULL
   with another BLAS). */
EXPORT void (*sgemm)(const char *, const char *, const int *, const int *, const int *,
                     const float *, const float *, const int *, const float *, const int *,
                     const float *, float *, const int *);
EXPORT int (*set_threads)(int);

#define OPERATION(name) static void name(const Step *o, Lane *lane)
#define DATA(i) ((float *)o->arrays[i].data)
#define ROWS(i) ((int64_t)o->arrays[i].rows)
#define COLUMNS(i) ((int64_t)o->arrays[i].columns)
#define SIZE(i) (ROWS(i) * COLUMNS(i))
#define NUMBER(i) ((float)o->numbers[i])

/* Products. */

/* Writes beta * target + a b, or with `turned` a b^T. Fortran reads rows as columns, so this is
   target^T = b^T a^T there. */
static void multiply(const Array *a, const Array *b, int turned, float beta, const Array *target) {
  const float one = 1.0f;
  const int m = target->columns, n = target->rows, k = a->columns;
  const int a_by_rows = a->column_step == 1, b_by_rows = b->column_step == 1;
  const int lda = a_by_rows ? a->row_step : a->column_step;
  const int ldb = b_by_rows ? b->row_step : b->column_step;
  if (m && n)
    sgemm(b_by_rows != turned ? "N" : "T", a_by_rows ? "N" : "T", &m, &n, &k, &one, b->data, &ldb,
          a->data, &lda, &beta, target->data, &target->row_step);
}

OPERATION(linear) {
  const float *bias = DATA(0), least = NUMBER(0) != 0 ? 0.0f : -INFINITY;
  multiply(&o->arrays[1], &o->arrays[2], 0, 0.0f, &o->arrays[5]);
  if (DATA(4)) multiply(&o->arrays[3], &o->arrays[4], 0, 1.0f, &o->arrays[5]);
  for (int64_t row = 0; row < ROWS(5); ++row) {
    float *to = DATA(5) + row * COLUMNS(5), by = bias[row];
    EACH(COLUMNS(5)) to[i] = to[i] + by < least ? least : to[i] + by;
  }
}

OPERATION(layer_pull) {
  float *active = DATA(2), *carried = DATA(3), *carried_on = DATA(4), *back = DATA(5);
  const float by = NUMBER(0);
  multiply(&o->arrays[0], &o->arrays[1], 0, 0.0f, &o->arrays[5]);
  if (carried) EACH(SIZE(5)) back[i] += carried[i];
  if (carried_on) memcpy(carried_on, back, SIZE(5) * sizeof(float));
  EACH(SIZE(5)) back[i] = active[i] <= 0.0f ? 0.0f : back[i] * by;
}

OPERATION(add_product) { multiply(&o->arrays[0], &o->arrays[1], 0, NUMBER(0), &o->arrays[2]); }

OPERATION(add_outer) { multiply(&o->arrays[0], &o->arrays[1], 1, NUMBER(0), &o->arrays[2]); }

enum { PARTS = 32 };

/* Each row is added up as PARTS sums of every PARTS-th number, which are then added by halves. */
OPERATION(add_columns) {
  const int64_t columns = COLUMNS(0);
  for (int64_t row = 0; row < ROWS(0); ++row) {
    const float *from = DATA(0) + row * columns;
    float *to = DATA(2) + row, part[PARTS] = {0};
    int64_t i = 0;
    for (; i + PARTS <= columns; i += PARTS)
      for (int j = 0; j < PARTS; ++j) part[j] += from[i + j];
    for (int j = 0; i + j < columns; ++j) part[j] += from[i + j];
    for (int size = PARTS / 2; size; size /= 2)
      for (int j = 0; j < size; ++j) part[j] += part[j + size];
    *to = part[0] + (NUMBER(0) != 0 ? *to : 0.0f);
  }
}

OPERATION(project) {
  float *x = DATA(0), *direction = DATA(1), *to = DATA(2);
  memset(to, 0, COLUMNS(0) * sizeof(float));
  for (int64_t row = 0; row < ROWS(0); ++row, x += COLUMNS(0))
    EACH(COLUMNS(0)) to[i] += x[i] * direction[row];
}

/* Copies, and arithmetic of one kind. */

OPERATION(copy) { memmove(DATA(1), DATA(0), SIZE(1) * sizeof(float)); }

OPERATION(add) {
  float *from = DATA(0), *to = DATA(1);
  EACH(SIZE(1)) to[i] += from[i];
}

OPERATION(negate) {
  float *to = DATA(0);
  EACH(SIZE(0)) to[i] = -to[i];
}

OPERATION(relu) {
  float *from = DATA(0), *to = DATA(1);
  EACH(SIZE(1)) to[i] = from[i] < 0.0f ? 0.0f : from[i];
}

OPERATION(shift) {
  float *x = DATA(0), *by = DATA(1), *to = DATA(2), sign = NUMBER(0);
  EACH(SIZE(2)) to[i] = x[i] + sign * by[i];
}

OPERATION(residual) {
  float *active = DATA(2), *to = DATA(3);
  for (int part = 0; part < 2 && DATA(part); ++part) { /* h, and the context below it */
    float *from = DATA(part);
    EACH(SIZE(part)) to[i] = from[i] + active[i];
    to += SIZE(part);
    active += SIZE(part);
  }
}

/* Sources and targets may share memory. */
OPERATION(move) {
  const int64_t *index = o->arrays[0].data, columns = COLUMNS(1), bytes = columns * 4;
  const int64_t upper = ROWS(3), rows = upper + (DATA(4) ? ROWS(4) : 0);
  if (lane->size < rows * columns) {
    free(lane->rows);
    lane->size = rows * columns;
    lane->rows = malloc(lane->size * sizeof(float));
  }
  memcpy(lane->rows, DATA(1), ROWS(1) * bytes);
  if (DATA(2)) memcpy(lane->rows + SIZE(1), DATA(2), ROWS(2) * bytes);
  for (int64_t row = 0; row < rows; ++row) {
    float *to = row < upper ? DATA(3) + row * columns : DATA(4) + (row - upper) * columns;
    memcpy(to, lane->rows + (index ? index[row] : row) * columns, bytes);
  }
}

/* Dropout, with the generator of torch: mt19937 of Matsumoto and Nishimura (1998). */

OPERATION(seed) {
  uint32_t *state = lane->state;
  state[0] = (uint32_t) * (int64_t *)o->arrays[0].data;
  for (uint32_t i = 1; i < 624; ++i)
    state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
  lane->next = 624;
}

static uint64_t draw(Lane *lane) {
  uint32_t *state = lane->state;
  if (lane->next == 624) {
    for (int i = 0; i < 624; ++i) {
      const uint32_t y = (state[i] & 0x80000000u) | (state[(i + 1) % 624] & 0x7fffffffu);
      state[i] = state[(i + 397) % 624] ^ (y >> 1) ^ (y & 1u ? 0x9908b0dfu : 0u);
    }
    lane->next = 0;
  }
  uint32_t y = state[lane->next++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

OPERATION(drop) {
  uint64_t *words = o->arrays[0].data;
  const uint8_t *level = o->arrays[1].data, least = (uint8_t)o->numbers[0];
  const float by = NUMBER(1);
  float *h = DATA(3);
  LOOP(SIZE(0)) {
    const uint64_t high = draw(lane);
    words[i] = high << 32 | draw(lane);
  }
  EACH(SIZE(3)) h[i] = level[i] < least ? 0.0f : h[i] * by;
}

/* Couplings. The answer of a conditioner has raw log-scales above shifts. */

OPERATION(scale) {
  float *raw = DATA(0), *sigmoid = DATA(2), *factor = DATA(3);
  const float offset = *DATA(1), steepness = NUMBER(0), width = NUMBER(1);
  EACH(SIZE(3)) {
    sigmoid[i] = sigmoid_of(raw[i] * steepness);
    factor[i] = exp2_of(offset + width * sigmoid[i]);
  }
}

/* Writes y and the factor, and adds its logarithm in bits to `sum`. */
static inline void transform(float x, float bits, float by, int inverse, float *factor, float *sum,
                             float *y) {
  const float e = exp2_of(bits);
  *sum += bits;
  *factor = e;
  *y = inverse ? (x - by) * e : x * e + by;
}

OPERATION(affine) {
  float *x = DATA(0), *raw = DATA(1), *by = raw + SIZE(4), *sigmoid = DATA(3);
  float *factor = DATA(4), *sum = DATA(5), *y = DATA(6);
  const float offset = *DATA(2), steepness = NUMBER(0), width = NUMBER(1);
  EACH(SIZE(4)) {
    sigmoid[i] = sigmoid_of(raw[i] * steepness);
    transform(x[i], offset + width * sigmoid[i], by[i], width < 0, factor + i, sum + i, y + i);
  }
}

OPERATION(affine_back) {
  float *factor = DATA(0), *by = DATA(1) + SIZE(0), *y = DATA(2), direction = NUMBER(0);
  EACH(SIZE(2)) y[i] = direction > 0 ? (y[i] - by[i]) / factor[i] : y[i] / factor[i] + by[i];
}

/* The slope of the log-scales is s (1 - s) for the sigmoid s, or what a curve has written. */
static inline void pull(const Step *o, int is_curve) {
  const int64_t columns = COLUMNS(5), half = SIZE(5);
  const float weight = NUMBER(0), *log_det = DATA(4);
  for (int64_t row = 0, at = 0; row < ROWS(5); ++row, at += columns) {
    float *x = DATA(0) + at, *factor = DATA(1) + at, *s = DATA(2) + at;
    float *by = DATA(3) + half + at, *back = DATA(5) + at, *raw = DATA(6) + at, *of_y = raw + half;
    EACH(columns) {
      const float of_x = of_y[i] * factor[i], moved = weight < 0 ? x[i] - by[i] : x[i];
      back[i] = of_x;
      of_y[i] = weight < 0 ? -of_x : of_y[i];
      raw[i] = (log_det[i] + weight * of_x * moved) * (is_curve ? s[i] : (1.0f - s[i]) * s[i]);
    }
  }
}

OPERATION(affine_pull) { pull(o, 0); }

OPERATION(curve_pull) { pull(o, 1); }

/* The curves of `write_curve` in operations.py, by the same numbers; see there. */
static void write_curve(const Step *o, const float *raw, float *slope, float *bits, int64_t size) {
  const int number = (int)o->numbers[0];
  const double exact = o->numbers[2] * 1.4426950408889634, bound = o->numbers[1];
  const double turn = acos(-1.0) / (2 * bound);
  const float unit = (float)exact, by = (float)(1 / bound), least = (float)exp(-bound);
  const float steepness = (float)turn, radius = (float)(exact / turn);
  const float sign = number == 4 ? -1.0f : 1.0f; /* logsigmoid(r) = -softplus(-r) */
  if (number == 0) EACH(size) {
    const float s = 1.0f / (fabsf(raw[i]) * by + 1.0f);
    bits[i] = raw[i] * s * unit;
    slope[i] = s * s;
  } else if (number == 1) LOOP(size) {
    const float r = raw[i] * steepness;
    bits[i] = atanf(r) * radius;
    slope[i] = 1.0f / (r * r + 1.0f);
  } else if (number == 2) EACH(size) {
    bits[i] = raw[i] * unit;
    slope[i] = 1.0f;
  } else if (number == 3) LOOP(size) {
    const float s = sigmoid_of(raw[i]), sum = s + least;
    bits[i] = logf(sum) * unit;
    slope[i] = (s - s * s) / sum;
  } else LOOP(size) {
    const float r = sign * raw[i], above = r > 0.0f ? r : 0.0f;
    bits[i] = (r == r ? above + log1pf(exp_of(-fabsf(r))) : r) * (sign * unit);
    slope[i] = sigmoid_of(r);
  }
}

OPERATION(curve) {
  float *factor = DATA(2);
  write_curve(o, DATA(0), DATA(1), factor, SIZE(2));
  EACH(SIZE(2)) factor[i] = exp2_of(factor[i]);
}

OPERATION(curve_affine) {
  float *x = DATA(0), *by = DATA(1) + SIZE(3), *factor = DATA(3), *sum = DATA(4), *y = DATA(5);
  write_curve(o, DATA(1), DATA(2), factor, SIZE(3));
  EACH(SIZE(3)) transform(x[i], factor[i], by[i], NUMBER(2) < 0, factor + i, sum + i, y + i);
}

#define OPERATIONS(X) \
  X(copy) X(add) X(negate) X(move) X(project) X(linear) X(seed) X(drop) X(residual) X(scale) \
  X(affine) X(affine_back) X(affine_pull) X(curve) X(curve_affine) X(curve_pull) X(relu) \
  X(shift) X(layer_pull) X(add_product) X(add_outer) X(add_columns)
#define FUNCTION(name) name,
#define NAME(name) #name " "

static void (*const functions[])(const Step *, Lane *) = {OPERATIONS(FUNCTION)};

/* The operations in the order of their codes, and the digest of the source, for Python. */
EXPORT const char *const names = OPERATIONS(NAME), *const source = SOURCE;

/* Executes the tapes `first` to `last` - 1 on the calling thread, with products on this thread. */
EXPORT void execute(int64_t first, int64_t last, void *tapes) {
  Lane lane = {0};
  const int before = set_threads ? set_threads(1) : 0;
  for (const Tape *tape = (const Tape *)tapes + first; tape < (const Tape *)tapes + last; ++tape)
    LOOP(tape->count) functions[tape->steps[i].code](tape->steps + i, &lane);
  if (set_threads) set_threads(before);
  free(lane.rows);
}

/* Executes each tape on a thread of torch. */
EXPORT void execute_all(ParallelFor *loop, int64_t count, void *tapes) {
  loop(0, count, 1, execute, tapes);
}
