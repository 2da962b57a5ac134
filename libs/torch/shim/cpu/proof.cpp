#include "proof.h"

#include <functional>
#include <sstream>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels.h"

namespace tidemill {
namespace {

using Tensors = std::vector<at::Tensor>;
using Body = std::function<Tensors(const Tensors&)>;

// Numbers between -size and size without a pattern that a wrong place could keep; no generator is touched.
at::Tensor drawn(at::IntArrayRef shape, double size, double seed) {
  return at::arange(c10::multiply_integers(shape), at::kDouble).mul_(12.9898).add_(seed).sin_().mul_(43758.5453).sin_().mul_(size).view(shape);
}

// Outputs, and the gradients of inputs where each element of the outputs counts differently.
Tensors outcome(const Body& body, const Tensors& inputs, at::ScalarType kind, at::ScalarType in, at::Device device) {
  at::AutoGradMode differentiate(true);
  Tensors leaves;
  // All see the same numbers, those that `kind` can hold.
  for (const auto& input : inputs) leaves.push_back(input.to(kind).to(in).to(device).requires_grad_(true));
  Tensors outputs = body(leaves), weights;
  for (const auto& output : outputs) weights.push_back(drawn(output.sizes(), 1, 5).to(kind).to(output.scalar_type()).to(device));
  auto gradients = torch::autograd::grad(outputs, leaves, weights);
  outputs.insert(outputs.end(), gradients.begin(), gradients.end());
  return outputs;
}

// In bfloat16 both read the same numbers, and libtorch computes in float32. `low`: by how much it may differ then, as a share of the largest.
void compare(const std::string& what, const Body& ours, const Body& theirs, const Tensors& inputs, at::Device device, double low = 5e-3) {
  for (auto [kind, tolerance] : {std::pair(at::kFloat, 1e-4), std::pair(at::kBFloat16, low)}) {
    auto found = outcome(ours, inputs, kind, kind, device), expected = outcome(theirs, inputs, kind, at::kFloat, device);
    for (size_t i = 0; i < found.size(); ++i) {
      auto a = found[i].detach().to(at::kDouble), b = expected[i].detach().to(at::kDouble);
      double difference = (a - b).abs().max().item<double>(), size = b.abs().max().item<double>();
      bool same = difference <= tolerance * size;
      TORCH_CHECK(same, what, " in ", kind, ", tensor ", i, ", differs from libtorch's own operations by ", difference, " where numbers are up to ",
                  size);
    }
  }
}

template <class... Numbers>
std::string named(const char* what, Numbers... numbers) {
  std::ostringstream text;
  text << what;
  ((text << ' ' << numbers), ...);
  return text.str();
}

// Lengths: of one load, odd, of several rounds of a block, both.
void prove_norm(const Table& table, at::Device device) {
  for (int64_t c : {8, 45, 4104, 2571}) {
    compare(named("rms norm of 37 rows of", c), [&](const Tensors& x) { return Tensors{fused::rms_norm(table, x[0], x[1], 1e-6)}; },
            [](const Tensors& x) { return Tensors{composed::rms_norm(x[0], x[1], 1e-6)}; }, {drawn({37, c}, 3, 1), drawn({c}, 1, 2)}, device);
  }
}

void prove_gate(const Table& table, at::Device device) {
  for (int64_t n : {8, 45, 4104, 2571}) {
    compare(named("gate of 19 rows of", n), [&](const Tensors& x) { return Tensors{fused::swiglu(table, x[0])}; },
            [](const Tensors& x) { return Tensors{composed::swiglu(x[0])}; }, {drawn({19, 2 * n}, 8, 1)}, device);
  }
}

void prove_rotation(const Table& table, at::Device device) {
  const int64_t b = 2, t = 7;
  auto list = [](const std::array<at::Tensor, 3>& x) { return Tensors(x.begin(), x.end()); };
  for (auto [h, k, d] : {std::array<int64_t, 3>{6, 2, 64}, {3, 3, 10}, {48, 4, 96}, {4, 1, 17}}) {
    for (bool turned : {false, true}) {
      if (turned && d % 2 != 0) continue;
      auto angles = drawn({t, d / 2}, 3, 2).to(at::kFloat).to(device);
      std::optional<at::Tensor> cosines, sines;
      if (turned) std::tie(cosines, sines) = std::pair(angles.cos(), angles.sin());
      int64_t heads = h, others = k;
      compare(named(turned ? "turned heads" : "heads", h, k, d),
              [&](const Tensors& x) { return list(fused::rotate_qkv(table, x[0], cosines, sines, heads, others)); },
              [&](const Tensors& x) { return list(composed::rotate_qkv(x[0], cosines, sines, heads, others)); },
              {drawn({b, t, (h + 2 * k) * d}, 2, 1)}, device);
    }
  }
}

void prove_loss(const Table& table, at::Device device) {
  const int64_t c = 24, ignored = -100;
  // Logits are rounded to bfloat16 before their exponentials are taken.
  const double low = 3e-2;
  for (auto [n, v] : {std::pair<int64_t, int64_t>{523, 8}, {523, 203}, {37, 5003}, {37, 5008}}) {
    auto targets = at::arange(n, at::kLong).mul_(7).remainder_(v);
    targets.narrow(0, 3, n / 4).fill_(ignored);
    targets = targets.to(device);
    Tensors inputs = {drawn({n, c}, 1, 1), drawn({v, c}, 1, 2)};
    for (double z : {0.0, 0.1}) {
      compare(named("cross-entropy over", v), [&](const Tensors& x) { return Tensors{fused::cross_entropy_sum(table, x[0], x[1], targets, ignored, z)}; },
              [&](const Tensors& x) { return Tensors{composed::cross_entropy_sum(x[0], x[1], targets, ignored, z)}; }, inputs, device, low);
    }
    compare(named("losses of tokens over", v), [&](const Tensors& x) { return Tensors{fused::token_losses(table, x[0], x[1], targets, ignored)}; },
            [&](const Tensors& x) { return Tensors{composed::token_losses(x[0], x[1], targets, ignored)}; }, inputs, device, low);
  }
}

}  // namespace

void prove(const Table& table, Family family, at::Device device) {
  switch (family) {
    case Family::Norm: return prove_norm(table, device);
    case Family::Gate: return prove_gate(table, device);
    case Family::Rotation: return prove_rotation(table, device);
    case Family::Loss: return prove_loss(table, device);
  }
  TORCH_CHECK(false, "there is no family ", static_cast<int>(family));
}

}  // namespace tidemill
