// The table's functions over a launcher: which kind, how many numbers at a time, how many blocks of how many threads.
// Launcher::launch(stream, blocks, threads, bytes of memory a block, body) runs body(lane, block) for each thread of each block.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "bodies.h"

namespace tidemill {

template <class Launcher>
struct Entries {
  static constexpr int64_t NORM_ROWS = 16;
  // What a block of NormBackward keeps must fit into the 48 KiB that every GPU grants, beside its sums over warps.
  static constexpr int64_t NORM_WIDEST = (48 * 1024 - 128) / sizeof(float);

  static Table table() {
    return {TABLE_REVISION, NORM_ROWS, NORM_WIDEST, norm, norm_backward, gate, gate_backward, rotate, loss, loss_backward};
  }

 private:
  // Threads for so many loads a row: whole warps, at most 512.
  static int threads(int64_t loads) {
    int64_t whole = (loads + 31) / 32 * 32;
    return static_cast<int>(whole < 32 ? 32 : (whole > 512 ? 512 : whole));
  }

  // Calls body(T, V): 16 bytes at a time where rows are so long and everything begins at such a place, else a number at a time.
  template <class Body>
  static const char* of(Kind kind, int64_t width, std::initializer_list<const void*> pointers, Body&& body) {
    uintptr_t places = 0;
    for (const void* pointer : pointers) places |= reinterpret_cast<uintptr_t>(pointer);
    bool aligned = places % 16 == 0;
    using One = std::integral_constant<int, 1>;
    if (kind == Kind::Float) {
      return aligned && width % 4 == 0 ? body(float(), std::integral_constant<int, 4>()) : body(float(), One());
    }
    return aligned && width % 8 == 0 ? body(BFloat16(), std::integral_constant<int, 8>()) : body(BFloat16(), One());
  }

  static const char* norm(void* stream, Kind kind, const void* x, const void* weight, void* y, float* scales, int64_t rows, int64_t c,
                          float epsilon) {
    return of(kind, c, {x, weight, y}, [&](auto number, auto v) {
      using T = decltype(number);
      constexpr int V = decltype(v)::value;
      Norm<T, V> body{static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<T*>(y), scales, c, epsilon};
      return Launcher::launch(stream, rows, threads(c / V), 0, body);
    });
  }

  static const char* norm_backward(void* stream, Kind kind, const void* x, const void* weight, const void* g, const float* scales, void* dx,
                                   float* dweights, int64_t rows, int64_t c) {
    return of(kind, c, {x, weight, g, dx, dweights}, [&](auto number, auto v) {
      using T = decltype(number);
      constexpr int V = decltype(v)::value;
      NormBackward<T, V> body{static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<const T*>(g), scales,
                              static_cast<T*>(dx),      dweights,                      rows,                     c, NORM_ROWS};
      return Launcher::launch(stream, (rows + NORM_ROWS - 1) / NORM_ROWS, threads(c / V), c * sizeof(float), body);
    });
  }

  static const char* gate(void* stream, Kind kind, const void* x, void* y, int64_t rows, int64_t n) {
    return of(kind, n, {x, y}, [&](auto number, auto v) {
      using T = decltype(number);
      constexpr int V = decltype(v)::value;
      return Launcher::launch(stream, rows, threads(n / V), 0, Gate<T, V>{static_cast<const T*>(x), static_cast<T*>(y), n});
    });
  }

  static const char* gate_backward(void* stream, Kind kind, const void* x, const void* g, void* dx, int64_t rows, int64_t n) {
    return of(kind, n, {x, g, dx}, [&](auto number, auto v) {
      using T = decltype(number);
      constexpr int V = decltype(v)::value;
      GateBackward<T, V> body{static_cast<const T*>(x), static_cast<const T*>(g), static_cast<T*>(dx), n};
      return Launcher::launch(stream, rows, threads(n / V), 0, body);
    });
  }

  static const char* rotate(void* stream, Kind kind, const Heads* s, const float* cosines, const float* sines, void* rows, void* q, void* k,
                            void* v, bool join) {
    return of(kind, cosines ? s->d / 2 : s->d, {rows, q, k, v, cosines, sines}, [&](auto number, auto each) {
      using T = decltype(number);
      constexpr int V = decltype(each)::value;
      Rotate<T, V> body{*s,
                        cosines,
                        sines,
                        static_cast<T*>(rows),
                        static_cast<T*>(q),
                        static_cast<T*>(k),
                        static_cast<T*>(v),
                        join};
      return Launcher::launch(stream, s->b * s->t, threads((s->h + 2 * s->k) * s->d / V / 2), 0, body);
    });
  }

  static const char* loss(void* stream, Kind kind, void* logits, const int64_t* targets, double* losses, float* sums, int64_t rows,
                          int64_t v, int64_t ignored, double z, bool differentiate) {
    return of(kind, v, {logits}, [&](auto number, auto each) {
      using T = decltype(number);
      constexpr int V = decltype(each)::value;
      Loss<T, V> body{static_cast<T*>(logits), targets, losses, sums, v, ignored, z, differentiate};
      return Launcher::launch(stream, rows, threads(v / V), 0, body);
    });
  }

  static const char* loss_backward(void* stream, Kind kind, void* logits, const int64_t* targets, const float* weights, const float* sums,
                                   int64_t rows, int64_t v, int64_t ignored) {
    return of(kind, v, {logits}, [&](auto number, auto each) {
      using T = decltype(number);
      constexpr int V = decltype(each)::value;
      LossBackward<T, V> body{static_cast<T*>(logits), targets, weights, sums, v, ignored};
      return Launcher::launch(stream, rows, threads(v / V), 0, body);
    });
  }
};

}  // namespace tidemill
