/* Rational-quadratic splines of float32 points: values, log-slopes and their derivatives.

   Formulas and names are those of spline.py. Points are handled in tiles, in which each quantity
   is an array over the points, so that compilers vectorize all loops. Results equal those of Python
   up to rounding, and do not depend on the number of threads. */

#include "elementary.h"

typedef struct {
  int64_t columns, bins; /* points in a row, bins of a spline */
  double bound, min_bin, slope_bound;
  int64_t is_output;           /* whether the points are outputs y */
  const float *points, *raw;   /* (rows, columns), (rows, parameters, columns) */
  const float *by_y, *by_rows; /* cotangents of the values and log-determinants, or NULL */
  float *values, *log_det;     /* without cotangents: y or x, (rows, columns), and (rows) */
  float *by_x, *by_raw;        /* results with cotangents */
} Spline;

static float bounded(float raw, float bound) {
  return 2 * bound * sigmoid_of(raw * (2 / bound)) - bound;
}

static float bounded_slope(float raw, float bound) {
  return 4 * sigmoid_of(raw * (2 / bound)) * sigmoid_of(raw * (-2 / bound));
}

#define TILE 64
#define BINS 64 /* largest number of bins */
#define EACH_POINT for (int t = 0; t < TILE; ++t)

typedef float Points[TILE];

typedef struct {
  Points x, y, u, v, s, d0, d1, n, m, sum, q, x0, y0, width, height, raw0, raw1, safe, index;
  Points totals[2], shares[2][BINS]; /* exponentials of a softmax, and their sums */
} Piece;

static int within(float x, float bound) { return x < bound && x > -bound; }

/* Finds the piece of each point and its position there; x and y are in `piece`. */
static void locate(const Spline *o, const Points *raw, Piece *piece) {
  const int bins = (int)o->bins;
  const float bound = (float)o->bound, slope_bound = (float)o->slope_bound;
  const float free = (float)(2 * o->bound * (1 - o->min_bin));
  const double least = 2 * o->bound * o->min_bin / (double)bins;
  const float *given = o->is_output ? piece->y : piece->x;
  Points factors[2], sums[2], x1, y1;
  EACH_POINT piece->safe[t] = within(given[t], bound) ? given[t] : 0.0f;
  for (int axis = 0; axis < 2; ++axis) {
    Points most;
    Points *share = piece->shares[axis];
    EACH_POINT most[t] = raw[axis * bins][t];
    for (int k = 1; k < bins; ++k) EACH_POINT most[t] = raw[axis * bins + k][t] > most[t] ? raw[axis * bins + k][t] : most[t];
    EACH_POINT piece->totals[axis][t] = 0.0f;
    for (int k = 0; k < bins; ++k)
      EACH_POINT {
        share[k][t] = exp_of(raw[axis * bins + k][t] - most[t]);
        piece->totals[axis][t] += share[k][t];
      }
    EACH_POINT factors[axis][t] = free / piece->totals[axis][t];
    EACH_POINT sums[axis][t] = 0.0f;
  }
  EACH_POINT {
    piece->x0[t] = piece->y0[t] = -bound;
    x1[t] = y1[t] = bound;
    piece->raw0[t] = piece->raw1[t] = piece->index[t] = 0.0f;
  }
  /* A point is on the piece that starts at the last knot before it. */
  for (int k = 1; k <= bins; ++k) {
    const float offset = (float)(least * k - o->bound);
    const Points *slopes = raw + 2 * bins - 1; /* of knot k at k */
    const float last = k == bins;
    EACH_POINT {
      sums[0][t] += piece->shares[0][k - 1][t];
      sums[1][t] += piece->shares[1][k - 1][t];
      const float x = last ? bound : sums[0][t] * factors[0][t] + offset;
      const float y = last ? bound : sums[1][t] * factors[1][t] + offset;
      const float slope = last ? 0.0f : slopes[last ? 0 : k][t];
      const int ends = piece->index[t] == (float)(k - 1);
      const int after = !last && piece->safe[t] >= (o->is_output ? y : x);
      x1[t] = ends ? x : x1[t];
      y1[t] = ends ? y : y1[t];
      piece->raw1[t] = ends ? slope : piece->raw1[t];
      piece->x0[t] = after ? x : piece->x0[t];
      piece->y0[t] = after ? y : piece->y0[t];
      piece->raw0[t] = after ? slope : piece->raw0[t];
      piece->index[t] = after ? (float)k : piece->index[t];
    }
  }
  EACH_POINT {
    piece->width[t] = x1[t] - piece->x0[t];
    piece->height[t] = y1[t] - piece->y0[t];
    piece->s[t] = piece->height[t] / piece->width[t];
    piece->d0[t] = exp_of(bounded(piece->raw0[t], slope_bound));
    piece->d1[t] = exp_of(bounded(piece->raw1[t], slope_bound));
  }
  if (o->is_output)
    EACH_POINT {
      const float eta = (piece->safe[t] - piece->y0[t]) / piece->height[t];
      const float zeta = (y1[t] - piece->safe[t]) / piece->height[t];
      const float p = piece->d0[t] * zeta - piece->d1[t] * eta, s = piece->s[t];
      const int mirrored = p < 0.0f;
      const float root = sqrtf(p * p + 4 * s * s * eta * zeta);
      const float c = 2 * s * (mirrored ? zeta : eta), rest = (mirrored ? -p : p) + root;
      const float near = c / (c + rest), far = rest / (c + rest);
      piece->u[t] = mirrored ? far : near;
      piece->v[t] = mirrored ? near : far;
      const float x = mirrored ? x1[t] - piece->width[t] * near : piece->x0[t] + piece->width[t] * near;
      piece->x[t] = within(piece->y[t], bound) ? x : piece->y[t];
    }
  else
    EACH_POINT {
      piece->u[t] = (piece->safe[t] - piece->x0[t]) / piece->width[t];
      piece->v[t] = (x1[t] - piece->safe[t]) / piece->width[t];
    }
  EACH_POINT {
    const float u = piece->u[t], v = piece->v[t], uv = u * v, s = piece->s[t];
    piece->n[t] = s * (u * u) + piece->d0[t] * uv;
    piece->m[t] = s * (v * v) + piece->d1[t] * uv;
    piece->sum[t] = piece->n[t] + piece->m[t];
    piece->q[t] = piece->d1[t] * (u * u) + 2 * s * uv + piece->d0[t] * (v * v);
  }
}

