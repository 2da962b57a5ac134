// The table of the CPU: loops that the compiler makes wide, over rows that threads share.
#include "engine.h"

#include <ATen/Parallel.h>

#include "kernels.h"

namespace tidemill {
namespace {

// Rows that one task handles: fixed, so that sums over rows do not depend on the number of threads.
constexpr int64_t BLOCK = 64;

template <class F>
void for_blocks(int64_t rows, F&& body) {
  int64_t blocks = (rows + BLOCK - 1) / BLOCK;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      body(block, block * BLOCK, std::min(rows, (block + 1) * BLOCK));
    }
  });
}

TIDEMILL_CLONES void norm_rows(const float* x, const float* weight, float* y, float* scales, int64_t rows, int64_t c,
                               float epsilon) {
  for (int64_t row = 0; row < rows; ++row, x += c, y += c) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < c; ++i) sum += x[i] * x[i];
    float scale = 1.0f / std::sqrt(sum / c + epsilon);
    scales[row] = scale;
#pragma omp simd
    for (int64_t i = 0; i < c; ++i) y[i] = x[i] * scale * weight[i];
  }
}

TIDEMILL_CLONES void norm_rows_backward(const float* x, const float* weight, const float* g, const float* scales,
                                        float* dx, float* dweight, int64_t rows, int64_t c) {
  for (int64_t row = 0; row < rows; ++row, x += c, g += c, dx += c) {
    float scale = scales[row], dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < c; ++i) dot += g[i] * weight[i] * x[i];
    float share = dot * scale * scale * scale / c;
#pragma omp simd
    for (int64_t i = 0; i < c; ++i) {
      dx[i] = g[i] * weight[i] * scale - x[i] * share;
      dweight[i] += g[i] * x[i] * scale;
    }
  }
}

TIDEMILL_CLONES void gate_rows(const float* x, float* y, int64_t rows, int64_t n) {
  for (int64_t row = 0; row < rows; ++row, x += 2 * n, y += n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] / (1.0f + fast_exp(-x[i])) * x[n + i];
  }
}

TIDEMILL_CLONES void gate_rows_backward(const float* x, const float* g, float* dx, int64_t rows, int64_t n) {
  for (int64_t row = 0; row < rows; ++row, x += 2 * n, dx += 2 * n, g += n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      float a = x[i], b = x[n + i], sigmoid = 1.0f / (1.0f + fast_exp(-a));
      dx[i] = g[i] * b * sigmoid * (1.0f + a * (1.0f - sigmoid));
      dx[n + i] = g[i] * a * sigmoid;
    }
  }
}

// One head of one token; `sign` -1 turns back. Without cosines it is a copy.
inline __attribute__((always_inline)) void turn(const float* x, float* y, const float* cosines, const float* sines,
                                                float sign, int64_t d) {
  if (!cosines) {
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) y[i] = x[i];
    return;
  }
  int64_t half = d / 2;
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    float a = x[i], b = x[half + i], s = sign * sines[i];
    y[i] = a * cosines[i] - b * s;
    y[half + i] = b * cosines[i] + a * s;
  }
}

// Between the rows of one projection, [b, t, h + 2k, d], and heads, [b, h, t, d]. `join` gathers heads into rows.
TIDEMILL_CLONES void turn_rows(const Heads& s, const float* angles, const float* other, float* rows, float* q,
                               float* k, float* v, bool join, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    int64_t b = row / s.t, t = row % s.t;
    const float* cosines = angles ? angles + t * (s.d / 2) : nullptr;
    const float* sines = other ? other + t * (s.d / 2) : nullptr;
    float* x = rows + row * (s.h + 2 * s.k) * s.d;
    for (int64_t i = 0; i < s.h + 2 * s.k; ++i, x += s.d) {
      bool turned = i < s.h + s.k;
      float* y = i < s.h ? q + ((b * s.h + i) * s.t + t) * s.d
                 : turned ? k + ((b * s.k + i - s.h) * s.t + t) * s.d
                          : v + ((b * s.k + i - s.h - s.k) * s.t + t) * s.d;
      if (join) {
        turn(y, x, turned ? cosines : nullptr, sines, -1.0f, s.d);
      } else {
        turn(x, y, turned ? cosines : nullptr, sines, 1.0f, s.d);
      }
    }
  }
}

