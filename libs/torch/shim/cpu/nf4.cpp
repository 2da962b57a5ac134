// 4-bit NormalFloat: equal to bitsandbytes' nf4 with compress_statistics, number by number.
#include "nf4.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include "blocks.h"
#include "kernels.h"
#include "shim.h"

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t BLOCK = 64, SCALES = 256;
// Quantiles of the normal distribution, scaled to [-1, 1], with an exact 0 (the paper's appendix E).
constexpr float LEVELS[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
    -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

at::Tensor levels(const at::Tensor& like) {
  return at::tensor(at::ArrayRef<float>(LEVELS, 16), at::kFloat).to(like.device());
}

// Blocks of one matrix, `first` the first of them.
TIDEMILL_CLONES void unpack(const uint8_t* packed, const float* scales, float* out, int64_t first, int64_t last, int64_t n) {
  for (int64_t block = first; block < last; ++block) {
    float values[16];
    for (int i = 0; i < 16; ++i) values[i] = LEVELS[i] * scales[block];
    int64_t begin = block * BLOCK, end = std::min(n, begin + BLOCK);
    for (int64_t i = begin; i + 1 < end; i += 2) {
      uint8_t both = packed[i / 2];
      out[i] = values[both >> 4];
      out[i + 1] = values[both & 15];
    }
    if ((end - begin) % 2) out[end - 1] = values[packed[(end - 1) / 2] >> 4];
  }
}

void fill(const Nf4& part, const at::Tensor& out) {
  auto map = dynamic_map(true).to(part.scales.device());
  // Not one operation: the sum of a rounded product is what it was when it was quantised.
  auto scales = dequantize({part.scales, part.sizes}, map, SCALES) + part.offset;
  int64_t n = part.rows * part.columns;
  if (!out.is_cpu()) {
    auto codes = at::stack({part.packed.bitwise_right_shift(4), part.packed.bitwise_and(15)}, 1).view({-1}).narrow(0, 0, n);
    out.copy_(dequantize({codes, scales}, levels(part.packed), BLOCK).view({part.rows, part.columns}));
    return;
  }
  auto *from = part.packed.data_ptr<uint8_t>();
  auto *by = scales.data_ptr<float>(), *to = out.data_ptr<float>();
  at::parallel_for(0, scales.size(0), 256, [&](int64_t first, int64_t last) { unpack(from, by, to, first, last, n); });
}

struct Nf4Linear : torch::autograd::Function<Nf4Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::vector<Nf4>& parts,
                            const std::optional<at::Tensor>& bias) {
    keep(context, parts);
    context->saved_data["low"] = bfloat16_products;
    auto weight = dequantize(parts);
    if (!plain(x)) return at::linear(x, weight.to(x.scalar_type()), bias);
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return product(prepared(x.reshape({-1, x.size(-1)})), prepared(weight), bias).view(shape);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto weight = dequantize(kept(context));
    const auto& all = gradients[0];
    if (!plain(all)) return {at::matmul(all, weight.to(all.scalar_type())), at::Tensor(), at::Tensor()};
    auto kind = context->saved_data["low"].toBool() ? at::kBFloat16 : at::kFloat;
    auto shape = all.sizes().vec();
    auto rows = all.reshape({-1, shape.back()}).to(kind);
    shape.back() = weight.size(1);
    return {product(rows, weight.to(kind).t()).view(shape), at::Tensor(), at::Tensor()};
  }

 private:
  static void keep(AutogradContext* context, const std::vector<Nf4>& parts) {
    std::vector<at::Tensor> tensors;
    std::vector<int64_t> shapes;
    for (const auto& part : parts) {
      tensors.insert(tensors.end(), {part.packed, part.scales, part.sizes, part.offset});
      shapes.insert(shapes.end(), {part.rows, part.columns});
    }
    context->saved_data["tensors"] = tensors;
    context->saved_data["shapes"] = shapes;
  }

  static std::vector<Nf4> kept(AutogradContext* context) {
    auto tensors = context->saved_data["tensors"].toTensorVector();
    auto shapes = context->saved_data["shapes"].toIntVector();
    std::vector<Nf4> parts;
    for (size_t i = 0; 2 * i < shapes.size(); ++i) {
      auto* four = &tensors[4 * i];
      parts.push_back({four[0], four[1], four[2], four[3], shapes[2 * i], shapes[2 * i + 1]});
    }
    return parts;
  }
};

