// Attention over spans of keys, with rotary positions before it and a sigmoid gate behind it, in bf16 on a CPU.
//
// Shapes: B rows, S positions, N heads, K head width. Query i of row b sees the keys spans[0, b, i] <= t < spans[1, b, i].
// One task is a head of a row. Scores are held transposed, keys by queries, for TILE queries at a time: then maximum,
// sum, mask and the gradient of the softmax are operations on whole vectors of queries, without a sum across one.
// Products go through ATen's brgemm, whose right operand lies in pairs of rows ([rows / 2][columns][2]), which is what
// AMX and AVX512-BF16 read. Sums are in fp32; the backward pass makes the scores again.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using at::BFloat16;
using at::Tensor;
using at::native::cpublas::brgemm;
using at::native::cpublas::brgemm_release;

constexpr int64_t TILE = 64, LANES = 16;
constexpr float LOG2E = 1.4426950408889634f;

// Vectors of the compiler's own, so that the same text serves every instruction set.
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

template <typename V, typename T>
inline V read(const T* from) {
  V x;
  std::memcpy(&x, from, sizeof(V));
  return x;
}
template <typename V, typename T>
inline void write(const V& x, T* to) {
  std::memcpy(to, &x, sizeof(V));
}
inline Floats all(float x) { return Floats{} + x; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats wide(const BFloat16* from) {
  return reinterpret_cast<Floats>(__builtin_convertvector(read<Halves>(from), Words) << 16);
}
inline Words rounded(Floats x) {
  const Words bits = reinterpret_cast<Words>(x);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline void narrow(Floats x, BFloat16* to) { write(__builtin_convertvector(rounded(x), Halves), to); }

// 2^x: 0 below 2^-126, relative error below 2e-7. The integer part goes into the exponent, the rest into a polynomial.
inline Floats exp2_of(Floats x) {
  const Floats inside = larger(all(-126.0f), x < 126.0f ? x : all(126.0f));
  const Ints whole = __builtin_convertvector(inside + (inside < 0.0f ? all(-0.5f) : all(0.5f)), Ints);
  const Floats f = inside - __builtin_convertvector(whole, Floats);
  Floats p = all(1.5403530e-4f);
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  const Floats power = p * reinterpret_cast<Floats>((whole + 127) << 23);
  return x < -126.0f ? all(0.0f) : power;
}
inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exp2_of(x * -LOG2E)); }

// A (B, S, N, K) tensor whose last dimension is contiguous, or nothing.
struct Heads {
  const BFloat16* data = nullptr;
  int64_t row = 0, position = 0, head = 0;

  explicit Heads(const std::optional<Tensor>& x) {
    if (!x.has_value()) return;
    TORCH_CHECK(x->scalar_type() == at::kBFloat16 && x->stride(-1) == 1, "bf16 with a contiguous last dimension");
    data = x->const_data_ptr<BFloat16>();
    row = x->size(0) == 1 ? 0 : x->stride(0), position = x->stride(1), head = x->size(2) == 1 ? 0 : x->stride(2);
  }
  explicit operator bool() const { return data != nullptr; }
  const BFloat16* at(int64_t b, int64_t s, int64_t n) const { return data + b * row + s * position + n * head; }
};

// Rotary angles of all positions; without them nothing turns.
struct Angles {
  Heads cos, sin;

  // The two halves of a head turned by their position's angles, or turned back; to bf16.
  void turn(Floats low, Floats high, int64_t b, int64_t s, int64_t k, int64_t half, bool back, BFloat16* to) const {
    if (cos) {
      const BFloat16 *c = cos.at(b, s, 0) + k, *n = sin.at(b, s, 0) + k;
      const Floats low_sine = back ? -wide(n) : wide(n), high_sine = back ? -wide(n + half) : wide(n + half);
      const Floats turned = low * wide(c) - high * low_sine;
      high = high * wide(c + half) + low * high_sine, low = turned;
    }
    narrow(low, to + k), narrow(high, to + half + k);
  }
};

struct Sizes {
  int64_t B, S, N, K, T;  // T: S made even

