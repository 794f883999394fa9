/* Elementary functions of float32 numbers, without branches or calls so that compilers vectorize
   them, and the loop of torch over its threads. */

#include <math.h>
#include <stdint.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

typedef void Range(int64_t, int64_t, void *);
typedef int32_t ParallelFor(int64_t, int64_t, int64_t, Range *, void *);

typedef union {
  float number;
  uint32_t bits;
} Word;

static const float ROUND = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */

/* Returns e^r 2^n for |r| <= log(2) / 2 and shifted = n + ROUND, by the polynomial of Cephes'
   expf. Two factors for 2^n reach infinity, 0 and the subnormal numbers. */
static inline float scaled_exp(float r, float shifted) {
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Word word = {shifted};
  const uint32_t n = word.bits - 0x4B400000u, half = n >> 1;
  const Word one = {.bits = (half + 127u) << 23}, other = {.bits = (n - half + 127u) << 23};
  return p * one.number * other.number;
}

static inline float clamp(float x, float low, float high) { /* leaves NaN */
  x = x < low ? low : x;
  return x > high ? high : x;
}

static inline float exp2_of(float x) {
  x = clamp(x, -151.0f, 129.0f);
  const float shifted = x + ROUND;
  return scaled_exp((x - (shifted - ROUND)) * 0.693147180559945f, shifted);
}

static inline float exp_of(float x) {
  x = clamp(x, -105.0f, 89.0f);
  const float shifted = x * 1.44269504088896f + ROUND, n = shifted - ROUND;
  return scaled_exp(x - n * 0.693359375f - n * -2.12194440e-4f, shifted);
}

static inline float sigmoid_of(float x) { return 1.0f / (1.0f + exp_of(-x)); }

/* Returns log x by the polynomial of Cephes' logf; exact ends: log 0 = -inf, log inf = inf. */
static inline float log_of(float x) {
  const Word word = {x};
  const uint32_t shift = word.bits - 0x3F3504F3u; /* of sqrt(1/2): a mantissa from there to sqrt 2 */
  const Word mantissa = {.bits = (shift & 0x007FFFFFu) + 0x3F3504F3u};
  const float e = (float)((int32_t)shift >> 23), r = mantissa.number - 1.0f, square = r * r;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  float y = p * r * square - 2.12194440e-4f * e - 0.5f * square + r + 0.693359375f * e;
  y = x > 0.0f ? y : x == 0.0f ? -INFINITY : NAN;
  return x < INFINITY ? y : x; /* infinity, and NaN */
}
