// What a block of threads does with its rows. `lane` is a thread of the block: `index` of `count`, with sums and maxima over all of them.
// T is the kind of numbers in memory, V how many are read at a time; sums are float32.
#pragma once

#include <cfloat>
#include <cmath>

#include "lane.h"
#include "table.h"

namespace tidemill {

template <class T, int V>
struct Norm {
  const T *x, *weight;
  T* y;
  float* scales;
  int64_t c;
  float epsilon;

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t row) const {
    const T* from = x + row * c;
    float sum = 0;
    for (int64_t i = lane.index * V; i < c; i += lane.count * V) {
      auto a = load<V>(from + i);
      for (int j = 0; j < V; ++j) sum += a.at[j] * a.at[j];
    }
    float scale = 1.0f / sqrtf(lane.sum(sum) / static_cast<float>(c) + epsilon);
    if (lane.index == 0) scales[row] = scale;
    for (int64_t i = lane.index * V; i < c; i += lane.count * V) {
      auto a = load<V>(from + i), w = load<V>(weight + i);
      for (int j = 0; j < V; ++j) a.at[j] *= scale * w.at[j];
      store(y + row * c + i, a);
    }
  }
};

// A block has `each` rows; its threads keep the columns that are theirs in the block's own memory, [c].
template <class T, int V>
struct NormBackward {
  const T *x, *weight, *g;
  const float* scales;
  T* dx;
  float* dweights;
  int64_t rows, c, each;

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t block) const {
    float* sums = lane.memory;
    int64_t end = (block + 1) * each < rows ? (block + 1) * each : rows;
    for (int64_t i = lane.index * V; i < c; i += lane.count * V) store(sums + i, Floats<V>{});
    for (int64_t row = block * each; row < end; ++row) {
      const T *from = x + row * c, *above = g + row * c;
      float dot = 0, scale = scales[row];
      for (int64_t i = lane.index * V; i < c; i += lane.count * V) {
        auto a = load<V>(from + i), b = load<V>(above + i), w = load<V>(weight + i);
        for (int j = 0; j < V; ++j) dot += b.at[j] * w.at[j] * a.at[j];
      }
      float share = lane.sum(dot) * scale * scale * scale / static_cast<float>(c);
      for (int64_t i = lane.index * V; i < c; i += lane.count * V) {
        auto a = load<V>(from + i), b = load<V>(above + i), w = load<V>(weight + i), s = load<V>(sums + i);
        for (int j = 0; j < V; ++j) {
          s.at[j] += b.at[j] * a.at[j] * scale;
          a.at[j] = b.at[j] * w.at[j] * scale - a.at[j] * share;
        }
        store(sums + i, s);
        store(dx + row * c + i, a);
      }
    }
    for (int64_t i = lane.index * V; i < c; i += lane.count * V) store(dweights + block * c + i, load<V>(sums + i));
  }
};

template <class T, int V>
struct Gate {
  const T* x;
  T* y;
  int64_t n;

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t row) const {
    for (int64_t i = lane.index * V; i < n; i += lane.count * V) {
      auto a = load<V>(x + row * 2 * n + i), b = load<V>(x + row * 2 * n + n + i);
      for (int j = 0; j < V; ++j) a.at[j] = a.at[j] / (1.0f + expf(-a.at[j])) * b.at[j];
      store(y + row * n + i, a);
    }
  }
};

template <class T, int V>
struct GateBackward {
  const T *x, *g;
  T* dx;
  int64_t n;

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t row) const {
    for (int64_t i = lane.index * V; i < n; i += lane.count * V) {
      auto a = load<V>(x + row * 2 * n + i), b = load<V>(x + row * 2 * n + n + i), above = load<V>(g + row * n + i);
      for (int j = 0; j < V; ++j) {
        float sigmoid = 1.0f / (1.0f + expf(-a.at[j])), silu = a.at[j] * sigmoid;
        a.at[j] = above.at[j] * b.at[j] * sigmoid * (1.0f + a.at[j] - silu);
        b.at[j] = above.at[j] * silu;
      }
      store(dx + row * 2 * n + i, a);
      store(dx + row * 2 * n + n + i, b);
    }
  }
};

// A block has one token: its heads lie side by side in `rows`, and far apart in q, k and v. Without angles V divides d, else d / 2.
template <class T, int V>
struct Rotate {
  Heads s;
  const float *cosines, *sines;
  T *rows, *q, *k, *v;
  bool join;

