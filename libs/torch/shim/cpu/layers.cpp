// Norm, gate and rotation: one pass over memory forward, one backward.
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight, double epsilon) {
    auto x = input.contiguous();
    int64_t c = x.size(-1), rows = x.numel() / c;
    auto y = at::empty_like(x), scales = at::empty({rows}, x.options());
    auto *px = x.data_ptr<float>(), *py = y.data_ptr<float>(), *ps = scales.data_ptr<float>();
    auto* pw = weight.data_ptr<float>();
    for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
      norm_rows(px + begin * c, pw, py + begin * c, ps + begin, end - begin, c, static_cast<float>(epsilon));
    });
    context->save_for_backward({x, weight, scales});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &scales = saved[2];
    auto g = gradients[0].contiguous();
    int64_t c = x.size(-1), rows = x.numel() / c;
    auto dx = at::empty_like(x), dweights = at::zeros({(rows + BLOCK - 1) / BLOCK, c}, x.options());
    auto *px = x.data_ptr<float>(), *pg = g.data_ptr<float>(), *pdx = dx.data_ptr<float>();
    auto *pw = weight.data_ptr<float>(), *ps = scales.data_ptr<float>(), *pdw = dweights.data_ptr<float>();
    for_blocks(rows, [&](int64_t block, int64_t begin, int64_t end) {
      norm_rows_backward(px + begin * c, pw, pg + begin * c, ps + begin, pdx + begin * c, pdw + block * c, end - begin, c);
    });
    return {dx, dweights.sum(0), at::Tensor()};
  }
};

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

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input) {
    auto x = input.contiguous();
    auto shape = x.sizes().vec();
    shape.back() /= 2;
    auto y = at::empty(shape, x.options());
    int64_t n = shape.back(), rows = y.numel() / n;
    auto *px = x.data_ptr<float>(), *py = y.data_ptr<float>();
    for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
      gate_rows(px + begin * 2 * n, py + begin * n, end - begin, n);
    });
    context->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto x = context->get_saved_variables()[0];
    auto g = gradients[0].contiguous();
    auto dx = at::empty_like(x);
    int64_t n = x.size(-1) / 2, rows = g.numel() / n;
    auto *px = x.data_ptr<float>(), *pg = g.data_ptr<float>(), *pdx = dx.data_ptr<float>();
    for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
      gate_rows_backward(px + begin * 2 * n, pg + begin * n, pdx + begin * 2 * n, end - begin, n);
    });
    return {dx};
  }
};

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

struct Heads {
  int64_t b, t, h, k, d;
  const float *cosines, *sines;
};

// Between the rows of one projection, [b, t, h + 2k, d], and heads, [b, h, t, d]. `join` gathers heads into rows.
TIDEMILL_CLONES void turn_rows(const Heads& s, float* rows, float* q, float* k, float* v, bool join, int64_t begin,
                               int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    int64_t b = row / s.t, t = row % s.t;
    const float* cosines = s.cosines ? s.cosines + t * (s.d / 2) : nullptr;
    const float* sines = s.cosines ? s.sines + t * (s.d / 2) : nullptr;
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

struct RotateQkv : torch::autograd::Function<RotateQkv> {
  static variable_list forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& cosines,
                               const at::Tensor& sines, int64_t h, int64_t k) {
    auto qkv = input.contiguous();
    int64_t b = qkv.size(0), t = qkv.size(1), d = qkv.size(2) / (h + 2 * k);
    auto queries = at::empty({b, h, t, d}, qkv.options()), keys = at::empty({b, k, t, d}, qkv.options());
    auto values = at::empty_like(keys);
    run({b, t, h, k, d, pointer(cosines), pointer(sines)}, qkv, queries, keys, values, false);
    context->save_for_backward({cosines, sines});
    context->saved_data["h"] = h;
    context->saved_data["k"] = k;
    return {queries, keys, values};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto queries = gradients[0].contiguous(), keys = gradients[1].contiguous(), values = gradients[2].contiguous();
    int64_t b = queries.size(0), h = queries.size(1), t = queries.size(2), d = queries.size(3), k = keys.size(1);
    auto qkv = at::empty({b, t, (h + 2 * k) * d}, queries.options());
    run({b, t, h, k, d, pointer(saved[0]), pointer(saved[1])}, qkv, queries, keys, values, true);
    return {qkv, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }

 private:
  static const float* pointer(const at::Tensor& x) { return x.numel() ? x.data_ptr<float>() : nullptr; }

  static void run(const Heads& s, const at::Tensor& qkv, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  bool join) {
    auto *px = qkv.data_ptr<float>(), *pq = q.data_ptr<float>(), *pk = k.data_ptr<float>(), *pv = v.data_ptr<float>();
    for_blocks(s.b * s.t, [&](int64_t, int64_t begin, int64_t end) { turn_rows(s, px, pq, pk, pv, join, begin, end); });
  }
};

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines) {
  auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cosines - halves[1] * sines, halves[1] * cosines + halves[0] * sines}, -1);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  TORCH_CHECK(weight.dim() == 1 && x.dim() > 0 && x.size(-1) == weight.size(0), "rms_norm: width of input and weight differ");
  if (plain(x) && plain(weight)) return RmsNorm::apply(x, weight.contiguous(), epsilon);
  return at::rms_norm(x, weight.sizes(), weight, epsilon);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  TORCH_CHECK(gate_up.dim() > 0 && gate_up.size(-1) % 2 == 0, "swiglu: the last dimension must be even");
  if (plain(gate_up)) return Swiglu::apply(gate_up);
  auto halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

std::array<at::Tensor, 3> rotate_qkv(const at::Tensor& qkv, const std::optional<at::Tensor>& cosines,
                                     const std::optional<at::Tensor>& sines, int64_t heads, int64_t kv_heads) {
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) % (heads + 2 * kv_heads) == 0, "rotate_qkv: width is not a number of heads");
  int64_t b = qkv.size(0), t = qkv.size(1), d = qkv.size(2) / (heads + 2 * kv_heads);
  TORCH_CHECK(!cosines || d % 2 == 0, "rotate_qkv: head size must be even");
  TORCH_CHECK(!cosines || (cosines->numel() == t * d / 2 && sines->numel() == t * d / 2), "rotate_qkv: one angle a pair");
  if (plain(qkv)) {
    auto none = at::empty({0}, qkv.options());
    auto parts = RotateQkv::apply(qkv, cosines ? cosines->contiguous() : none, sines ? sines->contiguous() : none, heads,
                                  kv_heads);
    return {parts[0], parts[1], parts[2]};
  }
  auto all = qkv.view({b, t, heads + 2 * kv_heads, d}).transpose(1, 2);
  auto q = all.narrow(1, 0, heads), k = all.narrow(1, heads, kv_heads), v = all.narrow(1, heads + kv_heads, kv_heads);
  if (cosines) {
    q = rotated(q, *cosines, *sines);
    k = rotated(k, *cosines, *sines);
  }
  return {q, k, v};
}

}  // namespace tidemill
