// AdamW whose moments are 8-bit blocks of 256 (arXiv 2110.02861): decoded, updated and encoded anew in one pass, block by block.
#include "shim.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "blocks.h"
#include "kernels.h"

namespace tidemill {
namespace {

constexpr int64_t BLOCK = 256;

struct Rule {
  double learning_rate, beta1, beta2, weight_decay, epsilon;
  // What moments are divided by because they began as zero.
  double correction1, correction2;
};

struct Parameter {
  at::Tensor weights, gradient;
  Blocks first, second;
};

// The nearest number of a sorted map. The search begins by a float's sign, exponent and first bits, where it is all but done.
class Search {
 public:
  explicit Search(const at::Tensor& map) {
    std::copy_n(map.data_ptr<float>(), 256, numbers.begin());
    for (int i = 0; i < 255; ++i) bounds[i] = (numbers[i] + numbers[i + 1]) / 2;
    for (uint32_t key = 0; key < starts.size(); ++key) {
      // The least number with these bits.
      uint32_t bits = key << SHIFT | (key >> (31 - SHIFT) ? (1u << SHIFT) - 1 : 0);
      float least = __builtin_bit_cast(float, bits);
      starts[key] = static_cast<uint8_t>(std::lower_bound(bounds.begin(), bounds.end(), least) - bounds.begin());
    }
  }

  inline __attribute__((always_inline)) uint8_t nearest(float x) const {
    int i = starts[__builtin_bit_cast(uint32_t, x) >> SHIFT];
    while (i < 255 && x > bounds[i]) ++i;
    return static_cast<uint8_t>(i);
  }

  std::array<float, 256> numbers;

 private:
  static constexpr int SHIFT = 17;
  std::array<float, 255> bounds;
  std::array<uint8_t, 1 << (32 - SHIFT)> starts;
};

inline __attribute__((always_inline)) void encode(const Search& map, const float* values, uint8_t* codes, float* size,
                                                  int64_t count) {
  float most = 0;
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < count; ++i) most = std::abs(values[i]) > most ? std::abs(values[i]) : most;
  const float least = 1e-38f, divisor = std::max(most, least), factor = 1.0f / divisor;
  *size = count == BLOCK ? most : divisor;
  for (int64_t i = 0; i < count; ++i) {
    float scaled = count == BLOCK ? values[i] * factor : values[i] / divisor;
    codes[i] = map.nearest(std::min(1.0f, std::max(-1.0f, scaled)));
  }
}

struct Pointers {
  float* weights;
  const float* gradient;
  uint8_t *first, *second;
  float *first_sizes, *second_sizes;
};

TIDEMILL_CLONES void update_blocks(const Rule& rule, const Pointers& at, const Search& maps1, const Search& maps2, float divisor,
                                   int64_t begin, int64_t end, int64_t n) {
  const float beta1 = rule.beta1, rest1 = 1 - rule.beta1, beta2 = rule.beta2, rest2 = 1 - rule.beta2;
  const float kept = 1 - rule.learning_rate * rule.weight_decay, step = rule.learning_rate / rule.correction1;
  const float root = rule.correction2, epsilon = rule.epsilon;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t start = block * BLOCK, count = std::min(BLOCK, n - start);
    float first[BLOCK], second[BLOCK];
    const float size1 = at.first_sizes[block], size2 = at.second_sizes[block];
    for (int64_t i = 0; i < count; ++i) {
      first[i] = maps1.numbers[at.first[start + i]] * size1;
      second[i] = maps2.numbers[at.second[start + i]] * size2;
    }
    float* weights = at.weights + start;
    const float* gradient = at.gradient + start;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      float g = gradient[i] / divisor;
      first[i] = first[i] * beta1 + rest1 * g;
      second[i] = second[i] * beta2 + rest2 * g * g;
      weights[i] = weights[i] * kept - step * first[i] / (std::sqrt(second[i]) / root + epsilon);
    }
    encode(maps1, first, at.first + start, at.first_sizes + block, count);
    encode(maps2, second, at.second + start, at.second_sizes + block, count);
  }
}

