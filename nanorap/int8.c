// y[b, n] = scale[n] * (sum over k of x[b, k] * w[n, k]) + bias[n], with w in int8: a quarter of fp32's bytes to read.
// Each sum is added up in the same order whatever B is, so that a row's result never depends on its batch mates.

#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
enum { WIDTH = 16 };
#else
enum { WIDTH = 8 };
#endif
typedef float floats __attribute__((vector_size(4 * WIDTH)));

static inline floats widen(const int8_t *w) {
#if defined __AVX512F__
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)w)));
#elif defined __AVX2__
    return (floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)w)));
#else
    floats wide;
    for (int i = 0; i < WIDTH; i++) wide[i] = w[i];
    return wide;
#endif
}

enum { ROWS = 4 };  // of w, at once

// nb rows of x (a constant, so that the sums stay in registers) with nr rows of w
static inline __attribute__((always_inline)) void block(const float *x, const int8_t *w, const float *scale, const float *bias,
                                                        float *y, long N, long K, const int nb, const int nr) {
    floats sum[3][ROWS] = {0};
    for (long k = 0; k + WIDTH <= K; k += WIDTH) {
        floats wide[ROWS];
        #pragma GCC unroll 4
        for (int r = 0; r < nr; r++) {
            __builtin_prefetch(w + (r + 3 * ROWS) * K + k);  // rows are too short for the processor to see it coming
            wide[r] = widen(w + r * K + k);
        }
        #pragma GCC unroll 3
        for (int b = 0; b < nb; b++) {
            floats v;
            memcpy(&v, x + b * K + k, sizeof v);
            #pragma GCC unroll 4
            for (int r = 0; r < nr; r++) sum[b][r] += v * wide[r];
        }
    }
    for (int b = 0; b < nb; b++)
        for (int r = 0; r < nr; r++) {
            float total = 0;
            for (int i = 0; i < WIDTH; i++) total += sum[b][r][i];
            for (long k = K / WIDTH * WIDTH; k < K; k++) total += x[b * K + k] * w[r * K + k];
            y[b * N + r] = scale[r] * total + (bias ? bias[r] : 0);
        }
}

void int8_linear(const float *x, const int8_t *w, const float *scale, const float *bias, float *y, long B, long N, long K) {
    #pragma omp parallel for schedule(static)
    for (long n = 0; n < N; n += ROWS)
        for (long b = 0; b < B; b += 3) {
            const float *xb = x + b * K, *more = bias ? bias + n : 0;
            float *yb = y + b * N + n;
            if (n + ROWS > N)
                for (long i = b; i < B && i < b + 3; i++)
                    for (long r = 0; r < N - n; r++)
                        block(x + i * K, w + (n + r) * K, scale + n + r, more ? more + r : 0, y + i * N + n + r, N, K, 1, 1);
            else if (b + 3 <= B) block(xb, w + n * K, scale + n, more, yb, N, K, 3, ROWS);
            else if (b + 2 <= B) block(xb, w + n * K, scale + n, more, yb, N, K, 2, ROWS);
            else block(xb, w + n * K, scale + n, more, yb, N, K, 1, ROWS);
        }
}
