// The table's functions as kernels of CUDA.
#include "entries.h"

namespace tidemill {
namespace {

// A thread of a block of whole warps.
struct Lane {
  int index, count;
  float* memory;

  __device__ void wait() const { __syncthreads(); }

  __device__ float sum(float x) const {
    return over_all(x, [](float a, float b) { return a + b; });
  }

  __device__ float max(float x) const {
    return over_all(x, [](float a, float b) { return fmaxf(a, b); });
  }

 private:
  // In an order that does not depend on time; each thread gets the result.
  template <class Operation>
  __device__ float over_all(float x, Operation both) const {
    for (int step = 16; step > 0; step /= 2) x = both(x, __shfl_xor_sync(0xffffffff, x, step));
    if (count == 32) return x;
    __shared__ float warps[32];
    // What the reduction before this one left may still be read.
    __syncthreads();
    if (index % 32 == 0) warps[index / 32] = x;
    __syncthreads();
    x = warps[0];
    for (int warp = 1; warp < count / 32; ++warp) x = both(x, warps[warp]);
    return x;
  }
};

template <class Body>
__global__ void run(Body body) {
  extern __shared__ __align__(16) float memory[];
  Lane lane{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), memory};
  body(lane, static_cast<int64_t>(blockIdx.x));
}

struct Launcher {
  template <class Body>
  static const char* launch(void* stream, int64_t blocks, int threads, int64_t bytes, const Body& body) {
    if (blocks == 0) return nullptr;
    if (blocks > INT32_MAX) return "a kernel has too many rows";
    run<Body><<<static_cast<unsigned>(blocks), threads, bytes, static_cast<cudaStream_t>(stream)>>>(body);
    cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
  }
};

}  // namespace
}  // namespace tidemill

extern "C" const tidemill::Table* tm_cuda_table() {
  static const tidemill::Table table = tidemill::Entries<tidemill::Launcher>::table();
  return &table;
}
