// The memory behind a tensor, let go and taken again while the tensor stays what it is: its shape, its handles, its place in a graph.
#include "shim.h"

#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

namespace {

// Gives the storage so many bytes, of which nothing is known.
void resize(const at::Tensor& tensor, size_t bytes) {
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  if (storage->nbytes() == bytes) return;
  auto* allocator = c10::GetAllocator(tensor.device().type());
  storage->set_data_ptr_noswap(allocator->allocate(bytes));
  storage->set_nbytes(bytes);
}

size_t bytes_of(const at::Tensor& tensor) { return tensor.numel() * tensor.element_size(); }

}  // namespace

extern "C" {

char* tm_storage_release(TensorPtr tensor) {
  return guarded([&] {
    const bool whole = tensor->is_contiguous() && tensor->storage_offset() == 0;
    const size_t bytes = tensor->storage().nbytes();
    TORCH_CHECK(whole && (bytes == 0 || bytes == bytes_of(*tensor)), "a view cannot let go of the memory that it shares");
    resize(*tensor, 0);
  });
}

char* tm_storage_restore(TensorPtr tensor) {
  return guarded([&] { resize(*tensor, bytes_of(*tensor)); });
}

int64_t tm_storage_bytes(TensorPtr tensor) { return static_cast<int64_t>(tensor->storage().nbytes()); }

}  // extern "C"
