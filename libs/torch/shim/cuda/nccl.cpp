// The backend that shares tensors between GPUs: c10d's over NCCL, which libtorch_cuda.so holds.
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "../cpu/shim.h"

// A rank that is silent so long is lost: its partners' kernels would wait for ever, so that their processes end.
extern "C" char* tm_cuda_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, int64_t timeout_ms,
                                 c10::intrusive_ptr<c10d::Backend>* backend) {
  return guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    *backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
  });
}
