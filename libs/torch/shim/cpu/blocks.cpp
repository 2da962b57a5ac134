// Block-wise quantisation in libtorch's own operations: for what is done once, and for devices without a kernel here.
#include "blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sort.h>
#include <ATen/core/grad_mode.h>

namespace tidemill {
namespace {

// What divides a block of zeros.
constexpr double LEAST = 1e-38;

at::Tensor made(bool with_sign) {
  at::NoGradGuard no_grad;
  // Each power of ten has twice as many numbers as the one below it.
  constexpr double POWERS[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
  std::vector<at::Tensor> parts = {at::scalar_tensor(0.0, at::kFloat).view({1}), at::scalar_tensor(1.0, at::kFloat).view({1})};
  int64_t count = with_sign ? 1 : 2;
  for (double power : POWERS) {
    auto bounds = at::linspace(0.1, 1.0, count + 1, at::kFloat);
    auto means = (bounds.narrow(0, 0, count) + bounds.narrow(0, 1, count)) / 2.0;
    parts.push_back(means * power);
    if (with_sign) parts.push_back(means * -power);
    count *= 2;
  }
  return std::get<0>(at::sort(at::cat(parts)));
}

}  // namespace

const at::Tensor& dynamic_map(bool with_sign) {
  static const at::Tensor with = made(true), without = made(false);
  return with_sign ? with : without;
}

Blocks quantize(const at::Tensor& values, const at::Tensor& map, int64_t block) {
  at::NoGradGuard no_grad;
  auto flat = values.reshape({-1}).to(at::kFloat);
  int64_t n = flat.numel(), full = n / block * block;
  auto whole = flat.narrow(0, 0, full).view({-1, block});
  auto sizes = whole.abs().amax(1);
  auto scaled = (whole * sizes.clamp_min(LEAST).reciprocal().unsqueeze(1)).clamp(-1, 1).view({-1});
  if (full < n) {
    auto rest = flat.narrow(0, full, n - full);
    auto size = rest.abs().max().clamp_min(LEAST);
    sizes = at::cat({sizes, size.view({1})});
    scaled = at::cat({scaled, (rest / size).clamp(-1, 1)});
  }
  int64_t count = map.size(0);
  auto bounds = (map.narrow(0, 0, count - 1) + map.narrow(0, 1, count - 1)) / 2;
  return {at::bucketize(scaled, bounds, /*out_int32=*/true).to(at::kByte), sizes};
}

at::Tensor dequantize(const Blocks& blocks, const at::Tensor& map, int64_t block) {
  auto values = map.index_select(0, blocks.codes.to(at::kInt));
  return values * blocks.sizes.repeat_interleave(block).narrow(0, 0, values.size(0));
}

}  // namespace tidemill
