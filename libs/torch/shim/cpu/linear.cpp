// Matrix products. MKL keeps to AVX2 on AMD processors, oneDNN uses what there is: twice as fast there, equal elsewhere.
#include "kernels.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {

thread_local bool bfloat16_products = false;

at::ScalarType prepared_kind(const at::Tensor& x) {
  bool low = x.is_cpu() ? bfloat16_products : at::autocast::is_autocast_enabled(at::kCUDA);
  return low ? at::kBFloat16 : x.scalar_type();
}

at::Tensor prepared(const at::Tensor& x) { return x.to(prepared_kind(x)); }

at::Tensor product(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& bias) {
  if (x.scalar_type() == at::kBFloat16) {
    auto out = at::mm(x, y.t()).to(at::kFloat);
    return bias ? out.add_(*bias) : out;
  }
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                               c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static auto pointwise =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Signature>();
  return pointwise.call(x, y, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    auto rows = prepared(x.reshape({-1, x.size(-1)}));
    auto factor = prepared(weight);
    // A frozen weight (an adapter learns beside it) needs no inputs kept.
    context->save_for_backward({weight.requires_grad() ? rows : at::Tensor(), factor});
    context->saved_data["bias"] = bias && bias->requires_grad();
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return product(rows, factor, bias).view(shape);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &factor = saved[1];
    auto shape = gradients[0].sizes().vec();
    auto full = gradients[0].reshape({-1, gradients[0].size(-1)});
    auto gradient = full.to(factor.scalar_type());
    at::Tensor x_gradient, weight_gradient, bias_gradient;
    if (context->needs_input_grad(0)) {
      shape.back() = factor.size(1);
      x_gradient = product(gradient, factor.t()).view(shape);
    }
    if (context->needs_input_grad(1)) weight_gradient = product(gradient.t(), rows.t());
    if (context->saved_data["bias"].toBool()) bias_gradient = full.sum(0);
    return {x_gradient, weight_gradient, bias_gradient};
  }
};

// oneDNN compiles a kernel for each shape: worth it for shapes that come again.
bool comes_again(const at::Tensor& x) {
  int64_t rows = x.numel() / x.size(-1);
  return rows % 64 == 0 || (x.requires_grad() && at::GradMode::is_enabled());
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (!plain(x) || !plain(weight)) return at::linear(x, weight, bias);
  return bfloat16_products || comes_again(x) ? Linear::apply(x, weight, bias) : at::linear(x, weight, bias);
}

}  // namespace tidemill
