// CUDA by choice at run time: the binary links libtorch_cpu only.
#include "shim.h"

#include <ATen/Context.h>
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

}  // extern "C"
