// Numbers in blocks, each an index into a sorted map and one size a block, as bitsandbytes' PyTorch kernels have them (arXiv 2110.02861).
#pragma once

#include <ATen/core/Tensor.h>

namespace tidemill {

struct Blocks {
  at::Tensor codes;  // uint8, [n]
  at::Tensor sizes;  // float32, [ceil(n / block)]: the largest magnitude of each block
};

// The 256 numbers of 8-bit dynamic quantisation (arXiv 1511.04561), float32, sorted: from -1 to 1, or from 0 to 1.
const at::Tensor& dynamic_map(bool with_sign);

// Any device. Each number becomes the nearest of the map, of two that are as near the smaller.
Blocks quantize(const at::Tensor& values, const at::Tensor& map, int64_t block);
at::Tensor dequantize(const Blocks& blocks, const at::Tensor& map, int64_t block);

}  // namespace tidemill
