// What shim/cpu computes with: loops of the CPU, and kernels of CUDA where libtidemill_cuda.so is loaded. Plain pointers cross, to contiguous
// memory of one device, so that neither side depends on how the other was compiled.
#pragma once

#include <cstdint>

namespace tidemill {

// Raised with every change of this file: a library that was made of another one is refused.
constexpr int64_t TABLE_REVISION = 1;

enum class Kind : int32_t { Float, BFloat16 };

// Heads of a projection: b batch, t time, h heads, k key and value heads, d head size.
struct Heads {
  int64_t b, t, h, k, d;
};

// Each function works on `stream` (null on the CPU) and returns null, or what went wrong. Pointers without a type have the kind that is given.
struct Table {
  int64_t revision;
  // Rows whose gradients of the weight `norm_backward` adds up into one row.
  int64_t norm_rows;
  // The longest row that the norm takes.
  int64_t norm_widest;
  // y = x / rms(x) weight: x, y [rows, c], weight [c]; scales [rows] for the way back.
  const char* (*norm)(void* stream, Kind kind, const void* x, const void* weight, void* y, float* scales, int64_t rows, int64_t c,
                      float epsilon);
  // dweights [ceil(rows / norm_rows), c], whose sum is the gradient of the weight.
  const char* (*norm_backward)(void* stream, Kind kind, const void* x, const void* weight, const void* g, const float* scales, void* dx,
                               float* dweights, int64_t rows, int64_t c);
  // y = silu(x[:n]) x[n:]: x [rows, 2n], y [rows, n].
  const char* (*gate)(void* stream, Kind kind, const void* x, void* y, int64_t rows, int64_t n);
  const char* (*gate_backward)(void* stream, Kind kind, const void* x, const void* g, void* dx, int64_t rows, int64_t n);
  // Between rows [b, t, (h + 2k) d] and heads, q [b, h, t, d] and k, v [b, k, t, d]; q and k are turned by angles [t, d / 2] where there are
  // some. `join` gathers heads into rows, and turns them back.
  const char* (*rotate)(void* stream, Kind kind, const Heads* heads, const float* cosines, const float* sines, void* rows, void* q, void* k,
                        void* v, bool join);
  // Cross-entropy of logits [rows, v], plus `z` times the square of the log-sum-exp; 0 where the target is `ignored`, NaN where it is none
  // of the v. `sums`, if any, get the log-sum-exps. With `differentiate` logits become their gradients.
  const char* (*loss)(void* stream, Kind kind, void* logits, const int64_t* targets, double* losses, float* sums, int64_t rows, int64_t v,
                      int64_t ignored, double z, bool differentiate);
  // Logits become the gradients of losses without z that weigh so much.
  const char* (*loss_backward)(void* stream, Kind kind, void* logits, const int64_t* targets, const float* weights, const float* sums,
                               int64_t rows, int64_t v, int64_t ignored);
};

}  // namespace tidemill
