// Norm, gate and rotation: one pass over memory forward, one backward.
#include "kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void keep(AutogradContext* context, const Table* table) { context->saved_data["table"] = reinterpret_cast<int64_t>(table); }

const Table* kept(AutogradContext* context) { return reinterpret_cast<const Table*>(context->saved_data["table"].toInt()); }

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight, double epsilon,
                            const Table* table) {
    auto x = input.contiguous();
    int64_t c = x.size(-1), rows = x.numel() / c;
    auto y = at::empty_like(x), scales = at::empty({rows}, x.options().dtype(at::kFloat));
    Place at(x);
    succeed(table->norm(at.stream, at.kind, x.data_ptr(), weight.data_ptr(), y.data_ptr(), scales.data_ptr<float>(), rows, c,
                      static_cast<float>(epsilon)));
    context->save_for_backward({x, weight, scales});
    keep(context, table);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &scales = saved[2];
    auto g = gradients[0].contiguous();
    auto* table = kept(context);
    int64_t c = x.size(-1), rows = x.numel() / c, blocks = (rows + table->norm_rows - 1) / table->norm_rows;
    auto dx = at::empty_like(x), dweights = at::empty({blocks, c}, scales.options());
    Place at(x);
    succeed(table->norm_backward(at.stream, at.kind, x.data_ptr(), weight.data_ptr(), g.data_ptr(), scales.data_ptr<float>(),
                               dx.data_ptr(), dweights.data_ptr<float>(), rows, c));
    return {dx, dweights.sum(0).to(weight.scalar_type()), at::Tensor(), at::Tensor()};
  }
};

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const Table* table) {
    auto x = input.contiguous();
    auto shape = x.sizes().vec();
    shape.back() /= 2;
    auto y = at::empty(shape, x.options());
    int64_t n = shape.back(), rows = y.numel() / n;
    Place at(x);
    succeed(table->gate(at.stream, at.kind, x.data_ptr(), y.data_ptr(), rows, n));
    context->save_for_backward({x});
    keep(context, table);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto x = context->get_saved_variables()[0];
    auto g = gradients[0].contiguous();
    auto dx = at::empty_like(x);
    int64_t n = x.size(-1) / 2, rows = g.numel() / n;
    Place at(x);
    succeed(kept(context)->gate_backward(at.stream, at.kind, x.data_ptr(), g.data_ptr(), dx.data_ptr(), rows, n));
    return {dx, at::Tensor()};
  }
};

struct RotateQkv : torch::autograd::Function<RotateQkv> {
  static variable_list forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& cosines,
                               const at::Tensor& sines, int64_t h, int64_t k, const Table* table) {
    auto qkv = input.contiguous();
    int64_t b = qkv.size(0), t = qkv.size(1), d = qkv.size(2) / (h + 2 * k);
    auto queries = at::empty({b, h, t, d}, qkv.options()), keys = at::empty({b, k, t, d}, qkv.options());
    auto values = at::empty_like(keys);
    run(*table, {b, t, h, k, d}, cosines, sines, qkv, queries, keys, values, false);
    context->save_for_backward({cosines, sines});
    keep(context, table);
    return {queries, keys, values};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto queries = gradients[0].contiguous(), keys = gradients[1].contiguous(), values = gradients[2].contiguous();
    int64_t b = queries.size(0), h = queries.size(1), t = queries.size(2), d = queries.size(3), k = keys.size(1);
    auto qkv = at::empty({b, t, (h + 2 * k) * d}, queries.options());
    run(*kept(context), {b, t, h, k, d}, saved[0], saved[1], qkv, queries, keys, values, true);
    return {qkv, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }

 private:
  static const float* pointer(const at::Tensor& x) { return x.numel() ? x.data_ptr<float>() : nullptr; }

  static void run(const Table& table, const Heads& s, const at::Tensor& cosines, const at::Tensor& sines, const at::Tensor& qkv,
                  const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool join) {
    Place at(qkv);
    succeed(table.rotate(at.stream, at.kind, &s, pointer(cosines), pointer(sines), qkv.data_ptr(), q.data_ptr(), k.data_ptr(),
                       v.data_ptr(), join));
  }
};

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines) {
  auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cosines - halves[1] * sines, halves[1] * cosines + halves[0] * sines}, -1);
}

}  // namespace