TIDEMILL_CLONES void loss_rows(float* logits, const int64_t* targets, double* losses, float* sums, int64_t rows,
                               int64_t v, int64_t ignored, double z, bool differentiate) {
  for (int64_t row = 0; row < rows; ++row, logits += v) {
    if (targets[row] == ignored) {
      losses[row] = 0;
      if (sums) sums[row] = 0;
      if (differentiate) std::fill(logits, logits + v, 0.0f);
      continue;
    }
    float most = logits[0], sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < v; ++i) most = logits[i] > most ? logits[i] : most;
    float right = logits[targets[row]] - most;
    if (differentiate) {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < v; ++i) {
        float e = fast_exp(logits[i] - most);
        logits[i] = e;
        sum += e;
      }
      float factor = static_cast<float>(1.0 + 2.0 * z * (std::log(static_cast<double>(sum)) + most)) / sum;
#pragma omp simd
      for (int64_t i = 0; i < v; ++i) logits[i] *= factor;
      logits[targets[row]] -= 1.0f;
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < v; ++i) sum += fast_exp(logits[i] - most);
    }
    double log_sum = std::log(static_cast<double>(sum)), square = (log_sum + most) * (log_sum + most);
    losses[row] = log_sum - right + z * square;
    if (sums) sums[row] = static_cast<float>(log_sum + most);
  }
}

// Logits become gradients: softmax minus one at the target, times the row's weight.
TIDEMILL_CLONES void gradient_rows(float* logits, const int64_t* targets, const float* weights, const float* sums,
                                   int64_t rows, int64_t v, int64_t ignored) {
  for (int64_t row = 0; row < rows; ++row, logits += v) {
    float weight = targets[row] == ignored ? 0.0f : weights[row], sum = sums[row];
#pragma omp simd
    for (int64_t i = 0; i < v; ++i) logits[i] = weight * fast_exp(logits[i] - sum);
    if (targets[row] != ignored) logits[targets[row]] -= weight;
  }
}

const float* floats(const void* x) { return static_cast<const float*>(x); }
float* floats(void* x) { return static_cast<float*>(x); }

const char* norm(void*, Kind, const void* x, const void* weight, void* y, float* scales, int64_t rows, int64_t c, float epsilon) {
  auto *px = floats(x), *pw = floats(weight);
  auto* py = floats(y);
  for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
    norm_rows(px + begin * c, pw, py + begin * c, scales + begin, end - begin, c, epsilon);
  });
  return nullptr;
}

const char* norm_backward(void*, Kind, const void* x, const void* weight, const void* g, const float* scales, void* dx, float* dweights,
                          int64_t rows, int64_t c) {
  auto *px = floats(x), *pw = floats(weight), *pg = floats(g);
  auto* pdx = floats(dx);
  std::fill(dweights, dweights + (rows + BLOCK - 1) / BLOCK * c, 0.0f);
  for_blocks(rows, [&](int64_t block, int64_t begin, int64_t end) {
    norm_rows_backward(px + begin * c, pw, pg + begin * c, scales + begin, pdx + begin * c, dweights + block * c, end - begin, c);
  });
  return nullptr;
}

const char* gate(void*, Kind, const void* x, void* y, int64_t rows, int64_t n) {
  auto* px = floats(x);
  auto* py = floats(y);
  for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) { gate_rows(px + begin * 2 * n, py + begin * n, end - begin, n); });
  return nullptr;
}

const char* gate_backward(void*, Kind, const void* x, const void* g, void* dx, int64_t rows, int64_t n) {
  auto *px = floats(x), *pg = floats(g);
  auto* pdx = floats(dx);
  for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
    gate_rows_backward(px + begin * 2 * n, pg + begin * n, pdx + begin * 2 * n, end - begin, n);
  });
  return nullptr;
}

const char* rotate(void*, Kind, const Heads* s, const float* cosines, const float* sines, void* rows, void* q, void* k, void* v,
                   bool join) {
  auto *px = floats(rows), *pq = floats(q), *pk = floats(k), *pv = floats(v);
  for_blocks(s->b * s->t, [&](int64_t, int64_t begin, int64_t end) {
    turn_rows(*s, cosines, sines, px, pq, pk, pv, join, begin, end);
  });
  return nullptr;
}

const char* loss(void*, Kind, void* logits, const int64_t* targets, double* losses, float* sums, int64_t rows, int64_t v,
                 int64_t ignored, double z, bool differentiate) {
  auto* p = floats(logits);
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    loss_rows(p + begin * v, targets + begin, losses + begin, sums ? sums + begin : nullptr, end - begin, v, ignored, z, differentiate);
  });
  return nullptr;
}

const char* loss_backward(void*, Kind, void* logits, const int64_t* targets, const float* weights, const float* sums, int64_t rows,
                          int64_t v, int64_t ignored) {
  auto* p = floats(logits);
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    gradient_rows(p + begin * v, targets + begin, weights + begin, sums + begin, end - begin, v, ignored);
  });
  return nullptr;
}

}  // namespace

const Table cpu_table = {TABLE_REVISION, BLOCK, INT64_MAX, norm, norm_backward, gate, gate_backward, rotate, loss, loss_backward};

}  // namespace tidemill
