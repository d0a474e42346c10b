// Products of blocks of rows with the weights of their experts, bf16 on a CPU: threads share out blocks, where products
// that are threaded one by one would make all threads wait for each other at the end of every small one.
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace {

using at::Tensor;

// One product: a part of an expert's rows, or of the rows of its weight's gradient. The parts do not depend on the
// number of threads, and so no bit of the result does.
struct Part {
  int64_t expert, start, stop;
};

constexpr int64_t ROWS = 512;

template <typename F>
void in_parts(const std::vector<Part>& parts, const F& product) {
  at::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    // The parts are of outputs that nobody else sees yet: no graph and no version counters, which other threads than
    // the caller's would refuse to raise for tensors of its inference mode.
    at::AutoDispatchBelowADInplaceOrView plain;
    for (int64_t i = begin; i < end; ++i) product(parts[i]);
  });
}

void cut(std::vector<Part>& parts, int64_t expert, int64_t start, int64_t stop) {
  for (; start < stop; start += ROWS) parts.push_back({expert, start, std::min(start + ROWS, stop)});
}

// rows_e @ weight_e^T: (M, K) and (N, O, K) to (M, O), zero behind the last block. `ends` (N,) int32.
Tensor products(const Tensor& rows, const Tensor& weight, const Tensor& ends) {
  Tensor out = at::empty({rows.size(0), weight.size(1)}, rows.options());
  std::vector<Part> parts;
  int64_t start = 0;
  for (int64_t expert = 0; expert < ends.numel(); ++expert) {
    const int64_t end = ends.const_data_ptr<int32_t>()[expert];
    cut(parts, expert, start, end);
    start = std::max(start, end);
  }
  in_parts(parts, [&](const Part& part) {
    Tensor into = out.slice(0, part.start, part.stop);
    at::mm_out(into, rows.slice(0, part.start, part.stop), weight[part.expert].t());
  });
  out.slice(0, start).zero_();
  return out;
}

// left_e^T @ right_e: (M, O) and (M, K) to (N, O, K).
Tensor outer_products(const Tensor& left, const Tensor& right, const Tensor& ends) {
  Tensor out = at::empty({ends.numel(), left.size(1), right.size(1)}, left.options());
  const int32_t* end = ends.const_data_ptr<int32_t>();
  std::vector<Part> parts;
  for (int64_t expert = 0; expert < ends.numel(); ++expert) cut(parts, expert, 0, left.size(1));
  in_parts(parts, [&](const Part& part) {
    const int64_t start = part.expert == 0 ? 0 : end[part.expert - 1], stop = end[part.expert];
    Tensor into = out[part.expert].slice(0, part.start, part.stop);
    if (stop <= start) {
      into.zero_();
      return;
    }
    const Tensor own = left.slice(0, start, stop).slice(1, part.start, part.stop);
    at::mm_out(into, own.t(), right.slice(0, start, stop));
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(hrm_lab, m) {
  m.def("expert_products(Tensor rows, Tensor weight, Tensor ends) -> Tensor", products);
  m.def("expert_outer_products(Tensor left, Tensor right, Tensor ends) -> Tensor", outer_products);
}
