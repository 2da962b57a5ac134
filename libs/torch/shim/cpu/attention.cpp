// Causal attention in blocks of queries (forward) and keys (backward) that stay in the cache; products by oneDNN's brgemm.
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {
namespace {

using at::native::cpublas::brgemm;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t BLOCK = 64;

struct Shape {
  int64_t b, h, k, t, d;
  float scale;
};

TIDEMILL_CLONES void transpose(const float* x, int64_t ld_x, float* y, int64_t ld_y, int64_t rows, int64_t columns) {
  for (int64_t i0 = 0; i0 < rows; i0 += 16) {
    int64_t i1 = std::min(rows, i0 + 16);
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = i0; i < i1; ++i) y[j * ld_y + i] = x[i * ld_x + j];
    }
  }
}

// Rows of scores, row i allowed to look at its first `first + i + 1` columns, become probabilities; `sums` gets log-sum-exps.
TIDEMILL_CLONES void softmax(float* scores, int64_t ld, float* sums, int64_t rows, int64_t columns, int64_t first,
                             float scale) {
  for (int64_t i = 0; i < rows; ++i, scores += ld) {
    int64_t seen = first + i + 1;
    float most = scores[0], sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < seen; ++j) most = scores[j] > most ? scores[j] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < seen; ++j) {
      float e = fast_exp(scale * (scores[j] - most));
      scores[j] = e;
      sum += e;
    }
    float factor = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < seen; ++j) scores[j] *= factor;
    for (int64_t j = seen; j < columns; ++j) scores[j] = 0.0f;
    sums[i] = scale * most + std::log(sum);
  }
}

// Transposed scores of keys (rows) by queries (columns) become probabilities again; key i is seen from column i on.
TIDEMILL_CLONES void probabilities(float* scores, int64_t ld, const float* sums, int64_t rows, int64_t columns,
                                   float scale) {
  for (int64_t i = 0; i < rows; ++i, scores += ld) {
    for (int64_t j = 0; j < i; ++j) scores[j] = 0.0f;
#pragma omp simd
    for (int64_t j = i; j < columns; ++j) scores[j] = fast_exp(scale * scores[j] - sums[j]);
  }
}

// dp -> p (dp - delta) scale, and the same transposed.
TIDEMILL_CLONES void score_gradients(const float* p, float* dp, const float* deltas, float* turned, int64_t ld,
                                     int64_t rows, int64_t columns, float scale) {
  for (int64_t i = 0; i < rows; ++i) {
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) {
      dp[i * ld + j] = p[i * ld + j] * (dp[i * ld + j] - deltas[j]) * scale;
    }
  }
  for (int64_t j0 = 0; j0 < columns; j0 += 16) {
    int64_t j1 = std::min(columns, j0 + 16);
    for (int64_t j = j0; j < j1; ++j) {
#pragma omp simd
      for (int64_t i = 0; i < rows; ++i) turned[j * BLOCK + i] = dp[i * ld + j];
    }
  }
}

TIDEMILL_CLONES void row_products(const float* x, const float* y, int64_t ld, float* out, int64_t rows, int64_t d) {
  for (int64_t i = 0; i < rows; ++i, x += ld, y += ld) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d; ++j) sum += x[j] * y[j];
    out[i] = sum;
  }
}

// One head: q, k, v [t, d]; out with row stride ld; sums [t].
void forward_head(const Shape& s, const float* q, const float* k, const float* v, float* out, int64_t ld, float* sums,
                  float* scratch) {
  float *keys = scratch, *scores = scratch + s.d * s.t;
  transpose(k, s.d, keys, s.t, s.t, s.d);
  for (int64_t q0 = 0; q0 < s.t; q0 += BLOCK) {
    int64_t rows = std::min(BLOCK, s.t - q0), seen = q0 + rows;
    brgemm(rows, seen, s.d, s.d, s.t, s.t, false, q + q0 * s.d, keys, scores);
    softmax(scores, s.t, sums + q0, rows, seen, q0, s.scale);
    brgemm(rows, s.d, seen, s.t, s.d, ld, false, scores, v, out + q0 * ld);
  }
}

// One head; dk and dv are added to, dq must be zero before.
void backward_head(const Shape& s, const float* q, const float* k, const float* v, const float* out, const float* g,
                   int64_t ld, const float* sums, float* dq, float* dk, float* dv, float* scratch) {
  float *queries = scratch, *outer = queries + s.d * s.t, *deltas = outer + s.d * s.t, *p = deltas + s.t;
  float *dp = p + BLOCK * s.t, *turned = dp + BLOCK * s.t;
  transpose(q, s.d, queries, s.t, s.t, s.d);
  transpose(g, ld, outer, s.t, s.t, s.d);
  row_products(out, g, ld, deltas, s.t, s.d);
  for (int64_t k0 = 0; k0 < s.t; k0 += BLOCK) {
    int64_t rows = std::min(BLOCK, s.t - k0), later = s.t - k0;
    brgemm(rows, later, s.d, s.d, s.t, s.t, false, k + k0 * s.d, queries + k0, p);
    probabilities(p, s.t, sums + k0, rows, later, s.scale);
    brgemm(rows, s.d, later, s.t, ld, s.d, true, p, g + k0 * ld, dv + k0 * s.d);
    brgemm(rows, later, s.d, s.d, s.t, s.t, false, v + k0 * s.d, outer + k0, dp);
    score_gradients(p, dp, deltas + k0, turned, s.t, rows, later, s.scale);
    brgemm(rows, s.d, later, s.t, s.d, s.d, true, dp, q + k0 * s.d, dk + k0 * s.d);
    brgemm(later, s.d, rows, BLOCK, s.d, s.d, true, turned, k + k0 * s.d, dq + k0 * s.d);
  }
}

