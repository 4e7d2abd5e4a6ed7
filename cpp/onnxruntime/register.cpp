// RegisterCustomOps, which ONNX Runtime calls for each session's options: operators of the domain
// "numattn", one for each type of elements. A domain of its own, since those of com.microsoft stay
// ONNX Runtime's.
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "abi.h"
#include "core.h"
#include "operators.h"

namespace numattn::onnxruntime {
namespace {

OrtStatus* status_of(const OrtApi* api, ErrorCode code, const char* words) {
  return call(api, kCreateStatus, static_cast<int>(code), words);
}

// Runs work(); an exception becomes a status.
template <class Work>
OrtStatus* guarded(const OrtApi* api, const char* name, const Work& work) noexcept {
  try {
    try {
      work();
      return nullptr;
    } catch (const std::invalid_argument& error) {
      const std::string words = std::string("numattn's ") + name + ": " + error.what();
      return status_of(api, kInvalidArgument, words.c_str());
    } catch (const std::bad_alloc&) {
      return status_of(api, kFail, "numattn: out of memory");
    } catch (const std::exception& error) {
      return status_of(api, kFail, error.what());
    }
  } catch (...) {
    return status_of(api, kFail, "numattn: out of memory");
  }
}

struct Registered : CustomOp {
  const Operator* described;
  ElementType element;
};

const Registered& registered(const CustomOp* op) { return *static_cast<const Registered*>(op); }

int type_of(Type type, ElementType element) {
  switch (type) {
    case Type::kElement: return element;
    case Type::kInt32: return kInt32;
    case Type::kInt64: return kInt64;
    case Type::kAny: return kUndefined;
  }
  return kUndefined;
}

struct Node {
  const OrtApi* api;
  const Operator* described;
  std::unique_ptr<Kernel> kernel;
};

OrtStatus* create(const CustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  const Operator* described = registered(op).described;
  return guarded(api, described->name,
                 [&] { *kernel = new Node{api, described, described->make(Info(api, info))}; });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const Node& node = *static_cast<const Node*>(kernel);
  return guarded(node.api, node.described->name, [&] {
    Context own(node.api, context);
    node.kernel->run(own);
  });
}

int one(const CustomOp*) { return 1; }

Registered made(const Operator& described, ElementType element) {
  Registered op{};
  op.version = kApiVersion;
  op.described = &described;
  op.element = element;
  op.GetName = [](const CustomOp* own) { return registered(own).described->name; };
  op.GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputTypeCount = [](const CustomOp* own) { return registered(own).described->input_count; };
  op.GetInputType = [](const CustomOp* own, std::size_t index) {
    return type_of(registered(own).described->inputs[index].type, registered(own).element);
  };
  op.GetInputCharacteristic = [](const CustomOp* own, std::size_t index) {
    return static_cast<int>(registered(own).described->inputs[index].characteristic);
  };
  op.GetOutputTypeCount = [](const CustomOp* own) {
    return registered(own).described->output_count;
  };
  op.GetOutputType = [](const CustomOp* own, std::size_t index) {
    return type_of(registered(own).described->outputs[index].type, registered(own).element);
  };
  op.GetOutputCharacteristic = [](const CustomOp* own, std::size_t index) {
    return static_cast<int>(registered(own).described->outputs[index].characteristic);
  };
  op.GetInputMemoryType = [](const CustomOp*, std::size_t) { return 0; };
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = one;
  op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = one;
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
  op.GetStartVersion = one;
  op.GetEndVersion = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
  return op;
}

struct Domains {
  std::mutex lock;
  std::vector<Registered> operators;
  std::vector<std::pair<const OrtApi*, OrtCustomOpDomain*>> made;  // one for each runtime
};

// Sessions hold pointers into it: it is there until the process is gone.
Domains& domains() {
  static Domains* const own = [] {
    auto* all = new Domains;
    for (const Operator* op : {&kAttention, &kMultiHeadAttention, &kGroupQueryAttention}) {
      for (const ElementType element : {kFloat, kFloat16, kBFloat16}) {
        all->operators.push_back(made(*op, element));
      }
    }
    return all;
  }();
  return *own;
}

OrtStatus* domain_of(const OrtApi* api, OrtCustomOpDomain** domain) {
  Domains& all = domains();
  const std::lock_guard<std::mutex> guard(all.lock);
  for (const auto& [runtime, own] : all.made) {
    if (runtime == api) *domain = own;
  }
  if (*domain != nullptr) return nullptr;
  OrtCustomOpDomain* fresh = nullptr;
  if (OrtStatus* status = call(api, kCreateCustomOpDomain, "numattn", &fresh)) return status;
  for (const Registered& op : all.operators) {
    const CustomOp* described = &op;
    if (OrtStatus* status = call(api, kCustomOpDomainAdd, fresh, described)) return status;
  }
  all.made.emplace_back(api, fresh);
  *domain = fresh;
  return nullptr;
}

}  // namespace
}  // namespace numattn::onnxruntime

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace numattn::onnxruntime;
  const OrtApi* api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    // Words in the way of version 1, which each has.
    const OrtApi* first = base->GetApi(1);
    return status_of(first, kFail, "numattn needs ONNX Runtime 1.17 or later");
  }
  OrtStatus* status = nullptr;
  OrtStatus* failed = guarded(api, "operators", [&] {
    const std::string missing = missing_core();
    if (!missing.empty()) throw std::runtime_error("numattn's kernels are not there: " + missing);
    OrtCustomOpDomain* domain = nullptr;
    status = domain_of(api, &domain);
    if (status == nullptr) status = call(api, kAddCustomOpDomain, options, domain);
  });
  return failed != nullptr ? failed : status;
}
