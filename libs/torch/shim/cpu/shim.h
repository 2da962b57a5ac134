// What every file of the shim shares: tensors cross as pointers to at::Tensor, errors as malloc'ed text (null: success).
#pragma once

#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#include <ATen/core/Tensor.h>

using TensorPtr = at::Tensor*;

template <class F>
char* guarded(F&& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

inline std::vector<at::Tensor> gather(TensorPtr const* tensors, int64_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (int64_t i = 0; i < count; ++i) list.push_back(*tensors[i]);
  return list;
}