struct Causal : torch::autograd::Function<Causal> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& queries, const at::Tensor& keys,
                            const at::Tensor& values) {
    auto q = queries.contiguous(), k = keys.contiguous(), v = values.contiguous();
    auto s = shape(q, k);
    auto out = at::empty({s.b, s.t, s.h * s.d}, q.options()), sums = at::empty({s.b, s.h, s.t}, q.options());
    auto *pq = q.data_ptr<float>(), *pk = k.data_ptr<float>(), *pv = v.data_ptr<float>();
    auto *po = out.data_ptr<float>(), *ps = sums.data_ptr<float>();
    int64_t head = s.t * s.d, ld = s.h * s.d;
    at::parallel_for(0, s.b * s.h, 1, [&](int64_t begin, int64_t end) {
      auto scratch = at::empty({s.d * s.t + BLOCK * s.t}, at::kFloat);
      for (int64_t i = begin; i < end; ++i) {
        int64_t b = i / s.h, h = i % s.h, kv = b * s.k + h / (s.h / s.k);
        forward_head(s, pq + i * head, pk + kv * head, pv + kv * head, po + b * s.t * ld + h * s.d, ld, ps + i * s.t,
                     scratch.data_ptr<float>());
      }
    });
    context->save_for_backward({q, k, v, out, sums});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &sums = saved[4];
    auto g = gradients[0].contiguous();
    auto s = shape(q, k);
    auto dq = at::zeros_like(q), dk = at::zeros_like(k), dv = at::zeros_like(v);
    auto *pq = q.data_ptr<float>(), *pk = k.data_ptr<float>(), *pv = v.data_ptr<float>(), *po = out.data_ptr<float>();
    auto *pg = g.data_ptr<float>(), *ps = sums.data_ptr<float>();
    auto *pdq = dq.data_ptr<float>(), *pdk = dk.data_ptr<float>(), *pdv = dv.data_ptr<float>();
    int64_t head = s.t * s.d, ld = s.h * s.d, group = s.h / s.k;
    at::parallel_for(0, s.b * s.k, 1, [&](int64_t begin, int64_t end) {
      auto scratch = at::empty({2 * s.d * s.t + s.t + 3 * BLOCK * s.t}, at::kFloat);
      for (int64_t kv = begin; kv < end; ++kv) {
        for (int64_t i = 0; i < group; ++i) {
          int64_t b = kv / s.k, h = kv % s.k * group + i, at = b * s.h + h, row = b * s.t * ld + h * s.d;
          backward_head(s, pq + at * head, pk + kv * head, pv + kv * head, po + row, pg + row, ld, ps + at * s.t,
                        pdq + at * head, pdk + kv * head, pdv + kv * head, scratch.data_ptr<float>());
        }
      }
    });
    return {dq, dk, dv};
  }

 private:
  static Shape shape(const at::Tensor& q, const at::Tensor& k) {
    float scale = 1.0f / std::sqrt(static_cast<float>(q.size(3)));
    return {q.size(0), q.size(1), k.size(1), q.size(2), q.size(3), scale};
  }
};

// Whether brgemm knows float32 on this processor.
bool available() {
  static bool known = [] {
    float a[4] = {1, 2, 3, 4}, b[4] = {1, 0, 0, 1}, c[4] = {};
    try {
      brgemm(2, 2, 2, 2, 2, 2, false, a, b, c);
      return c[0] == 1 && c[3] == 4;
    } catch (const std::exception&) {
      return false;
    }
  }();
  return known;
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  int64_t b = q.size(0), h = q.size(1), t = q.size(2), d = q.size(3), kv = k.size(1);
  TORCH_CHECK(h % kv == 0 && k.size(2) == t && v.sizes() == k.sizes(), "causal_attention: shapes do not fit");
  // Each length is a set of compiled kernels: lengths of training come again, those of prompts do not.
  if (plain(q) && plain(k) && plain(v) && t % 16 == 0 && available()) return Causal::apply(q, k, v);
  auto repeated = [&](const at::Tensor& x) {
    return kv == h ? x : x.unsqueeze(2).expand({b, kv, h / kv, t, d}).reshape({b, h, t, d});
  };
  auto out = at::scaled_dot_product_attention(q, repeated(k), repeated(v), {}, 0.0, /*is_causal=*/true);
  return out.transpose(1, 2).reshape({b, t, h * d});
}

}  // namespace tidemill
