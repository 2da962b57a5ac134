// CUDA by choice at run time: the binary links libtorch_cpu only.
#include "shim.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>

extern "C" {

// Opens `library` for the whole process; fails with the loader's own words.
char* tm_open_library(const char* library) {
  return guarded([&] {
    if (!dlopen(library, RTLD_NOW | RTLD_GLOBAL)) {
      const char* reason = dlerror();
      TORCH_CHECK(false, reason ? reason : "dlopen failed");
    }
  });
}

// How many CUDA devices libtorch can use.
char* tm_cuda_devices(int64_t* count) {
  return guarded([&] { *count = at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; });
}

// The most bytes of a GPU that tensors had, and that libtorch held for them, since the process began or `reset` was asked for.
char* tm_cuda_memory(int32_t device, int32_t reset, int64_t* allocated, int64_t* reserved) {
  return guarded([&] {
    using c10::CachingAllocator::StatType;
    auto* allocator = c10::getDeviceAllocator(at::kCUDA);
    auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *allocated = stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
    *reserved = stats.reserved_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
    if (reset) allocator->resetPeakStats(static_cast<c10::DeviceIndex>(device));
  });
}

}  // extern "C"