void update_here(const Rule& rule, const Parameter& parameter, float divisor) {
  static const Search with_sign(dynamic_map(true)), without(dynamic_map(false));
  auto gradient = parameter.gradient.contiguous();
  const auto &first = parameter.first, &second = parameter.second;
  Pointers at = {parameter.weights.data_ptr<float>(), gradient.data_ptr<float>(), first.codes.data_ptr<uint8_t>(),
                 second.codes.data_ptr<uint8_t>(), first.sizes.data_ptr<float>(), second.sizes.data_ptr<float>()};
  int64_t n = parameter.weights.numel();
  at::parallel_for(0, first.sizes.size(0), 32, [&](int64_t begin, int64_t end) {
    update_blocks(rule, at, with_sign, without, divisor, begin, end, n);
  });
}

// The same in libtorch's own operations, for devices without a kernel here.
void update_elsewhere(const Rule& rule, const Parameter& parameter, const at::Tensor& divisor) {
  auto decoded = [&](const Blocks& blocks, const at::Tensor& map) {
    return dequantize({blocks.codes.view({-1}), blocks.sizes}, map, BLOCK).view_as(parameter.weights);
  };
  auto encoded = [](const at::Tensor& values, const at::Tensor& map, const Blocks& into) {
    auto blocks = quantize(values, map, BLOCK);
    into.codes.view({-1}).copy_(blocks.codes);
    into.sizes.copy_(blocks.sizes);
  };
  auto device = parameter.weights.device();
  auto with_sign = dynamic_map(true).to(device), without = dynamic_map(false).to(device);
  auto gradient = (divisor.defined() ? parameter.gradient / divisor : parameter.gradient).to(at::kFloat);
  auto first = decoded(parameter.first, with_sign).mul_(rule.beta1).add_(gradient, 1 - rule.beta1);
  auto second = decoded(parameter.second, without).mul_(rule.beta2).addcmul_(gradient, gradient, 1 - rule.beta2);
  auto size = (second.sqrt() / rule.correction2).add_(rule.epsilon);
  auto weights = parameter.weights;
  weights.mul_(1 - rule.learning_rate * rule.weight_decay).addcdiv_(first, size, -rule.learning_rate / rule.correction1);
  encoded(first, with_sign, parameter.first);
  encoded(second, without, parameter.second);
}

void check_parameter(const Parameter& parameter, int64_t index) {
  const auto& weights = parameter.weights;
  TORCH_CHECK(weights.scalar_type() == at::kFloat && weights.is_contiguous(), "parameter ", index, ": 8-bit moments need contiguous float32");
  for (const auto* blocks : {&parameter.first, &parameter.second}) {
    bool codes = blocks->codes.scalar_type() == at::kByte && blocks->codes.numel() == weights.numel() && blocks->codes.is_contiguous();
    int64_t count = (weights.numel() + BLOCK - 1) / BLOCK;
    bool sizes = blocks->sizes.scalar_type() == at::kFloat && blocks->sizes.numel() == count && blocks->sizes.is_contiguous();
    TORCH_CHECK(codes && sizes, "parameter ", index, ": its 8-bit moments have another shape");
  }
}

}  // namespace
}  // namespace tidemill

extern "C" {

// `step` counts this update.
char* tm_adamw_8bit(TensorPtr const* parameters, TensorPtr const* gradients, TensorPtr const* first_codes,
                    TensorPtr const* first_sizes, TensorPtr const* second_codes, TensorPtr const* second_sizes, int64_t count,
                    int64_t step, double learning_rate, double beta1, double beta2, double weight_decay, double epsilon,
                    TensorPtr gradient_divisor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    tidemill::Rule rule = {learning_rate, beta1, beta2, weight_decay, epsilon, 1 - std::pow(beta1, step),
                           std::sqrt(1 - std::pow(beta2, step))};
    at::Tensor divisor;
    if (gradient_divisor) divisor = *gradient_divisor;
    for (int64_t i = 0; i < count; ++i) {
      tidemill::Parameter parameter = {*parameters[i], *gradients[i], {*first_codes[i], *first_sizes[i]},
                                       {*second_codes[i], *second_sizes[i]}};
      tidemill::check_parameter(parameter, i);
      if (tidemill::plain(parameter.weights) && tidemill::plain(parameter.gradient)) {
        tidemill::update_here(rule, parameter, divisor.defined() ? divisor.item<float>() : 1.0f);
      } else {
        tidemill::update_elsewhere(rule, parameter, divisor);
      }
    }
  });
}

}  // extern "C"
