// Instruction sets, threads and memory.
#include <pybind11/stl.h>

#include "numattn/isa.h"
#include "numattn/threads.h"
#include "numpy_view.h"

namespace numattn::bind {

void bind_control(py::module_& module) {
  module.def("available_isas", &available_isas);
  module.def("current_isa", &current_isa);
  module.def("use_isa", &use_isa);
  module.def("cpu_features", &cpu_features);
  module.def("set_num_threads", &set_num_threads);
  module.def("get_num_threads", &get_num_threads);
  module.def("empty", &empty_array);
  module.def("thread_limits", [] {
    const ThreadLimits limits = thread_limits();
    py::dict result;
    result["process"] = limits.process;
    result["openmp"] = limits.openmp;
    result["affinity"] = limits.affinity;
    result["cgroup"] = limits.cgroup;
    result["nested"] = static_cast<int>(limits.nested);
    return result;
  });
}

}  // namespace numattn::bind