std::vector<Nf4> from_pointers(TensorPtr const* tensors, int64_t const* shapes, int64_t count) {
  std::vector<Nf4> parts;
  for (int64_t i = 0; i < count; ++i) {
    auto* four = tensors + 4 * i;
    parts.push_back({*four[0], *four[1], *four[2], *four[3], shapes[2 * i], shapes[2 * i + 1]});
  }
  return parts;
}

}  // namespace

Nf4 nf4(const at::Tensor& matrix) {
  TORCH_CHECK(matrix.dim() == 2 && matrix.numel() > 0, "nf4: only matrices are kept in four bits");
  at::NoGradGuard no_grad;
  auto blocks = quantize(matrix, levels(matrix), BLOCK);
  auto codes = blocks.codes.size(0) % 2 ? at::constant_pad_nd(blocks.codes, {0, 1}) : blocks.codes;
  auto pairs = codes.view({-1, 2});
  auto packed = pairs.select(1, 0).bitwise_left_shift(4).bitwise_or(pairs.select(1, 1)).contiguous();
  auto offset = blocks.sizes.mean();
  auto scales = quantize(blocks.sizes - offset, dynamic_map(true).to(matrix.device()), SCALES);
  return {packed, scales.codes, scales.sizes, offset, matrix.size(0), matrix.size(1)};
}

at::Tensor dequantize(const std::vector<Nf4>& parts) {
  TORCH_CHECK(!parts.empty(), "nf4: no matrix");
  at::NoGradGuard no_grad;
  int64_t rows = 0, at = 0;
  for (const auto& part : parts) rows += part.rows;
  auto out = at::empty({rows, parts[0].columns}, parts[0].sizes.options());
  for (const auto& part : parts) {
    fill(part, out.narrow(0, at, part.rows));
    at += part.rows;
  }
  return out;
}

at::Tensor linear(const at::Tensor& x, const std::vector<Nf4>& parts, const std::optional<at::Tensor>& bias) {
  TORCH_CHECK(!parts.empty() && x.dim() > 0 && x.size(-1) == parts[0].columns, "nf4: width of input and weight differ");
  // Without a gradient it is a product like any other.
  if (!at::GradMode::is_enabled() || !x.requires_grad()) {
    return tidemill::linear(x, dequantize(parts).to(x.scalar_type()), bias);
  }
  return Nf4Linear::apply(x, parts, bias);
}

}  // namespace tidemill

extern "C" {

// tensors: packed numbers, scales, their sizes and their offset.
char* tm_nf4_quantize(TensorPtr matrix, TensorPtr* tensors) {
  return guarded([&] {
    auto made = tidemill::nf4(*matrix);
    const at::Tensor* four[] = {&made.packed, &made.scales, &made.sizes, &made.offset};
    for (int i = 0; i < 4; ++i) tensors[i] = new at::Tensor(*four[i]);
  });
}

// Four tensors and two sizes, rows and columns, a matrix.
char* tm_nf4_dequantize(TensorPtr const* tensors, int64_t const* shapes, int64_t count, TensorPtr* out) {
  return guarded([&] { *out = new at::Tensor(tidemill::dequantize(tidemill::from_pointers(tensors, shapes, count))); });
}

char* tm_nf4_linear(TensorPtr x, TensorPtr const* tensors, int64_t const* shapes, int64_t count, TensorPtr bias, TensorPtr* out) {
  return guarded([&] {
    auto parts = tidemill::from_pointers(tensors, shapes, count);
    *out = new at::Tensor(tidemill::linear(*x, parts, tidemill::at_or(bias)));
  });
}

}  // extern "C"