/* Writes the cotangents of the points to `by_x` and those of the parameters to `by_raw`. */
static void spline_pull(const Spline *o, const Piece *piece, const float *by_value, const float *by_slope,
                 float *by_x, Points *by_raw) {
  const int bins = (int)o->bins;
  const float bound = (float)o->bound, slope_bound = (float)o->slope_bound;
  const float free = (float)(2 * o->bound * (1 - o->min_bin));
  const float *given = o->is_output ? piece->y : piece->x;
  Points before[2], own[2], ends[2];
  EACH_POINT {
    const int inside = within(given[t], bound);
    const float by_y = inside ? by_value[t] : 0.0f, by_log = inside ? by_slope[t] : 0.0f;
    const float u = piece->u[t], v = piece->v[t], uv = u * v, s = piece->s[t], q = piece->q[t];
    const float d0 = piece->d0[t], d1 = piece->d1[t], inverse = 1.0f / piece->sum[t];
    const float by_eta = by_y * piece->height[t] * (inverse * inverse);
    const float by_q = by_log / q, by_sum = by_log * (-2 * inverse), turn = v - u;
    const float by_u = by_eta * s * q + 2 * by_q * (d1 * u - d0 * v + s * turn) + by_sum * turn * (d0 + d1 - 2 * s);
    const float by_s = by_eta * uv * (d1 * (u * u) - d0 * (v * v)) + 2 * by_log / s + by_q * (2 * uv) + by_sum * (1 - 2 * uv);
    const float by_d0 = by_eta * uv * piece->m[t] + by_q * (v * v) + by_sum * uv;
    const float by_d1 = by_q * (u * u) + by_sum * uv - by_eta * uv * piece->n[t];
    const float width = piece->width[t], by_inside = by_u / width;
    before[0][t] = -by_inside;
    before[1][t] = by_y;
    own[0][t] = -(by_u * u + by_s * s) / width;
    own[1][t] = by_y * (piece->n[t] * inverse) + by_s / width;
    ends[0][t] = by_d0 * d0 * bounded_slope(piece->raw0[t], slope_bound);
    ends[1][t] = by_d1 * d1 * bounded_slope(piece->raw1[t], slope_bound);
    by_x[t] = inside ? by_inside : by_value[t];
  }
  for (int axis = 0; axis < 2; ++axis) {
    Points mean, factor;
    Points *target = by_raw + axis * bins;
    EACH_POINT mean[t] = 0.0f;
    EACH_POINT factor[t] = free / piece->totals[axis][t];
    for (int k = 0; k < bins; ++k)
      EACH_POINT {
        const float by_size = (float)k < piece->index[t] ? before[axis][t] : (float)k == piece->index[t] ? own[axis][t] : 0.0f;
        target[k][t] = by_size * (piece->shares[axis][k][t] * factor[t]);
        mean[t] += target[k][t];
      }
    for (int k = 0; k < bins; ++k)
      EACH_POINT target[k][t] -= piece->shares[axis][k][t] * factor[t] * (mean[t] / free);
  }
  for (int k = 1; k < bins; ++k)
    EACH_POINT by_raw[2 * bins + k - 1][t] = (float)k == piece->index[t] ? ends[0][t] : (float)(k - 1) == piece->index[t] ? ends[1][t] : 0.0f;
}

