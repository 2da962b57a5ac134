// Several processes that train one model: a group over c10d's TCP store and gloo, and c10d's reducer, which sums gradients in buckets
// while the backward pass still runs.
#include "shim.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

namespace {

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

struct Ranks {
  c10::intrusive_ptr<c10d::Store> store;
  Group group;
};

// A bucket's sum, not its mean: losses are normalised before.
class Sum : public c10d::CppCommHookInterface<Group> {
 public:
  explicit Sum(const Group& group) : CppCommHookInterface<Group>(group) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> buffers = {bucket.getBufferRef()};
    return state_->allreduce(buffers)->getFuture();
  }
};

struct Reducer {
  std::unique_ptr<c10d::Reducer> inner;
};

}  // namespace

extern "C" {

// The store of a group, served by this process on a socket that listens at this address; the store takes the socket over. A store that
// opened one itself would listen on every interface of the machine.
char* tm_store_serve(char const* host, int32_t port, int32_t listener, int64_t timeout_ms, void** store) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = static_cast<std::uint16_t>(port);
    options.isServer = true;
    options.masterListenFd = listener;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *store = new c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

void tm_store_free(void* store) { delete static_cast<c10::intrusive_ptr<c10d::Store>*>(store); }

// Waits until all ranks have come to the store at this address; `own` is the one at which the others reach this process.
char* tm_ranks_join(char const* host, int32_t port, char const* own, int32_t rank, int32_t size, int64_t timeout_ms, void** ranks) {
  return guarded([&] {
    const std::chrono::milliseconds timeout(timeout_ms);
    c10d::TCPStoreOptions options;
    options.port = static_cast<std::uint16_t>(port);
    options.waitWorkers = false;
    options.timeout = timeout;
    auto joined = std::make_unique<Ranks>();
    joined->store = c10::make_intrusive<c10d::TCPStore>(host, options);
    auto gloo_options = c10d::ProcessGroupGloo::Options::create(timeout);
    gloo_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(own));
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(joined->store, rank, size, gloo_options);
    joined->group = c10::make_intrusive<c10d::ProcessGroup>(joined->store, rank, size);
    joined->group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
    joined->group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    *ranks = joined.release();
  });
}

void tm_ranks_free(void* ranks) { delete static_cast<Ranks*>(ranks); }

// In place, over all ranks.
char* tm_ranks_sum(void* ranks, TensorPtr tensor) {
  return guarded([&] {
    std::vector<at::Tensor> tensors = {*tensor};
    static_cast<Ranks*>(ranks)->group->allreduce(tensors)->wait();
  });
}

// tensors[i] of rank roots[i] becomes that of every rank.
char* tm_ranks_broadcast(void* ranks, TensorPtr const* tensors, int32_t const* roots, int64_t count) {
  return guarded([&] {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    for (int64_t i = 0; i < count; ++i) {
      std::vector<at::Tensor> one = {*tensors[i]};
      c10d::BroadcastOptions options;
      options.rootRank = roots[i];
      works.push_back(static_cast<Ranks*>(ranks)->group->broadcast(one, options));
    }
    for (auto& work : works) work->wait();
  });
}

char* tm_ranks_send(void* ranks, TensorPtr tensor, int32_t to) {
  return guarded([&] {
    std::vector<at::Tensor> one = {*tensor};
    static_cast<Ranks*>(ranks)->group->send(one, to, 0)->wait();
  });
}

char* tm_ranks_receive(void* ranks, TensorPtr tensor, int32_t from) {
  return guarded([&] {
    std::vector<at::Tensor> one = {*tensor};
    static_cast<Ranks*>(ranks)->group->recv(one, from, 0)->wait();
  });
}

// Buckets are made once, of parameters in reverse: about the order in which their gradients come. They are not made anew after the
// first step, as DDP does: where the sum of three numbers is rounded depends on its place in a bucket, and a run that resumes must sum alike.
char* tm_reducer_new(void* ranks, TensorPtr const* parameters, int64_t count, int64_t bucket_bytes, void** reducer) {
  return guarded([&] {
    std::vector<at::Tensor> all = gather(parameters, count);
    std::vector<at::Tensor> reversed(all.rbegin(), all.rend());
    std::vector<int64_t> indices;
    for (int64_t i = count - 1; i >= 0; --i) indices.push_back(i);
    const auto bytes = static_cast<size_t>(bucket_bytes);
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(reversed, {bytes}, {}, indices));
    auto made = std::make_unique<Reducer>();
    const Group& group = static_cast<Ranks*>(ranks)->group;
    made->inner = std::make_unique<c10d::Reducer>(all, buckets, group, std::vector<bool>(count, false), bucket_bytes,
        /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/false, std::unordered_map<size_t, std::string>{},
        bucket_bytes, /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>{});
    made->inner->register_comm_hook(std::make_unique<Sum>(group));
    *reducer = made.release();
  });
}

void tm_reducer_free(void* reducer) { delete static_cast<Reducer*>(reducer); }

// The next backward pass from this loss sums gradients, those that were left by passes before it included.
char* tm_reducer_prepare(void* reducer, TensorPtr loss) {
  return guarded([&] { static_cast<Reducer*>(reducer)->inner->prepare_for_backward({*loss}); });
}

}  // extern "C"
