// Linear layers whose products run in float8 (arXiv 2209.05433): e4m3 for activations and weights, e5m2 for gradients, one scale a tensor,
// found anew at each use. The numbers are those of torchao's recipe "tensorwise".
#include "kernels.h"
#include "shim.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {

thread_local bool fp8_layers = false;

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Sizes of products on a GPU are multiples of it.
constexpr int64_t TILE = 16;

// A tensor in float8, row by row: what it was is `numbers` times `inverse`.
struct Scaled {
  at::Tensor numbers;  // float8
  at::Tensor inverse;  // float32, []
};

// The largest number becomes the largest of the format. What is not a number stays one.
Scaled scaled(const at::Tensor& x, at::ScalarType format) {
  double most = format == at::kFloat8_e4m3fn ? 448.0 : 57344.0;
  auto scale = x.abs().max().to(at::kDouble).clamp_min(1e-12).reciprocal().mul(most).to(at::kFloat);
  return {x.to(at::kFloat).mul(scale).clamp(-most, most).to(format).contiguous(), scale.reciprocal()};
}

// x [n, k] by rows times y [k, m] by columns, bfloat16 out. `fast` sums in less than float32 on a GPU.
at::Tensor product(const at::Tensor& x, const at::Tensor& x_inverse, const at::Tensor& y, const at::Tensor& y_inverse, bool fast) {
  return at::_scaled_mm(x, y, x_inverse, y_inverse, {}, {}, at::kBFloat16, fast);
}

// The same numbers column by column; rows of zeros make their number a multiple of a tile.
at::Tensor by_columns(const at::Tensor& x) {
  int64_t rows = x.size(0), padded = (rows + TILE - 1) / TILE * TILE;
  auto turned = at::zeros({x.size(1), padded}, x.options());
  turned.narrow(1, 0, rows).copy_(x.t());
  return turned.t();
}

// rows [n, i] in bfloat16, weight [o, i] -> [n, o] in bfloat16.
struct Fp8Linear : torch::autograd::Function<Fp8Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& weight) {
    auto x = scaled(rows, at::kFloat8_e4m3fn), w = scaled(weight, at::kFloat8_e4m3fn);
    // A frozen weight (an adapter learns beside it) needs no inputs kept.
    bool learns = weight.requires_grad();
    context->save_for_backward({learns ? x.numbers : at::Tensor(), learns ? x.inverse : at::Tensor(), w.numbers, w.inverse});
    context->saved_data["kind"] = weight.scalar_type();
    return product(x.numbers, x.inverse, w.numbers.t(), w.inverse, true);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto g = scaled(gradients[0], at::kFloat8_e5m2);
    at::Tensor rows_gradient, weight_gradient;
    if (context->needs_input_grad(0)) {
      rows_gradient = product(g.numbers, g.inverse, by_columns(saved[2]), saved[3], false);
    }
    if (context->needs_input_grad(1)) {
      auto out = product(by_columns(g.numbers).t(), g.inverse, by_columns(saved[0]), saved[1], false);
      weight_gradient = out.to(context->saved_data["kind"].toScalarType());
    }
    return {rows_gradient, weight_gradient};
  }
};

}  // namespace

at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (!fp8_layers || x.numel() == 0) return tidemill::linear(x, weight, bias);
  TORCH_CHECK(weight.dim() == 2 && x.dim() > 0 && x.size(-1) == weight.size(1), "fp8: width of input and weight differ");
  auto y = Fp8Linear::apply(x.reshape({-1, x.size(-1)}).to(at::kBFloat16), weight);
  if (bias) y = y + bias->to(at::kBFloat16);
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  y = y.view(shape);
  // As with products in bfloat16: the CPU goes on in float32, autocast on a GPU in bfloat16.
  return x.is_cpu() ? y.to(x.scalar_type()) : y;
}

}  // namespace tidemill

extern "C" {

char* tm_fp8_linear(TensorPtr x, TensorPtr weight, TensorPtr bias, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::fp8_linear(*x, *weight, tidemill::at_or(bias))); });
}

// Whether layers of this thread multiply in float8. Returns what it was.
int32_t tm_set_fp8(int32_t on) {
  bool was = tidemill::fp8_layers;
  tidemill::fp8_layers = on != 0;
  return was;
}

}  // extern "C"
