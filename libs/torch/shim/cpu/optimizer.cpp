// Gradients and the optimiser: one call over all parameters.
#include "shim.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>

extern "C" {

// The gradients of `parameters`, moved out: afterwards the parameters have none. Fails where one has no gradient.
char* tm_take_gradients(TensorPtr const* parameters, int64_t count, TensorPtr* gradients) {
  return guarded([&] {
    for (int64_t i = 0; i < count; ++i) {
      TORCH_CHECK(parameters[i]->grad().defined(), "parameter ", i, " has no gradient");
    }
    for (int64_t i = 0; i < count; ++i) {
      at::Tensor& gradient = parameters[i]->mutable_grad();
      gradients[i] = new at::Tensor(std::move(gradient));
      gradient = at::Tensor();
    }
  });
}

char* tm_global_norm(TensorPtr const* tensors, int64_t count, double* norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto list = gather(tensors, count);
    auto norms = at::_foreach_norm(list, 2);
    *norm = at::linalg_vector_norm(at::stack(norms), 2).item<double>();
  });
}

char* tm_fused_adamw(TensorPtr const* parameters, TensorPtr const* gradients, TensorPtr const* first_moments,
                     TensorPtr const* second_moments, TensorPtr const* steps, int64_t count, double learning_rate,
                     double beta1, double beta2, double weight_decay, double epsilon, TensorPtr gradient_divisor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto parameter_list = gather(parameters, count);
    auto gradient_list = gather(gradients, count);
    auto first_list = gather(first_moments, count);
    auto second_list = gather(second_moments, count);
    auto step_list = gather(steps, count);
    std::vector<at::Tensor> no_maxima;
    std::optional<at::Tensor> divisor;
    if (gradient_divisor) divisor = *gradient_divisor;
    at::_fused_adamw_(parameter_list, gradient_list, first_list, second_list, no_maxima, step_list, learning_rate,
                      beta1, beta2, weight_decay, epsilon, /*amsgrad=*/false, /*maximize=*/false, divisor);
  });
}

}  // extern "C"
