// What a table's kernels give, against libtorch's own operations.
#pragma once

#include "engine.h"

namespace tidemill {

// Throws where outputs or gradients of a family differ by more than rounding, in float32 or in bfloat16, for lengths odd and even.
void prove(const Table& table, Family family, at::Device device);

}  // namespace tidemill
