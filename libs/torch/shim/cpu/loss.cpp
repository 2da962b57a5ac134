// Cross-entropy of a projection: logits live for a few rows at a time, and gradients are made while they are there.
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t ROWS = 512;

// Losses of rows; with `differentiate` the logits become their gradients.
TIDEMILL_CLONES void loss_rows(float* logits, const int64_t* targets, double* losses, int64_t rows, int64_t v,
                               int64_t ignored, bool differentiate) {
  for (int64_t row = 0; row < rows; ++row, logits += v) {
    if (targets[row] == ignored) {
      losses[row] = 0;
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
      float factor = 1.0f / sum;
#pragma omp simd
      for (int64_t i = 0; i < v; ++i) logits[i] *= factor;
      logits[targets[row]] -= 1.0f;
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < v; ++i) sum += fast_exp(logits[i] - most);
    }
    losses[row] = std::log(static_cast<double>(sum)) - right;
  }
}

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& targets, int64_t ignored, bool differentiate) {
    int64_t n = x.size(0), v = weight.size(0);
    auto rows = prepared(x), factor = prepared(weight);
    std::vector<double> losses(n);
    auto* pt = targets.data_ptr<int64_t>();
    at::Tensor dx, dweight;
    if (differentiate) {
      dx = at::empty_like(x);
      dweight = at::zeros_like(weight);
    }
    for (int64_t start = 0; start < n; start += ROWS) {
      int64_t count = std::min(ROWS, n - start);
      auto part = rows.narrow(0, start, count);
      auto logits = product(part, factor).contiguous();
      auto* pl = logits.data_ptr<float>();
      at::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
        loss_rows(pl + begin * v, pt + start + begin, losses.data() + start + begin, end - begin, v, ignored,
                  differentiate);
      });
      if (differentiate) {
        auto gradient = logits.to(rows.scalar_type());
        dx.narrow(0, start, count).copy_(product(gradient, factor.t()));
        dweight.add_(product(gradient.t(), part.t()));
      }
    }
    double sum = 0;
    for (double loss : losses) sum += loss;
    if (differentiate) context->save_for_backward({dx, dweight});
    return at::scalar_tensor(sum, x.options());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    TORCH_CHECK(saved.size() == 2, "cross_entropy_sum was computed without gradients");
    return {saved[0] * gradients[0], saved[1] * gradients[0], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor cross_entropy_sum(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored) {
  TORCH_CHECK(x.dim() == 2 && targets.dim() == 1 && targets.size(0) == x.size(0), "cross_entropy_sum: a target a row");
  if (plain(x) && plain(weight) && targets.scalar_type() == at::kLong) {
    auto known = targets.contiguous();
    int64_t v = weight.size(0);
    auto* target = known.data_ptr<int64_t>();
    for (int64_t i = 0; i < known.size(0); ++i) {
      TORCH_CHECK(target[i] == ignored || (target[i] >= 0 && target[i] < v), "target ", target[i], " is outside the vocabulary of ", v);
    }
    bool differentiate = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
    return CrossEntropy::apply(x.contiguous(), weight.contiguous(), known, ignored, differentiate);
  }
  return at::cross_entropy_loss(tidemill::linear(x, weight, {}), targets, {}, at::Reduction::Sum, ignored);
}

}  // namespace tidemill
