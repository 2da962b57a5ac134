// Cross-entropy of a projection: logits live for a few rows at a time, and gradients are made while they are there.
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t ROWS = 512;

// Losses of rows, each with `z` times the square of its log-sum-exp; with `differentiate` the logits become their gradients.
TIDEMILL_CLONES void loss_rows(float* logits, const int64_t* targets, double* losses, int64_t rows, int64_t v,
                               int64_t ignored, double z, bool differentiate) {
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
  }
}

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& targets, int64_t ignored, double z, bool differentiate) {
    int64_t n = x.size(0), v = weight.size(0);
    auto rows = prepared(x), factor = prepared(weight);
    std::vector<double> losses(n);
    auto* pt = targets.data_ptr<int64_t>();
    at::Tensor dx, dweight;
    if (differentiate) {
      dx = at::empty_like(x);
      if (weight.requires_grad()) dweight = at::zeros_like(weight);
    }
    for (int64_t start = 0; start < n; start += ROWS) {
      int64_t count = std::min(ROWS, n - start);
      auto part = rows.narrow(0, start, count);
      auto logits = product(part, factor).contiguous();
      auto* pl = logits.data_ptr<float>();
      at::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
        loss_rows(pl + begin * v, pt + start + begin, losses.data() + start + begin, end - begin, v, ignored, z,
                  differentiate);
      });
      if (differentiate) {
        auto gradient = logits.to(rows.scalar_type());
        dx.narrow(0, start, count).copy_(product(gradient, factor.t()));
        if (dweight.defined()) dweight.add_(product(gradient.t(), part.t()));
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
    auto dweight = saved[1].defined() ? saved[1] * gradients[0] : at::Tensor();
    return {saved[0] * gradients[0], dweight, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// Log-sum-exps of rows, and the losses of their targets.
TIDEMILL_CLONES void log_sum_rows(const float* logits, const int64_t* targets, float* losses, float* sums, int64_t rows,
                                  int64_t v, int64_t ignored) {
  for (int64_t row = 0; row < rows; ++row, logits += v) {
    float most = logits[0], sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < v; ++i) most = logits[i] > most ? logits[i] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < v; ++i) sum += fast_exp(logits[i] - most);
    double log_sum = std::log(static_cast<double>(sum));
    sums[row] = static_cast<float>(log_sum + most);
    losses[row] = targets[row] == ignored ? 0.0f : static_cast<float>(log_sum - (logits[targets[row]] - most));
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

// A loss a row. How rows will be weighed is known in the backward pass only, so logits are made there once more.
struct TokenLosses : torch::autograd::Function<TokenLosses> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& targets, int64_t ignored) {
    int64_t n = x.size(0), v = weight.size(0);
    auto rows = prepared(x), factor = prepared(weight);
    auto losses = at::empty({n}, x.options()), sums = at::empty({n}, x.options());
    auto *pl = losses.data_ptr<float>(), *ps = sums.data_ptr<float>();
    auto* pt = targets.data_ptr<int64_t>();
    for (int64_t start = 0; start < n; start += ROWS) {
      int64_t count = std::min(ROWS, n - start);
      auto logits = product(rows.narrow(0, start, count), factor).contiguous();
      auto* p = logits.data_ptr<float>();
      at::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
        int64_t at = start + begin;
        log_sum_rows(p + begin * v, pt + at, pl + at, ps + at, end - begin, v, ignored);
      });
    }
    context->save_for_backward({rows, factor, targets, sums});
    context->saved_data["ignored"] = ignored;
    return losses;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &factor = saved[1], &targets = saved[2], &sums = saved[3];
    auto weights = gradients[0].contiguous();
    int64_t n = rows.size(0), v = factor.size(0), ignored = context->saved_data["ignored"].toInt();
    auto options = weights.options();
    at::Tensor dx, dweight;
    if (context->needs_input_grad(0)) dx = at::empty({n, rows.size(1)}, options);
    if (context->needs_input_grad(1)) dweight = at::zeros(factor.sizes(), options);
    auto *pw = weights.data_ptr<float>(), *ps = sums.data_ptr<float>();
    auto* pt = targets.data_ptr<int64_t>();
    for (int64_t start = 0; start < n; start += ROWS) {
      int64_t count = std::min(ROWS, n - start);
      auto part = rows.narrow(0, start, count);
      auto logits = product(part, factor).contiguous();
      auto* p = logits.data_ptr<float>();
      at::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
        int64_t at = start + begin;
        gradient_rows(p + begin * v, pt + at, pw + at, ps + at, end - begin, v, ignored);
      });
      auto gradient = logits.to(rows.scalar_type());
      if (dx.defined()) dx.narrow(0, start, count).copy_(product(gradient, factor.t()));
      if (dweight.defined()) dweight.add_(product(gradient.t(), part.t()));
    }
    return {dx, dweight, at::Tensor(), at::Tensor()};
  }
};

void check_targets(const at::Tensor& targets, int64_t v, int64_t ignored) {
  auto* target = targets.data_ptr<int64_t>();
  for (int64_t i = 0; i < targets.size(0); ++i) {
    TORCH_CHECK(target[i] == ignored || (target[i] >= 0 && target[i] < v), "target ", target[i], " is outside the vocabulary of ", v);
  }
}

}  // namespace

at::Tensor cross_entropy_sum(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored,
                             double z) {
  TORCH_CHECK(x.dim() == 2 && targets.dim() == 1 && targets.size(0) == x.size(0), "cross_entropy_sum: a target a row");
  if (plain(x) && plain(weight) && targets.scalar_type() == at::kLong) {
    auto known = targets.contiguous();
    check_targets(known, weight.size(0), ignored);
    bool differentiate = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
    return CrossEntropy::apply(x.contiguous(), weight.contiguous(), known, ignored, z, differentiate);
  }
  auto logits = tidemill::linear(x, weight, {});
  auto loss = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, ignored);
  if (z == 0) return loss;
  auto squares = at::logsumexp(logits.to(at::kFloat), {1}).square();
  return loss + z * squares.masked_fill(targets == ignored, 0).sum();
}

at::Tensor token_losses(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored) {
  TORCH_CHECK(x.dim() == 2 && targets.dim() == 1 && targets.size(0) == x.size(0), "token_losses: a target a row");
  if (plain(x) && plain(weight) && targets.scalar_type() == at::kLong) {
    auto known = targets.contiguous();
    check_targets(known, weight.size(0), ignored);
    return TokenLosses::apply(x.contiguous(), weight.contiguous(), known, ignored);
  }
  return at::cross_entropy_loss(tidemill::linear(x, weight, {}).to(at::kFloat), targets, {}, at::Reduction::None, ignored);
}

}  // namespace tidemill