namespace fused {

at::Tensor rms_norm(const Table& table, const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return RmsNorm::apply(x, weight.contiguous(), epsilon, &table);
}

at::Tensor swiglu(const Table& table, const at::Tensor& gate_up) { return Swiglu::apply(gate_up, &table); }

std::array<at::Tensor, 3> rotate_qkv(const Table& table, const at::Tensor& qkv, const std::optional<at::Tensor>& cosines,
                                     const std::optional<at::Tensor>& sines, int64_t heads, int64_t kv_heads) {
  auto angles = [&](const std::optional<at::Tensor>& x) {
    auto options = qkv.options().dtype(at::kFloat);
    return x ? x->to(options).contiguous() : at::empty({0}, options);
  };
  auto parts = RotateQkv::apply(qkv, angles(cosines), angles(sines), heads, kv_heads, &table);
  return {parts[0], parts[1], parts[2]};
}

}  // namespace fused

namespace composed {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return at::rms_norm(x, weight.sizes(), weight, epsilon);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  auto halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

std::array<at::Tensor, 3> rotate_qkv(const at::Tensor& qkv, const std::optional<at::Tensor>& cosines,
                                     const std::optional<at::Tensor>& sines, int64_t heads, int64_t kv_heads) {
  int64_t b = qkv.size(0), t = qkv.size(1), d = qkv.size(2) / (heads + 2 * kv_heads);
  auto all = qkv.view({b, t, heads + 2 * kv_heads, d}).transpose(1, 2);
  auto q = all.narrow(1, 0, heads), k = all.narrow(1, heads, kv_heads), v = all.narrow(1, heads + kv_heads, kv_heads);
  if (cosines) {
    q = rotated(q, *cosines, *sines);
    k = rotated(k, *cosines, *sines);
  }
  return {q, k, v};
}

}  // namespace composed

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  TORCH_CHECK(weight.dim() == 1 && x.dim() > 0 && x.size(-1) == weight.size(0), "rms_norm: width of input and weight differ");
  auto* table = table_for(x, Family::Norm);
  bool fits = table && weight.scalar_type() == x.scalar_type() && weight.device() == x.device() && x.size(-1) <= table->norm_widest;
  return fits ? fused::rms_norm(*table, x, weight, epsilon) : composed::rms_norm(x, weight, epsilon);
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  TORCH_CHECK(gate_up.dim() > 0 && gate_up.size(-1) % 2 == 0, "swiglu: the last dimension must be even");
  auto* table = table_for(gate_up, Family::Gate);
  return table ? fused::swiglu(*table, gate_up) : composed::swiglu(gate_up);
}

std::array<at::Tensor, 3> rotate_qkv(const at::Tensor& qkv, const std::optional<at::Tensor>& cosines,
                                     const std::optional<at::Tensor>& sines, int64_t heads, int64_t kv_heads) {
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) % (heads + 2 * kv_heads) == 0, "rotate_qkv: width is not a number of heads");
  int64_t t = qkv.size(1), d = qkv.size(2) / (heads + 2 * kv_heads);
  TORCH_CHECK(!cosines || d % 2 == 0, "rotate_qkv: head size must be even");
  TORCH_CHECK(!cosines || (cosines->numel() == t * d / 2 && sines->numel() == t * d / 2), "rotate_qkv: one angle a pair");
  auto* table = table_for(qkv, Family::Rotation);
  return table ? fused::rotate_qkv(*table, qkv, cosines, sines, heads, kv_heads)
               : composed::rotate_qkv(qkv, cosines, sines, heads, kv_heads);
}

}  // namespace tidemill
