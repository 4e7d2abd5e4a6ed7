// Tensors of other libraries by DLPack: the structs that it lays down (dmlc/dlpack, 1.3), as far as
// they are used here.
#pragma once

#include <cstdint>

namespace numattn::bind::dlpack {

struct Version {
  std::uint32_t major, minor;
};

enum DeviceType : std::int32_t { kCpu = 1, kCudaHost = 3, kRocmHost = 11 };

struct Device {
  std::int32_t type, index;
};

enum TypeCode : std::uint8_t { kInt, kUInt, kFloat, kOpaque, kBfloat, kComplex, kBool };

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t rank;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; none where rows lie one after the other
  std::uint64_t byte_offset;
};

// Both are given up by deleter(self), once.
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

enum Flags : std::uint64_t { kReadOnly = 1, kIsCopied = 2 };

struct VersionedManaged {
  Version version;
  void* context;
  void (*deleter)(VersionedManaged*);
  std::uint64_t flags;
  Tensor tensor;
};

// What a library's type has as its __dlpack_c_exchange_api__; 0 is success, −1 leaves an error in
// Python.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  void* allocate;
  void* from_object;
  int (*to_object)(VersionedManaged* managed, void** object);
  int (*from_object_unowned)(void* object, Tensor* tensor);  // may be absent
  void* current_stream;
};

constexpr std::uint32_t kMajor = 1;
constexpr const char* kExchangeApi = "dlpack_exchange_api";
constexpr const char* kCapsule = "dltensor";
constexpr const char* kUsedCapsule = "used_dltensor";
constexpr const char* kVersionedCapsule = "dltensor_versioned";
constexpr const char* kUsedVersionedCapsule = "used_dltensor_versioned";

}  // namespace numattn::bind::dlpack
