// What a node is told when its session is made, and what it is given when it runs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi.h"
#include "numattn.h"

namespace numattn::onnxruntime {

constexpr int kMaximalRank = 5;

// std::invalid_argument of what is wrong.
[[noreturn]] void refuse(const std::string& what);

// An input or an output; without a type it is not given.
struct Array {
  void* data = nullptr;
  int type = kUndefined;
  int rank = 0;
  std::array<std::int64_t, kMaximalRank> shape{};

  bool given() const { return type != kUndefined; }
  std::int64_t count() const;  // of elements
  std::string shape_text() const;
};

// The attributes and outputs of a node.
class Info {
 public:
  Info(const OrtApi* api, const OrtKernelInfo* info) : api_(api), info_(info) {}

  std::int64_t integer(const char* name, std::int64_t otherwise) const;
  float number(const char* name, float otherwise) const;
  bool has_number(const char* name) const;
  bool has_output(std::size_t index) const;

  // What is not carried out: refused, by name, unless it is as if it were not there.
  void refuse_integer(const char* name, std::int64_t harmless) const;
  void refuse_text(const char* name, const char* harmless) const;
  void refuse_output(std::size_t index, const char* name) const;

 private:
  const OrtApi* api_;
  const OrtKernelInfo* info_;
};

// One run of a node. Its loops run on the session's threads.
class Context {
 public:
  Context(const OrtApi* api, OrtKernelContext* context);

  Array input(std::size_t index) const;
  // Not given where the node does not name it.
  Array output(std::size_t index, const std::vector<std::int64_t>& shape) const;

  // Memory until the end of the run.
  void* scratch(std::int64_t bytes);

  numattn_attention_args attention_args();
  void attend(const numattn_attention_args& args) const;
  numattn_rope_args rope_args();
  void turn(const numattn_rope_args& args) const;

  // body(index) for every index below `count`.
  template <class Body>
  void each(std::int64_t count, const Body& body) {
    const auto part = [](const void* erased, std::int32_t index) {
      (*static_cast<const Body*>(erased))(index);
    };
    parallel(this, static_cast<std::int32_t>(count), part, &body);
  }

 private:
  static void parallel(void* context, std::int32_t count,
                       void (*part)(const void* argument, std::int32_t index),
                       const void* argument);
  void check(OrtStatus* status) const;
  Array array_of(OrtValue* value) const;

  const OrtApi* api_;
  OrtKernelContext* context_;
  std::size_t inputs_ = 0;
  std::size_t outputs_ = 0;
  std::vector<std::unique_ptr<char[]>> scratch_;
};

// A node of a session: any number of threads may run it.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void run(Context& context) const = 0;
};

}  // namespace numattn::onnxruntime
