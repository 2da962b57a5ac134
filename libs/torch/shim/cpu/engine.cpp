#include "engine.h"

#include <atomic>

#include <dlfcn.h>

#include <c10/core/impl/VirtualGuardImpl.h>

#include "proof.h"
#include "shim.h"

namespace tidemill {
namespace {

constexpr int FAMILIES = 4;
std::atomic<const Table*> cuda_tables[FAMILIES];

}  // namespace

const Table* table_for(const at::Tensor& x, Family family) {
  if (x.numel() == 0) return nullptr;
  if (x.is_cpu()) return x.scalar_type() == at::kFloat ? &cpu_table : nullptr;
  bool known = x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
  return known ? cuda_tables[static_cast<int>(family)].load() : nullptr;
}

Place::Place(const at::Tensor& x) : kind(x.scalar_type() == at::kBFloat16 ? Kind::BFloat16 : Kind::Float) {
  if (x.is_cpu()) return;
  guard.reset_device(x.device());
  stream = c10::impl::VirtualGuardImpl(x.device().type()).getStream(x.device()).native_handle();
}

}  // namespace tidemill

extern "C" {

// The table of a library, which stays open; fails with the loader's own words, or where the library was made of another table.
char* tm_table_open(const char* library, const void** table) {
  return guarded([&] {
    void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void* function = handle ? dlsym(handle, "tm_cuda_table") : nullptr;
    if (!function) {
      const char* reason = dlerror();
      TORCH_CHECK(false, reason ? reason : "it has no table of kernels");
    }
    auto* found = reinterpret_cast<const tidemill::Table* (*)()>(function)();
    TORCH_CHECK(found->revision == tidemill::TABLE_REVISION, library, " has revision ", found->revision, " of the table of kernels, and this program ",
                tidemill::TABLE_REVISION);
    *table = found;
  });
}

// From now on tensors of CUDA go through this table's kernels of a family.
char* tm_table_use(const void* table, int32_t family) {
  return guarded([&] {
    TORCH_CHECK(family >= 0 && family < tidemill::FAMILIES, "there is no family ", family);
    tidemill::cuda_tables[family] = static_cast<const tidemill::Table*>(table);
  });
}

// Whether this table's kernels of a family give, on a device, what libtorch's own operations give; fails with what differs. -1 is the CPU.
char* tm_table_prove(const void* table, int32_t family, int32_t cuda) {
  return guarded([&] {
    auto device = cuda < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(cuda));
    tidemill::prove(*static_cast<const tidemill::Table*>(table), static_cast<tidemill::Family>(family), device);
  });
}

}  // extern "C"
