// Cross-entropy of a projection: logits live for a few rows at a time, and gradients are made while they are there.
#include "kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows whose logits live at a time. A GPU wants more at once: as many as a quarter of a GiB holds.
int64_t rows_at_a_time(const at::Tensor& rows, int64_t v) {
  constexpr int64_t LEAST = 512;
  if (rows.is_cpu()) return LEAST;
  int64_t fitting = (int64_t{1} << 28) / (v * static_cast<int64_t>(rows.element_size()));
  return std::max(LEAST, fitting / LEAST * LEAST);
}

// x [n, k] times y [m, k] transposed: float32 for the loops of the CPU, else of the kind of its factors.
at::Tensor times(const Table* table, const at::Tensor& x, const at::Tensor& y) {
  return table == &cpu_table ? product(x, y) : at::mm(x, y.t());
}

// The gradients that those of some rows' logits leave: in `dx`, and added to `dweight`, each where it is defined.
void spread(const Table* table, const at::Tensor& logits, const at::Tensor& part, const at::Tensor& factor, const at::Tensor& dx,
            const at::Tensor& dweight) {
  auto gradient = logits.to(part.scalar_type());
  if (dx.defined()) dx.copy_(times(table, gradient, factor.t()));
  if (dweight.defined()) dweight.add_(times(table, gradient.t(), part.t()));
}

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                            int64_t ignored, double z, bool differentiate, const Table* table) {
    int64_t n = x.size(0), v = weight.size(0);
    auto rows = prepared(x), factor = prepared(weight);
    auto numbers = x.options().dtype(at::kFloat);
    auto losses = at::empty({n}, numbers.dtype(at::kDouble));
    at::Tensor dx, dweight;
    if (differentiate) {
      dx = at::empty_like(x);
      if (weight.requires_grad()) dweight = at::zeros(weight.sizes(), numbers);
    }
    const int64_t most = rows_at_a_time(rows, v);
    for (int64_t start = 0; start < n; start += most) {
      int64_t count = std::min(most, n - start);
      auto part = rows.narrow(0, start, count);
      auto logits = times(table, part, factor).contiguous();
      Place at(logits);
      succeed(table->loss(at.stream, at.kind, logits.data_ptr(), targets.data_ptr<int64_t>() + start, losses.data_ptr<double>() + start,
                        nullptr, count, v, ignored, z, differentiate));
      if (differentiate) spread(table, logits, part, factor, dx.narrow(0, start, count), dweight);
    }
    if (differentiate) context->save_for_backward({dx, dweight});
    if (!x.is_cpu()) return losses.sum().to(at::kFloat);
    // In the order of rows: the same sum whatever the number of threads.
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += losses.data_ptr<double>()[i];
    return at::scalar_tensor(sum, numbers);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    TORCH_CHECK(saved.size() == 2, "cross_entropy_sum was computed without gradients");
    auto dweight = saved[1].defined() ? saved[1] * gradients[0] : at::Tensor();
    return {saved[0] * gradients[0], dweight, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// A loss a row. How rows will be weighed is known in the backward pass only, so logits are made there once more.
struct TokenLosses : torch::autograd::Function<TokenLosses> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                            int64_t ignored, const Table* table) {
    int64_t n = x.size(0), v = weight.size(0);
    auto rows = prepared(x), factor = prepared(weight);
    auto numbers = x.options().dtype(at::kFloat);
    auto losses = at::empty({n}, numbers.dtype(at::kDouble)), sums = at::empty({n}, numbers);
    const int64_t most = rows_at_a_time(rows, v);
    for (int64_t start = 0; start < n; start += most) {
      int64_t count = std::min(most, n - start);
      auto logits = times(table, rows.narrow(0, start, count), factor).contiguous();
      Place at(logits);
      succeed(table->loss(at.stream, at.kind, logits.data_ptr(), targets.data_ptr<int64_t>() + start, losses.data_ptr<double>() + start,
                        sums.data_ptr<float>() + start, count, v, ignored, 0, false));
    }
    context->save_for_backward({rows, factor, targets, sums});
    context->saved_data["ignored"] = ignored;
    context->saved_data["table"] = reinterpret_cast<int64_t>(table);
    return losses.to(at::kFloat);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &factor = saved[1], &targets = saved[2], &sums = saved[3];
    auto* table = reinterpret_cast<const Table*>(context->saved_data["table"].toInt());
    auto weights = gradients[0].contiguous();
    int64_t n = rows.size(0), v = factor.size(0), ignored = context->saved_data["ignored"].toInt();
    at::Tensor dx, dweight;
    if (context->needs_input_grad(0)) dx = at::empty({n, rows.size(1)}, weights.options());
    if (context->needs_input_grad(1)) dweight = at::zeros(factor.sizes(), weights.options());
    const int64_t most = rows_at_a_time(rows, v);
    for (int64_t start = 0; start < n; start += most) {
      int64_t count = std::min(most, n - start);
      auto part = rows.narrow(0, start, count);
      auto logits = times(table, part, factor).contiguous();
      Place at(logits);
      succeed(table->loss_backward(at.stream, at.kind, logits.data_ptr(), targets.data_ptr<int64_t>() + start,
                                 weights.data_ptr<float>() + start, sums.data_ptr<float>() + start, count, v, ignored));
      spread(table, logits, part, factor, dx.defined() ? dx.narrow(0, start, count) : dx, dweight);
    }
    return {dx, dweight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// On a GPU, where the loss of such a target is NaN, looking would mean waiting.
void check_targets(const at::Tensor& targets, int64_t v, int64_t ignored) {
  if (!targets.is_cpu()) return;
  auto* target = targets.data_ptr<int64_t>();
  for (int64_t i = 0; i < targets.size(0); ++i) {
    TORCH_CHECK(target[i] == ignored || (target[i] >= 0 && target[i] < v), "target ", target[i], " is outside the vocabulary of ", v);
  }
}

// The table that takes these, if one does.
const Table* table_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets) {
  bool together = weight.device() == x.device() && targets.device() == x.device() && targets.scalar_type() == at::kLong;
  return together && prepared_kind(x) == prepared_kind(weight) && table_for(weight, Family::Loss) ? table_for(x, Family::Loss) : nullptr;
}

}  // namespace

namespace fused {

at::Tensor cross_entropy_sum(const Table& table, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                             int64_t ignored, double z) {
  auto known = targets.contiguous();
  check_targets(known, weight.size(0), ignored);
  bool differentiate = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return CrossEntropy::apply(x.contiguous(), weight.contiguous(), known, ignored, z, differentiate, &table);
}

at::Tensor token_losses(const Table& table, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                        int64_t ignored) {
  auto known = targets.contiguous();
  check_targets(known, weight.size(0), ignored);
  return TokenLosses::apply(x.contiguous(), weight.contiguous(), known, ignored, &table);
}

}  // namespace fused

namespace composed {

at::Tensor cross_entropy_sum(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored, double z) {
  auto logits = tidemill::linear(x, weight, {});
  auto loss = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, ignored);
  if (z == 0) return loss;
  auto squares = at::logsumexp(logits.to(at::kFloat), {1}).square();
  return loss + z * squares.masked_fill(targets == ignored, 0).sum();
}

at::Tensor token_losses(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored) {
  return at::cross_entropy_loss(tidemill::linear(x, weight, {}).to(at::kFloat), targets, {}, at::Reduction::None, ignored);
}

}  // namespace composed

at::Tensor cross_entropy_sum(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored,
                             double z) {
  TORCH_CHECK(x.dim() == 2 && targets.dim() == 1 && targets.size(0) == x.size(0), "cross_entropy_sum: a target a row");
  auto* table = table_of(x, weight, targets);
  return table ? fused::cross_entropy_sum(*table, x, weight, targets, ignored, z)
               : composed::cross_entropy_sum(x, weight, targets, ignored, z);
}

at::Tensor token_losses(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored) {
  TORCH_CHECK(x.dim() == 2 && targets.dim() == 1 && targets.size(0) == x.size(0), "token_losses: a target a row");
  auto* table = table_of(x, weight, targets);
  return table ? fused::token_losses(*table, x, weight, targets, ignored) : composed::token_losses(x, weight, targets, ignored);
}

}  // namespace tidemill