  Sizes(const Tensor& q, const Tensor& spans)
      : B(q.size(0)), S(q.size(1)), N(q.size(2)), K(q.size(3)), T((S + 1) / 2 * 2) {
    TORCH_CHECK(K % (2 * LANES) == 0, "the head width must be a multiple of 32");
    TORCH_CHECK(spans.scalar_type() == at::kInt && spans.is_contiguous() && spans.size(2) == S, "(2, B, S) int32");
  }
  int64_t place(int64_t b, int64_t s, int64_t n) const { return ((b * S + s) * N + n) * K; }
};

// rows x columns to pairs of rows; the number of rows is even.
void pair_rows(const BFloat16* from, BFloat16* to, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += 2, from += 2 * columns, to += 2 * columns)
    for (int64_t c = 0; c < columns; c += LANES) {
      const Words even = __builtin_convertvector(read<Halves>(from + c), Words);
      write(even | __builtin_convertvector(read<Halves>(from + columns + c), Words) << 16, to + 2 * c);
    }
}

// 16 x 16 words turned in registers: in step w, rows w apart exchange the halves of their blocks of 2w columns.
#define TURN_STEP(w, m0, m1)                                                \
  for (int64_t r = 0; r < LANES; ++r)                                       \
    if (!(r & (w))) {                                                       \
      const Words a = x[r], b = x[r + (w)];                                 \
      x[r] = __builtin_shufflevector(a, b, m0);                             \
      x[r + (w)] = __builtin_shufflevector(a, b, m1);                       \
    }