  // Where a head of a token lies.
  TIDEMILL_BOTH T* place(int64_t b, int64_t t, int64_t head) const {
    if (head < s.h) return q + ((b * s.h + head) * s.t + t) * s.d;
    if (head < s.h + s.k) return k + ((b * s.k + head - s.h) * s.t + t) * s.d;
    return v + ((b * s.k + head - s.h - s.k) * s.t + t) * s.d;
  }

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t token) const {
    int64_t b = token / s.t, t = token % s.t, half = s.d / 2;
    T* row = rows + token * (s.h + 2 * s.k) * s.d;
    // Pairs of numbers that are turned.
    int turned = static_cast<int>(cosines ? s.h + s.k : 0), pairs = static_cast<int>(half / V);
    for (int item = lane.index; item < turned * pairs; item += lane.count) {
      int head = item / pairs, i = item % pairs * V;
      T *x = row + head * s.d + i, *y = place(b, t, head) + i;
      const T* from = join ? y : x;
      T* to = join ? x : y;
      auto first = load<V>(from), second = load<V>(from + half);
      auto cosine = load<V>(cosines + t * half + i), sine = load<V>(sines + t * half + i);
      for (int j = 0; j < V; ++j) {
        float a = first.at[j], e = second.at[j], turn = join ? -sine.at[j] : sine.at[j];
        first.at[j] = a * cosine.at[j] - e * turn;
        second.at[j] = e * cosine.at[j] + a * turn;
      }
      store(to, first);
      store(to + half, second);
    }
    // Heads that are copied.
    int copied = static_cast<int>(s.h + 2 * s.k) - turned, packs = static_cast<int>(s.d / V);
    for (int item = lane.index; item < copied * packs; item += lane.count) {
      int head = turned + item / packs, i = item % packs * V;
      T *x = row + head * s.d + i, *y = place(b, t, head) + i;
      if (join) {
        store(x, load<V>(y));
      } else {
        store(y, load<V>(x));
      }
    }
  }
};

template <class T, int V>
struct Loss {
  T* logits;
  const int64_t* targets;
  double* losses;
  float* sums;
  int64_t v, ignored;
  double z;
  bool differentiate;

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t row) const {
    T* x = logits + row * v;
    int64_t target = targets[row];
    if (target == ignored) {
      if (lane.index == 0) {
        losses[row] = 0;
        if (sums) sums[row] = 0;
      }
      for (int64_t i = lane.index * V; differentiate && i < v; i += lane.count * V) store(x + i, Floats<V>{});
      return;
    }
    // What is outside the vocabulary is never read: its loss is no number, which stops a run.
    float right = target >= 0 && target < v ? widened(x[target]) : NAN;
    float most = -FLT_MAX, sum = 0;
    for (int64_t i = lane.index * V; i < v; i += lane.count * V) {
      auto a = load<V>(x + i);
      float before = most;
      for (int j = 0; j < V; ++j) most = fmaxf(most, a.at[j]);
      sum *= expf(before - most);
      for (int j = 0; j < V; ++j) sum += expf(a.at[j] - most);
    }
    float top = lane.max(most);
    sum = lane.sum(sum * expf(most - top));
    double above = log(static_cast<double>(sum)), log_sum = above + top;
    if (lane.index == 0) {
      losses[row] = above - (static_cast<double>(right) - top) + z * log_sum * log_sum;
      if (sums) sums[row] = static_cast<float>(log_sum);
    }
    if (!differentiate) return;
    // All have read the target's logit before one of them writes there.
    lane.wait();
    float factor = static_cast<float>(1.0 + 2.0 * z * log_sum) / sum;
    for (int64_t i = lane.index * V; i < v; i += lane.count * V) {
      auto a = load<V>(x + i);
      for (int j = 0; j < V; ++j) a.at[j] = expf(a.at[j] - top) * factor - (i + j == target ? 1.0f : 0.0f);
      store(x + i, a);
    }
  }
};

template <class T, int V>
struct LossBackward {
  T* logits;
  const int64_t* targets;
  const float *weights, *sums;
  int64_t v, ignored;

  template <class Lane>
  TIDEMILL_BOTH void operator()(Lane& lane, int64_t row) const {
    T* x = logits + row * v;
    int64_t target = targets[row];
    float weight = weights[row], log_sum = sums[row];
    for (int64_t i = lane.index * V; i < v; i += lane.count * V) {
      Floats<V> a{};
      if (target != ignored) {
        a = load<V>(x + i);
        for (int j = 0; j < V; ++j) a.at[j] = weight * (expf(a.at[j] - log_sum) - (i + j == target ? 1.0f : 0.0f));
      }
      store(x + i, a);
    }
  }
};

}  // namespace tidemill
