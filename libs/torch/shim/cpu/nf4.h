// Matrices in 4-bit NormalFloat (QLoRA, arXiv 2305.14314).
#pragma once

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace tidemill {

// Blocks of 64 numbers along the rows laid end to end; their sizes less `offset` are 8-bit blocks of 256.
struct Nf4 {
  at::Tensor packed;  // uint8, two numbers each, the first in the high half
  at::Tensor scales;  // uint8, [blocks]
  at::Tensor sizes;   // float32, [ceil(blocks / 256)]
  at::Tensor offset;  // float32, []
  int64_t rows, columns;
};

Nf4 nf4(const at::Tensor& matrix);
// The matrices below each other, float32.
at::Tensor dequantize(const std::vector<Nf4>& parts);
// x [.., columns] times the matrices below each other, transposed; what they are dequantised to lives no longer than the product, and is
// made anew for the gradient of x.
at::Tensor linear(const at::Tensor& x, const std::vector<Nf4>& parts, const std::optional<at::Tensor>& bias);

}  // namespace tidemill
