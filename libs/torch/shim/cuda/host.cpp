// The same kernels on the CPU, with threads of the operating system in the place of a block's: how formulas and places are tested where there is
// no GPU.
#include <pthread.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "entries.h"

namespace tidemill {
namespace {

// As many threads a block as is chosen here, whatever a kernel asks for.
int lanes = 1;
// Whether sums and maxima go over all of them: without, kernels are wrong as a forgotten reduction would make them.
bool together = true;

struct Block {
  pthread_barrier_t barrier;
  std::vector<float> parts;
};

struct Lane {
  int index, count;
  float* memory;
  Block* block;

  void wait() const { pthread_barrier_wait(&block->barrier); }

  float sum(float x) const {
    return over_all(x, [](float a, float b) { return a + b; });
  }

  float max(float x) const {
    return over_all(x, [](float a, float b) { return std::max(a, b); });
  }

 private:
  template <class Operation>
  float over_all(float x, Operation both) const {
    block->parts[index] = x;
    wait();
    x = together ? block->parts[0] : x;
    for (int i = 1; together && i < count; ++i) x = both(x, block->parts[i]);
    wait();
    return x;
  }
};

struct Launcher {
  template <class Body>
  static const char* launch(void* /*stream*/, int64_t blocks, int /*threads*/, int64_t bytes, const Body& body) {
    Block block{{}, std::vector<float>(lanes)};
    pthread_barrier_init(&block.barrier, nullptr, lanes);
    // Of floats in 16 bytes: packs of them are read at once.
    std::vector<Pack<float, 4>> memory((bytes + 15) / 16);
    std::vector<std::thread> threads;
    for (int i = 0; i < lanes; ++i) {
      threads.emplace_back([&, i] {
        Lane lane{i, lanes, memory.empty() ? nullptr : memory.front().at, &block};
        for (int64_t at = 0; at < blocks; ++at) {
          body(lane, at);
          lane.wait();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    pthread_barrier_destroy(&block.barrier);
    return nullptr;
  }
};

}  // namespace
}  // namespace tidemill

// Not for two threads at once.
extern "C" const tidemill::Table* tm_host_table(int32_t threads, int32_t together) {
  static const tidemill::Table table = tidemill::Entries<tidemill::Launcher>::table();
  tidemill::lanes = threads;
  tidemill::together = together != 0;
  return &table;
}
