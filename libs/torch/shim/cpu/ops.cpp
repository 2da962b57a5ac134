// Entry points of the operations: the fast form where it applies, else the composition of libtorch's own.
#include "kernels.h"
#include "shim.h"

using tidemill::at_or;

extern "C" {

char* tm_linear(TensorPtr x, TensorPtr weight, TensorPtr bias, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::linear(*x, *weight, at_or(bias))); });
}

char* tm_rms_norm(TensorPtr x, TensorPtr weight, double epsilon, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::rms_norm(*x, *weight, epsilon)); });
}

char* tm_swiglu(TensorPtr gate_up, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::swiglu(*gate_up)); });
}

// out: queries, keys, values. Without cosines nothing is rotated.
char* tm_rotate_qkv(TensorPtr qkv, TensorPtr cosines, TensorPtr sines, int64_t heads, int64_t kv_heads, TensorPtr* out) {
  return guarded([&] {
    auto parts = tidemill::rotate_qkv(*qkv, at_or(cosines), at_or(sines), heads, kv_heads);
    for (int i = 0; i < 3; ++i) out[i] = new at::Tensor(parts[i]);
  });
}

char* tm_causal_attention(TensorPtr q, TensorPtr k, TensorPtr v, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::causal_attention(*q, *k, *v)); });
}

char* tm_cross_entropy_sum(TensorPtr x, TensorPtr weight, TensorPtr targets, int64_t ignored, double z, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::cross_entropy_sum(*x, *weight, *targets, ignored, z)); });
}

char* tm_token_losses(TensorPtr x, TensorPtr weight, TensorPtr targets, int64_t ignored, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::token_losses(*x, *weight, *targets, ignored)); });
}

// Matrix products of this thread on the CPU: bfloat16 or float32. Returns what it was.
int32_t tm_set_bfloat16(int32_t on) {
  bool was = tidemill::bfloat16_products;
  tidemill::bfloat16_products = on != 0;
  return was;
}

}  // extern "C"
