// Operations of a decoder, differentiable. Shapes: b batch, t time, c width, h heads, k key and value heads, d head size.
#pragma once

#include <array>
#include <optional>

#include <ATen/core/Tensor.h>

// Compiled for several instruction sets; the loader picks one.
#define TIDEMILL_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))

namespace tidemill {

// Whether float32 matrix products of this thread run in bfloat16 on the CPU.
extern thread_local bool bfloat16_products;
// Whether linear layers inside networks run in float8 on this thread.
extern thread_local bool fp8_layers;

inline std::optional<at::Tensor> at_or(at::Tensor* tensor) {
  return tensor ? std::optional<at::Tensor>(*tensor) : std::nullopt;
}

// Whether the hand-written kernels apply; everything else goes through libtorch's own operations.
inline bool plain(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.numel() > 0; }

// e^x within 2 units in the last place for x in [-87, 88], clamped outside; vectorises, NaN stays NaN.
inline __attribute__((always_inline)) float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  float n = (x * 1.44269504f + shift) - shift;
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
}

// The form in which `product` wants a factor on this thread: itself, or a bfloat16 copy.
at::Tensor prepared(const at::Tensor& x);
// x [n, k] times y [m, k] transposed, any strides, float32 out.
at::Tensor product(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& bias = {});

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);
// As `linear`; in float8 where this thread's layers are. Sizes of the weight are then multiples of 16.
at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon);
// [.., 2i] -> [.., i]: silu of the first half times the second.
at::Tensor swiglu(const at::Tensor& gate_up);
// [b, t, (h + 2k) d] -> [b, h, t, d], [b, k, t, d], [b, k, t, d].
std::array<at::Tensor, 3> rotate_qkv(const at::Tensor& qkv, const std::optional<at::Tensor>& cosines,
                                     const std::optional<at::Tensor>& sines, int64_t heads, int64_t kv_heads);
// Whole sequences from position 0 -> [b, t, h d].
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
// x [n, c], weight [v, c], targets [n] -> scalar; `z` weighs the squares of the log-sum-exps.
at::Tensor cross_entropy_sum(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored,
                             double z);
// x [n, c], weight [v, c], targets [n] -> [n], float32.
at::Tensor token_losses(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets, int64_t ignored);

}  // namespace tidemill
