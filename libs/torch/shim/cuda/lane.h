// Numbers as kernels read and write them, several at a time. Compiled for CUDA and, for tests, for the CPU.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#define TIDEMILL_BOTH __host__ __device__ __forceinline__
#else
#define TIDEMILL_BOTH inline
#endif

namespace tidemill {

struct BFloat16 {
  uint16_t bits;
};

TIDEMILL_BOTH float widened(float x) { return x; }

TIDEMILL_BOTH float widened(BFloat16 x) {
  uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  memcpy(&y, &bits, sizeof(y));
  return y;
}

TIDEMILL_BOTH void narrow(float x, float* y) { *y = x; }

// To the nearest, of two that are as near the even one.
TIDEMILL_BOTH void narrow(float x, BFloat16* y) {
#ifdef __CUDA_ARCH__
  y->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bool number = (bits & 0x7fffffff) <= 0x7f800000;
  y->bits = number ? static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : 0x7fc0;
#endif
}

// V numbers as one load or store of at most 16 bytes.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack {
  T at[V];
};

template <int V>
struct Floats {
  float at[V];
};

template <int V, class T>
TIDEMILL_BOTH Floats<V> load(const T* from) {
  auto pack = *reinterpret_cast<const Pack<T, V>*>(from);
  Floats<V> x;
  for (int j = 0; j < V; ++j) x.at[j] = widened(pack.at[j]);
  return x;
}

template <int V, class T>
TIDEMILL_BOTH void store(T* to, const Floats<V>& x) {
  Pack<T, V> pack;
  for (int j = 0; j < V; ++j) narrow(x.at[j], &pack.at[j]);
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

}  // namespace tidemill