/* Writes the value and the log-slope of each point. */
static void spline_forward(const Spline *o, const Points *raw, const float *given, Piece *piece,
                           float *value, float *log_slope) {
  const float bound = (float)o->bound;
  float *own = o->is_output ? piece->y : piece->x;
  EACH_POINT own[t] = given[t];
  locate(o, raw, piece);
  EACH_POINT {
    const float ratio = piece->s[t] / piece->sum[t];
    const float y = piece->y0[t] + piece->height[t] * (piece->n[t] / piece->sum[t]);
    const int inside = within(given[t], bound);
    value[t] = o->is_output ? piece->x[t] : inside ? y : given[t];
    log_slope[t] = inside ? log_of(piece->q[t] * (ratio * ratio)) : 0.0f;
  }
}

/* Computes the rows from `begin` to before `end` of splines. */
EXPORT void splines(int64_t begin, int64_t end, void *arguments) {
  const Spline *o = arguments;
  const int64_t n = o->columns, parameters = 3 * o->bins - 1;
  Points raw[3 * BINS - 1], by_raw[3 * BINS - 1], given, value, log_slope, by_value, by_slope, by_x;
  Piece piece;
  int64_t row[TILE], place[TILE];
  if (!o->by_y)
    for (int64_t i = begin; i < end; ++i) o->log_det[i] = 0.0f;
  int64_t next_row = begin, next_column = 0;
  for (int64_t first = begin * n; first < end * n; first += TILE) {
    const int count = end * n - first < TILE ? (int)(end * n - first) : TILE;
    for (int t = 0; t < TILE; ++t) { /* beyond the last point, it again */
      row[t] = t < count ? next_row : row[count - 1];
      place[t] = t < count ? next_row * parameters * n + next_column : place[count - 1];
      if (++next_column == n) next_column = 0, ++next_row;
    }
    EACH_POINT {
      const int64_t point = first + (t < count ? t : count - 1);
      given[t] = o->points[point];
      by_value[t] = o->by_y ? o->by_y[point] : 0.0f;
      by_slope[t] = o->by_y ? o->by_rows[row[t]] : 0.0f;
    }
    for (int64_t p = 0; p < parameters; ++p) EACH_POINT raw[p][t] = o->raw[place[t] + p * n];
    spline_forward(o, raw, given, &piece, value, log_slope);
    if (!o->by_y) {
      for (int t = 0; t < count; ++t) {
        o->values[first + t] = value[t];
        o->log_det[row[t]] += log_slope[t];
      }
      continue;
    }
    spline_pull(o, &piece, by_value, by_slope, by_x, by_raw);
    for (int t = 0; t < count; ++t) o->by_x[first + t] = by_x[t];
    for (int64_t p = 0; p < parameters; ++p)
      for (int t = 0; t < count; ++t) o->by_raw[place[t] + p * n] = by_raw[p][t];
  }
}

/* The same for all rows on the threads of torch, at least `least` rows on each. */
EXPORT void splines_in_parallel(ParallelFor *loop, int64_t rows, int64_t least, void *arguments) {
  loop(0, rows, least, splines, arguments);
}
