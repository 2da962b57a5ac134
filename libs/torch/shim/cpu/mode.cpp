// Switches of the calling thread or of the process: autocast, determinism.
#include "shim.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>

extern "C" {

void tm_free(char* text) { free(text); }

// Enters autocast to bfloat16 on this thread; balanced by tm_autocast_exit.
char* tm_autocast_enter(int32_t cuda) {
  return guarded([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

// Leaves it; the outermost exit drops the cached low-precision weights.
char* tm_autocast_exit(int32_t cuda) {
  return guarded([&] {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, false);
  });
}

char* tm_set_deterministic(int32_t on) {
  return guarded([&] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
    // Filling fresh memory would only hide reads of it, at the cost of a pass over every output.
    context.setDeterministicFillUninitializedMemory(false);
    context.setBenchmarkCuDNN(false);
  });
}

}  // extern "C"
