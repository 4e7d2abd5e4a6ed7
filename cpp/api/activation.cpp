// Runs an activation, some elements at a time.
#include "numattn/activation.h"

#include <algorithm>

#include "check.h"
#include "divide_up.h"
#include "names.h"
#include "numattn/threads.h"
#include "parallel.h"
#include "select.h"
#include "useful_threads.h"

namespace numattn {
namespace {

// Of a work item: ten microseconds or so.
constexpr std::int64_t kItemElements = 16384;

}  // namespace

bool run_activation(const ActivationParams& params, Interrupt interrupt) {
  const View& x = params.x;
  check_floating(x, "x");
  check_rank(x, "x", 1, "(n)");
  check_num_threads(params.num_threads);
  check_output(params.output, x.shape, 1, x.dtype, "x");
  const Activation activation = parse_activation(params.activation);
  const std::int64_t count = x.shape[0];
  if (count == 0) return true;
  const std::int64_t items = divide_up(count, kItemElements);
  const Kernels& kernels = current_kernels();
  const auto item = [&](std::int64_t index, Worker&) {
    const std::int64_t first = index * kItemElements;
    ActivatedElements elements{};
    elements.x = static_cast<const char*>(x.data) + first * x.strides[0];
    elements.stride = x.strides[0];
    elements.dtype = x.dtype;
    elements.output = static_cast<char*>(params.output.data) + first * x.item_size();
    elements.count = std::min(kItemElements, count - first);
    elements.activation = activation;
    kernels.activate(elements);
  };
  const int threads = threads_for(useful_threads_for(count, items), params.num_threads);
  return parallel_for(items, threads, interrupt, item) == Outcome::kFinished;
}

}  // namespace numattn
