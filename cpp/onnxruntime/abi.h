// What is used of ONNX Runtime's C interface, whose header comes with no package: a table of
// functions that grows at its end alone, and the structure that describes an operator of one's own.
// The numbers are facts of that interface; tests/test_onnxruntime.py runs every function named
// here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

struct OrtApi;
struct OrtCustomOpDomain;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtSessionOptions;
struct OrtShapeInferContext;
struct OrtStatus;  // null: success
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

// Null where that version is not known.
struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

namespace numattn::onnxruntime {

// Of ONNX Runtime 1.17, the first with the last function of the list below.
constexpr std::uint32_t kApiVersion = 17;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };

// ONNX's numbers of element types.
enum ElementType : int {
  kUndefined = 0,  // of an operator's input: any
  kFloat = 1,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kFloat16 = 10,
  kBFloat16 = 16,
};

enum Characteristic : int { kRequired = 0, kOptional = 1 };

// A function by its place in the table, and what it takes.
template <class Signature>
struct Entry {
  std::size_t index;
};

// Version 1.
constexpr Entry<OrtStatus*(int code, const char* message)> kCreateStatus{0};
constexpr Entry<const char*(const OrtStatus*)> kGetErrorMessage{2};
constexpr Entry<OrtStatus*(const char* name, OrtCustomOpDomain**)> kCreateCustomOpDomain{26};
constexpr Entry<OrtStatus*(OrtCustomOpDomain*, const void* op)> kCustomOpDomainAdd{27};
constexpr Entry<OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)> kAddCustomOpDomain{28};
constexpr Entry<OrtStatus*(OrtValue*, void** data)> kGetTensorMutableData{51};
constexpr Entry<OrtStatus*(const OrtTensorTypeAndShapeInfo*, int*)> kGetTensorElementType{60};
constexpr Entry<OrtStatus*(const OrtTensorTypeAndShapeInfo*, std::size_t*)> kGetDimensionsCount{61};
constexpr Entry<OrtStatus*(const OrtTensorTypeAndShapeInfo*, std::int64_t*, std::size_t count)>
    kGetDimensions{62};
constexpr Entry<OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)> kGetTensorTypeAndShape{
    65};
constexpr Entry<OrtStatus*(const OrtKernelInfo*, const char* name, float*)> kGetAttributeFloat{85};
constexpr Entry<OrtStatus*(const OrtKernelInfo*, const char* name, std::int64_t*)>
    kGetAttributeInt64{86};
constexpr Entry<OrtStatus*(const OrtKernelInfo*, const char* name, char*, std::size_t* size)>
    kGetAttributeString{87};
constexpr Entry<OrtStatus*(const OrtKernelContext*, std::size_t*)> kGetInputCount{88};
constexpr Entry<OrtStatus*(const OrtKernelContext*, std::size_t*)> kGetOutputCount{89};
constexpr Entry<OrtStatus*(const OrtKernelContext*, std::size_t index, const OrtValue**)> kGetInput{
    90};
constexpr Entry<OrtStatus*(OrtKernelContext*, std::size_t index, const std::int64_t* shape,
                           std::size_t rank, OrtValue**)>
    kGetOutput{91};
constexpr Entry<void(OrtStatus*)> kReleaseStatus{93};
constexpr Entry<void(OrtTensorTypeAndShapeInfo*)> kReleaseTensorTypeAndShapeInfo{99};
// Version 14.
constexpr Entry<OrtStatus*(const OrtKernelInfo*, std::size_t*)> kInfoGetOutputCount{231};
constexpr Entry<OrtStatus*(const OrtKernelInfo*, std::size_t index, char*, std::size_t* size)>
    kInfoGetOutputName{233};
// Version 17.
constexpr Entry<OrtStatus*(const OrtKernelContext*, void (*body)(void*, std::size_t index),
                           std::size_t total, std::size_t batches, void* argument)>
    kParallelFor{274};

template <class Type>
struct Same {
  using type = Type;
};

template <class Result, class... Parameters>
Result call(const OrtApi* api, Entry<Result(Parameters...)> entry,
            typename Same<Parameters>::type... arguments) {
  Result (*function)(Parameters...);
  std::memcpy(&function, reinterpret_cast<const char*>(api) + entry.index * sizeof function,
              sizeof function);
  return function(arguments...);
}

// An operator, to the end that it has in version 17.
struct CustomOp {
  std::uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const OrtApi*, const OrtKernelInfo*);  // before version 16
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  int (*GetInputType)(const CustomOp*, std::size_t index);
  std::size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, std::size_t index);
  std::size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);  // before version 16
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const CustomOp*, std::size_t index);
  int (*GetOutputCharacteristic)(const CustomOp*, std::size_t index);
  int (*GetInputMemoryType)(const CustomOp*, std::size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  OrtStatus* (*CreateKernelV2)(const CustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const CustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
};

}  // namespace numattn::onnxruntime