#define LIST(...) __VA_ARGS__
inline void turn_block(Words* x) {
  TURN_STEP(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
            LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
  TURN_STEP(2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
            LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  TURN_STEP(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
            LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  TURN_STEP(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
            LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
}

// rows x columns of words to columns x rows; both are multiples of 16.
void transpose(const void* from, void* to, int64_t rows, int64_t columns) {
  const auto* in = static_cast<const uint32_t*>(from);
  auto* out = static_cast<uint32_t*>(to);
  for (int64_t r = 0; r < rows; r += LANES)
    for (int64_t c = 0; c < columns; c += LANES) {
      Words x[LANES];
      for (int64_t i = 0; i < LANES; ++i) x[i] = read<Words>(in + (r + i) * columns + c);
      turn_block(x);
      for (int64_t i = 0; i < LANES; ++i) write(x[i], out + (c + i) * rows + r);
    }
}

// The same of bf16; the number of rows is any.
void transpose_halves(const BFloat16* from, BFloat16* to, int64_t rows, int64_t columns) {
  int64_t r = 0;
  for (; r + LANES <= rows; r += LANES)
    for (int64_t c = 0; c < columns; c += LANES) {
      Words x[LANES];
      for (int64_t i = 0; i < LANES; ++i) x[i] = __builtin_convertvector(read<Halves>(from + (r + i) * columns + c), Words);
      turn_block(x);
      for (int64_t i = 0; i < LANES; ++i) write(__builtin_convertvector(x[i], Halves), to + (c + i) * rows + r);
    }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
}

// One head of a row, rotated and rounded: (T, K), the odd row at its end zero.
void gather(const Heads& x, const Angles& angles, int64_t b, int64_t n, const Sizes& z, BFloat16* to) {
  const int64_t half = z.K / 2;
  for (int64_t s = 0; s < z.S; ++s, to += z.K) {
    const BFloat16* from = x.at(b, s, n);
    if (!angles.cos) {
      std::memcpy(static_cast<void*>(to), from, z.K * sizeof(BFloat16));
      continue;
    }
    for (int64_t k = 0; k < half; k += LANES) angles.turn(wide(from + k), wide(from + half + k), b, s, k, half, false, to);
  }
  if (z.T > z.S) std::memset(static_cast<void*>(to), 0, z.K * sizeof(BFloat16));
}

// A tile of queries: their spans, the even range of keys that any of them sees, and the keys that all of them see.
struct Tile {
  int64_t start, size, first, end, all_from, all_to;
  int32_t from[TILE], to[TILE];

  Tile(const Tensor& spans, int64_t b, int64_t start_, const Sizes& z) : start(start_), size(std::min(TILE, z.S - start_)) {
    const int64_t rows = spans.size(1);
    const int32_t* froms = spans.const_data_ptr<int32_t>() + (rows == 1 ? 0 : b) * z.S + start;
    const int32_t* tos = froms + rows * z.S;
    int64_t low = z.S, high = 0;
    all_from = size == TILE ? 0 : z.S, all_to = z.S;
    for (int64_t i = 0; i < TILE; ++i) {
      from[i] = i < size ? froms[i] : 0, to[i] = i < size ? tos[i] : 0;
      all_from = std::max<int64_t>(all_from, from[i]), all_to = std::min<int64_t>(all_to, to[i]);
      if (from[i] < to[i]) low = std::min<int64_t>(low, from[i]), high = std::max<int64_t>(high, to[i]);
    }
    first = low / 2 * 2, end = std::max(first, (high + 1) / 2 * 2);
  }
  int64_t keys() const { return end - first; }
  bool is_open(int64_t key) const { return all_from <= key && key < all_to; }
  Ints sees(int64_t i, int64_t key) const {
    const auto place = static_cast<int32_t>(key);
    return (read<Ints>(from + i) <= place) & (read<Ints>(to + i) > place);
  }
  // Its queries of a gathered head, zero behind the last one.
  void take(const BFloat16* head, int64_t K, BFloat16* out) const {
    std::memcpy(static_cast<void*>(out), head + start * K, size * K * sizeof(BFloat16));
    std::memset(static_cast<void*>(out + size * K), 0, (TILE - size) * K * sizeof(BFloat16));
  }
};

std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& gate,
    const std::optional<Tensor>& cos, const std::optional<Tensor>& sin, const Tensor& spans) {
  const Sizes z(q, spans);
  const Heads qs(q), ks(k), vs(v), gates(gate);
  const Angles angles{Heads(cos), Heads(sin)}, still{Heads(std::nullopt), Heads(std::nullopt)};
  Tensor y = at::empty({z.B, z.S, z.N, z.K}, q.options());
  Tensor o = gates ? at::empty_like(y) : at::empty({0}, q.options());
  Tensor lse = at::empty({z.B, z.N, z.S}, q.options().dtype(at::kFloat));
  auto* y_data = y.mutable_data_ptr<BFloat16>();
  auto* o_data = o.mutable_data_ptr<BFloat16>();
  auto* lse_data = lse.mutable_data_ptr<float>();
  const float scale = LOG2E / std::sqrt(static_cast<float>(z.K));
  at::parallel_for(0, z.B * z.N, 1, [&](int64_t begin, int64_t end) {
    std::vector<BFloat16> qh(z.T * z.K), kh(z.T * z.K), vh(z.T * z.K), vt(z.K * z.T), qt(TILE * z.K), qp(TILE * z.K);
    std::vector<BFloat16> p(z.T * TILE);
    std::vector<float> s(z.T * TILE), out(z.K * TILE), turned(TILE * z.K);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / z.N, n = task % z.N;
      gather(qs, angles, b, n, z, qh.data());
      gather(ks, angles, b, n, z, kh.data());
      gather(vs, still, b, n, z, vh.data());
      transpose_halves(vh.data(), vt.data(), z.T, z.K);
      for (int64_t start = 0; start < z.S; start += TILE) {
        const Tile tile(spans, b, start, z);
        const int64_t keys = tile.keys();
        tile.take(qh.data(), z.K, qt.data());
        transpose(qt.data(), qp.data(), TILE, z.K / 2);  // in pairs, which are words
        brgemm(keys, TILE, z.K, z.K, TILE, TILE, false, kh.data() + tile.first * z.K, qp.data(), s.data());
        alignas(64) float inverse[TILE];
        for (int64_t i = 0; i < TILE; i += LANES) {
          Floats most = all(-INFINITY), sum = all(0.0f);
          for (int64_t t = 0; t < keys; ++t) {
            float* place = s.data() + t * TILE + i;
            Floats x = read<Floats>(place);
            if (!tile.is_open(tile.first + t)) write(x = tile.sees(i, tile.first + t) ? x : all(-INFINITY), place);
            most = larger(most, x);
          }
          most = (most == -INFINITY ? all(0.0f) : most) * scale;
          for (int64_t t = 0; t < keys; t += 2) {
            const Floats even = exp2_of(read<Floats>(s.data() + t * TILE + i) * scale - most);
            const Floats odd = exp2_of(read<Floats>(s.data() + (t + 1) * TILE + i) * scale - most);
            sum += even + odd;
            write(rounded(even) | rounded(odd) << 16, p.data() + t * TILE + 2 * i);
          }
          write(sum > 0.0f ? 1.0f / sum : all(0.0f), inverse + i);
          for (int64_t j = 0; j < LANES && i + j < tile.size; ++j)
            lse_data[(b * z.N + n) * z.S + start + i + j] = sum[j] > 0.0f ? most[j] + std::log2(sum[j]) : 0.0f;
        }
        brgemm(z.K, TILE, keys, z.T, TILE, TILE, false, vt.data() + tile.first, p.data(), out.data());
        transpose(out.data(), turned.data(), z.K, TILE);
        for (int64_t i = 0; i < tile.size; ++i) {
          const int64_t place = z.place(b, start + i, n);
          for (int64_t c = 0; c < z.K; c += LANES) {
            const Floats x = read<Floats>(turned.data() + i * z.K + c) * inverse[i];
            narrow(gates ? x * sigmoid(wide(gates.at(b, start + i, n) + c)) : x, y_data + place + c);
            if (gates) narrow(x, o_data + place + c);
          }
        }
      }
    }
    brgemm_release();
  });
  return {y, o, lse};
}

// `o` is what the forward pass gave before the gate; without a gate it is `y`.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& gate,
    const std::optional<Tensor>& cos, const std::optional<Tensor>& sin, const Tensor& spans, const Tensor& o,
    const Tensor& lse) {
  const Sizes z(q, spans);
  const Heads qs(q), ks(k), vs(v), gates(gate), os(o), grads(grad);
  const Angles angles{Heads(cos), Heads(sin)}, still{Heads(std::nullopt), Heads(std::nullopt)};
  auto make = [&] { return at::empty({z.B, z.S, z.N, z.K}, q.options()); };
  Tensor dq = make(), dk = make(), dv = make(), dg = gates ? make() : at::empty({0}, q.options());
  auto* dq_data = dq.mutable_data_ptr<BFloat16>();
  auto* dk_data = dk.mutable_data_ptr<BFloat16>();
  auto* dv_data = dv.mutable_data_ptr<BFloat16>();
  auto* dg_data = dg.mutable_data_ptr<BFloat16>();
  const auto* lse_data = lse.const_data_ptr<float>();
  const int64_t half = z.K / 2;
  const float root = 1.0f / std::sqrt(static_cast<float>(z.K)), scale = LOG2E * root;
  at::parallel_for(0, z.B * z.N, 1, [&](int64_t begin, int64_t end) {
    const int64_t square = TILE * z.K;
    std::vector<BFloat16> qh(z.T * z.K), kh(z.T * z.K), vh(z.T * z.K), kt(z.K * z.T), p(z.T * TILE), ds(z.T * TILE);
    std::vector<BFloat16> dsp(z.T * TILE), qt(square), qp(square), qr(square), dot(square), dop(square), dor(square);
    std::vector<float> s(z.T * TILE), dp(z.T * TILE), dkh(z.T * z.K), dvh(z.T * z.K), dqt(square), turned(square);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / z.N, n = task % z.N;
      gather(qs, angles, b, n, z, qh.data());
      gather(ks, angles, b, n, z, kh.data());
      gather(vs, still, b, n, z, vh.data());
      transpose_halves(kh.data(), kt.data(), z.T, z.K);
      std::fill(dkh.begin(), dkh.end(), 0.0f);
      std::fill(dvh.begin(), dvh.end(), 0.0f);
      for (int64_t start = 0; start < z.S; start += TILE) {
        const Tile tile(spans, b, start, z);
        const int64_t keys = tile.keys();
        alignas(64) float log_sum[TILE] = {0}, delta[TILE] = {0};
        std::memset(static_cast<void*>(dot.data()), 0, square * sizeof(BFloat16));
        for (int64_t i = 0; i < tile.size; ++i) {
          Floats sum = all(0.0f);
          for (int64_t c = 0; c < z.K; c += LANES) {
            const Floats own = wide(os.at(b, start + i, n) + c);
            Floats slope = wide(grads.at(b, start + i, n) + c);
            if (gates) {
              const Floats open = sigmoid(wide(gates.at(b, start + i, n) + c));
              slope *= open;
              narrow(slope * own * (1.0f - open), dg_data + z.place(b, start + i, n) + c);
            }
            narrow(slope, dot.data() + i * z.K + c);
            sum += slope * own;
          }
          for (int64_t j = 0; j < LANES; ++j) delta[i] += sum[j];
          log_sum[i] = lse_data[(b * z.N + n) * z.S + start + i];
        }
        tile.take(qh.data(), z.K, qt.data());
        transpose(qt.data(), qp.data(), TILE, z.K / 2);  // in pairs, which are words
        transpose(dot.data(), dop.data(), TILE, z.K / 2);  // in pairs, which are words
        pair_rows(qt.data(), qr.data(), TILE, z.K);
        pair_rows(dot.data(), dor.data(), TILE, z.K);
        brgemm(keys, TILE, z.K, z.K, TILE, TILE, false, kh.data() + tile.first * z.K, qp.data(), s.data());
        brgemm(keys, TILE, z.K, z.K, TILE, TILE, false, vh.data() + tile.first * z.K, dop.data(), dp.data());
        for (int64_t t = 0; t < keys; t += 2)
          for (int64_t i = 0; i < TILE; i += LANES) {
            Words pair = {};
            for (int64_t odd = 0; odd < 2; ++odd) {
              const int64_t place = (t + odd) * TILE + i, key = tile.first + t + odd;
              Floats w = exp2_of(read<Floats>(s.data() + place) * scale - read<Floats>(log_sum + i));
              if (!tile.is_open(key)) w = tile.sees(i, key) ? w : all(0.0f);
              narrow(w, p.data() + place);
              const Words slope = rounded(w * (read<Floats>(dp.data() + place) - read<Floats>(delta + i)) * root);
              write(__builtin_convertvector(slope, Halves), ds.data() + place);
              pair |= slope << (odd ? 16 : 0);
            }
            write(pair, dsp.data() + t * TILE + 2 * i);
          }
        brgemm(keys, z.K, TILE, TILE, z.K, z.K, true, p.data(), dor.data(), dvh.data() + tile.first * z.K);
        brgemm(keys, z.K, TILE, TILE, z.K, z.K, true, ds.data(), qr.data(), dkh.data() + tile.first * z.K);
        brgemm(z.K, TILE, keys, z.T, TILE, TILE, false, kt.data() + tile.first, dsp.data(), dqt.data());
        transpose(dqt.data(), turned.data(), z.K, TILE);
        for (int64_t i = 0; i < tile.size; ++i) {
          const float* from = turned.data() + i * z.K;
          for (int64_t c = 0; c < half; c += LANES)
            angles.turn(read<Floats>(from + c), read<Floats>(from + half + c), b, start + i, c, half, true,
                        dq_data + z.place(b, start + i, n));
        }
      }
      for (int64_t i = 0; i < z.S; ++i)
        for (int64_t c = 0; c < half; c += LANES) {
          const float *keys = dkh.data() + i * z.K + c, *values = dvh.data() + i * z.K + c;
          angles.turn(read<Floats>(keys), read<Floats>(keys + half), b, i, c, half, true, dk_data + z.place(b, i, n));
          still.turn(read<Floats>(values), read<Floats>(values + half), b, i, c, half, true, dv_data + z.place(b, i, n));
        }
    }
    brgemm_release();
  });
  return {dq, dk, dv, dg};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(hrm_lab, m) {
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor? gate, Tensor? cos, Tensor? sin, Tensor spans)"
      " -> (Tensor y, Tensor o, Tensor lse)");
  m.def(
      "attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? gate, Tensor? cos, Tensor? sin,"
      " Tensor spans, Tensor o, Tensor lse) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(hrm_lab, CPU, m) {
  m.impl("attention", forward);
  m.impl("attention_backward", backward);
}
