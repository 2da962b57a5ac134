// Who computes an operation: the loops of the CPU, the kernels of shim/cuda, or libtorch's own operations where neither does.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include "../cuda/table.h"

namespace tidemill {

// Operations that are proved, and used, together.
enum class Family : int32_t { Norm, Gate, Rotation, Loss };

// float32 only.
extern const Table cpu_table;

// The table whose functions take tensors like `x`; null: libtorch's own operations do.
const Table* table_for(const at::Tensor& x, Family family);

// Where a table's functions work for `x`, whose device is the current one meanwhile.
struct Place {
  c10::OptionalDeviceGuard guard;
  void* stream = nullptr;
  Kind kind;

  explicit Place(const at::Tensor& x);
};

inline void succeed(const char* error) { TORCH_CHECK(!error, error); }

}  // namespace tidemill
