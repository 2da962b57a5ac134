// Activation checkpointing (arXiv 1604.06174): a part of a network of which only the inputs are kept, and which runs again for its gradients.
#include "shim.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels.h"

extern "C" {

// The caller's function: reads `count` tensors, writes a new tensor to `out`, or text to `message` and returns 1.
typedef int32_t (*tm_body)(void* data, const TensorPtr* xs, int64_t count, TensorPtr* out, char* message, int64_t room);
// What follows a run and the backward pass through it; text to `message` and 1 where it failed.
typedef int32_t (*tm_leave)(void* data, char* message, int64_t room);
typedef void (*tm_release)(void* data);

}  // extern "C"

namespace tidemill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Generators of the CPU and of the device of `x`.
std::vector<at::Generator> generators(const at::Tensor& x) {
  std::vector<at::Generator> all = {at::globalContext().defaultGenerator(at::kCPU)};
  if (!x.is_cpu()) all.push_back(at::globalContext().defaultGenerator(x.device()));
  return all;
}

std::vector<at::Tensor> states(const at::Tensor& x) {
  std::vector<at::Tensor> all;
  for (auto& generator : generators(x)) {
    std::lock_guard<std::mutex> lock(generator.mutex());
    all.push_back(generator.get_state());
  }
  return all;
}

void set_states(const at::Tensor& x, const std::vector<at::Tensor>& to) {
  size_t at = 0;
  for (auto& generator : generators(x)) {
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(to[at++]);
  }
}

// What the calling thread does to the numbers of products.
struct Precision {
  bool low, fp8, autocast;

  static Precision now() { return {bfloat16_products, fp8_layers, at::autocast::is_autocast_enabled(at::kCUDA)}; }
  void set() const {
    bfloat16_products = low;
    fp8_layers = fp8;
    // The kind belongs to the thread: on that of a GPU's backward pass it is float16 until it is said.
    at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCUDA, autocast);
  }
};

// What the calling thread does to numbers, and what it draws: as it was, while this lives.
struct Replay {
  at::Tensor x;
  std::vector<at::Tensor> now;
  Precision before = Precision::now();

  Replay(const at::Tensor& x, const std::vector<at::Tensor>& drawn, const Precision& then) : x(x), now(states(x)) {
    set_states(x, drawn);
    then.set();
    at::autocast::increment_nesting();
  }
  ~Replay() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    before.set();
    set_states(x, now);
  }
};

struct Body : torch::CustomClassHolder {
  tm_body call;
  tm_leave leave;
  tm_release release;
  void* data;

  Body(tm_body call, tm_leave leave, tm_release release, void* data)
      : call(call), leave(leave), release(release), data(data) {}
  ~Body() override { release(data); }

  at::Tensor run(variable_list leaves, bool differentiate) const {
    at::AutoGradMode enabled(differentiate);
    TensorPtr out = nullptr;
    char message[1024] = "";
    std::vector<TensorPtr> inputs;
    for (auto& leaf : leaves) inputs.push_back(&leaf);
    bool failed = call(data, inputs.data(), inputs.size(), &out, message, sizeof(message)) != 0;
    std::unique_ptr<at::Tensor> made(out);
    TORCH_CHECK(!failed && made, message);
    return *made;
  }

  void left() const {
    char message[1024] = "";
    TORCH_CHECK(leave(data, message, sizeof(message)) == 0, message);
  }
};

// Tensors of the same values that a graph begins with.
variable_list leaves_of(const variable_list& xs, const std::vector<int64_t>& needs_gradient) {
  variable_list leaves;
  for (size_t i = 0; i < xs.size(); ++i) leaves.push_back(xs[i].detach().requires_grad_(needs_gradient[i] != 0));
  return leaves;
}

struct Recompute : torch::autograd::Function<Recompute> {
  // `anchor` needs a gradient, so that there is a backward pass even where no input needs one and the parameters inside do.
  static at::Tensor forward(AutogradContext* context, at::TensorList inputs, const at::Tensor& /*anchor*/,
                            const c10::intrusive_ptr<Body>& body) {
    variable_list xs = inputs.vec();
    std::vector<int64_t> needs;
    for (auto& x : xs) needs.push_back(x.requires_grad());
    context->save_for_backward(xs);
    context->saved_data["needs"] = needs;
    context->saved_data["body"] = c10::IValue::make_capsule(body);
    context->saved_data["drawn"] = states(xs[0]);
    auto precision = Precision::now();
    context->saved_data["low"] = precision.low;
    context->saved_data["fp8"] = precision.fp8;
    context->saved_data["autocast"] = precision.autocast;
    // With gradients, which are let go at once: kernels are chosen by that, and both runs shall give the same numbers.
    auto y = body->run(leaves_of(xs, needs), true).detach();
    body->left();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto& saved = context->saved_data;
    auto leaves = leaves_of(context->get_saved_variables(), saved["needs"].toIntVector());
    auto body = c10::static_intrusive_pointer_cast<Body>(saved["body"].toCapsule());
    at::Tensor y;
    {
      Precision then{saved["low"].toBool(), saved["fp8"].toBool(), saved["autocast"].toBool()};
      Replay replay(leaves[0], saved["drawn"].toTensorVector(), then);
      y = body->run(leaves, true);
    }
    if (y.requires_grad()) torch::autograd::backward({y}, {gradients[0]});
    body->left();
    variable_list all;
    for (auto& leaf : leaves) all.push_back(leaf.grad());
    all.insert(all.end(), {at::Tensor(), at::Tensor()});
    return all;
  }
};

}  // namespace
}  // namespace tidemill

extern "C" {

// What `body` makes of one or more inputs; `data` is released when the last backward pass that may need it is over, or at once.
char* tm_recompute(const TensorPtr* xs, int64_t count, tm_body call, tm_leave leave, tm_release release, void* data,
                   TensorPtr* out) {
  return guarded([&] {
    auto body = c10::make_intrusive<tidemill::Body>(call, leave, release, data);
    auto inputs = gather(xs, count);
    if (!at::GradMode::is_enabled()) {
      auto y = body->run(inputs, false);
      body->left();
      *out = new at::Tensor(y);
      return;
    }
    auto anchor = at::zeros({1}).requires_grad_(true);
    at::TensorList list(inputs);
    *out = new at::Tensor(tidemill::Recompute::apply(list, anchor, body));
  });
}

}  // extern "C"
