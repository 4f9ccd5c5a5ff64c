// ONNX Runtime's C API, opened from the installed package at run time.
//
// OrtGetApiBase() gives a table of function pointers that only ever grows at its end, so a position holds for every
// later version. Only the functions used here are declared, each with its position; the names, positions and signatures
// are those of the public reference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "error.h"

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtAllocator;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtThreadingOptions;
struct OrtCudaOptions;      // OrtCUDAProviderOptionsV2
struct OrtTensorRtOptions;  // OrtTensorRTProviderOptionsV2

namespace tritium {

enum class OrtLogLevel : int { kVerbose, kInfo, kWarning, kError, kFatal };
enum class OrtExecutionMode : int { kSequential, kParallel };
enum class OrtGraphLevel : int { kNone = 0, kBasic = 1, kExtended = 2, kAll = 99 };
enum class OrtType : int { kUnknown, kTensor };
enum class OrtElement : int {
  kUndefined,
  kFloat,
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kInt32,
  kInt64,
  kString,
  kBool,
  kFloat16,
  kDouble,
  kUint32,
  kUint64,
  kComplex64,
  kComplex128,
  kBfloat16
};
constexpr int kOrtDeviceAllocator = 0;
constexpr int kOrtDefaultMemory = 0;

using OrtLogFunction = void (*)(void* context, OrtLogLevel level, const char* category, const char* id,
                                const char* place, const char* message);
using OrtNames = const char* const*;

// The least version of the table: the first with GetResizedStringTensorElementBuffer.
constexpr uint32_t kOrtApiVersion = 15;
// The first version with TensorTypeAndShape_HasShape.
constexpr uint32_t kOrtHasShapeVersion = 24;

// Version, position in the table, result, name, arguments.
// clang-format off
#define TRITIUM_ORT_FUNCTIONS(F) \
  F(15, 2, const char*, GetErrorMessage, (const OrtStatus*)) \
  F(15, 4, OrtStatus*, CreateEnvWithCustomLogger, (OrtLogFunction, void*, OrtLogLevel, const char*, OrtEnv**)) \
  F(15, 6, OrtStatus*, DisableTelemetryEvents, (const OrtEnv*)) \
  F(15, 7, OrtStatus*, CreateSession, (const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**)) \
  F(15, 9, OrtStatus*, Run, (OrtSession*, const OrtRunOptions*, OrtNames, const OrtValue* const*, size_t, OrtNames, size_t, OrtValue**)) \
  F(15, 10, OrtStatus*, CreateSessionOptions, (OrtSessionOptions**)) \
  F(15, 13, OrtStatus*, SetSessionExecutionMode, (OrtSessionOptions*, OrtExecutionMode)) \
  F(15, 17, OrtStatus*, DisableMemPattern, (OrtSessionOptions*)) \
  F(15, 19, OrtStatus*, DisableCpuMemArena, (OrtSessionOptions*)) \
  F(15, 23, OrtStatus*, SetSessionGraphOptimizationLevel, (OrtSessionOptions*, OrtGraphLevel)) \
  F(15, 24, OrtStatus*, SetIntraOpNumThreads, (OrtSessionOptions*, int)) \
  F(15, 25, OrtStatus*, SetInterOpNumThreads, (OrtSessionOptions*, int)) \
  F(15, 30, OrtStatus*, SessionGetInputCount, (const OrtSession*, size_t*)) \
  F(15, 31, OrtStatus*, SessionGetOutputCount, (const OrtSession*, size_t*)) \
  F(15, 32, OrtStatus*, SessionGetOverridableInitializerCount, (const OrtSession*, size_t*)) \
  F(15, 33, OrtStatus*, SessionGetInputTypeInfo, (const OrtSession*, size_t, OrtTypeInfo**)) \
  F(15, 34, OrtStatus*, SessionGetOutputTypeInfo, (const OrtSession*, size_t, OrtTypeInfo**)) \
  F(15, 35, OrtStatus*, SessionGetOverridableInitializerTypeInfo, (const OrtSession*, size_t, OrtTypeInfo**)) \
  F(15, 36, OrtStatus*, SessionGetInputName, (const OrtSession*, size_t, OrtAllocator*, char**)) \
  F(15, 37, OrtStatus*, SessionGetOutputName, (const OrtSession*, size_t, OrtAllocator*, char**)) \
  F(15, 38, OrtStatus*, SessionGetOverridableInitializerName, (const OrtSession*, size_t, OrtAllocator*, char**)) \
  F(15, 39, OrtStatus*, CreateRunOptions, (OrtRunOptions**)) \
  F(15, 48, OrtStatus*, CreateTensorAsOrtValue, (OrtAllocator*, const int64_t*, size_t, OrtElement, OrtValue**)) \
  F(15, 49, OrtStatus*, CreateTensorWithDataAsOrtValue, (const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, OrtElement, OrtValue**)) \
  F(15, 51, OrtStatus*, GetTensorMutableData, (OrtValue*, void**)) \
  F(15, 53, OrtStatus*, GetStringTensorDataLength, (const OrtValue*, size_t*)) \
  F(15, 54, OrtStatus*, GetStringTensorContent, (const OrtValue*, void*, size_t, size_t*, size_t)) \
  F(15, 55, OrtStatus*, CastTypeInfoToTensorInfo, (const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**)) \
  F(15, 56, OrtStatus*, GetOnnxTypeFromTypeInfo, (const OrtTypeInfo*, OrtType*)) \
  F(15, 60, OrtStatus*, GetTensorElementType, (const OrtTensorTypeAndShapeInfo*, OrtElement*)) \
  F(15, 61, OrtStatus*, GetDimensionsCount, (const OrtTensorTypeAndShapeInfo*, size_t*)) \
  F(15, 62, OrtStatus*, GetDimensions, (const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)) \
  F(15, 65, OrtStatus*, GetTensorTypeAndShape, (const OrtValue*, OrtTensorTypeAndShapeInfo**)) \
  F(15, 69, OrtStatus*, CreateCpuMemoryInfo, (int, int, OrtMemoryInfo**)) \
  F(15, 76, OrtStatus*, AllocatorFree, (OrtAllocator*, void*)) \
  F(15, 78, OrtStatus*, GetAllocatorWithDefaultOptions, (OrtAllocator**)) \
  F(15, 92, void, ReleaseEnv, (OrtEnv*)) \
  F(15, 93, void, ReleaseStatus, (OrtStatus*)) \
  F(15, 94, void, ReleaseMemoryInfo, (OrtMemoryInfo*)) \
  F(15, 95, void, ReleaseSession, (OrtSession*)) \
  F(15, 96, void, ReleaseValue, (OrtValue*)) \
  F(15, 97, void, ReleaseRunOptions, (OrtRunOptions*)) \
  F(15, 98, void, ReleaseTypeInfo, (OrtTypeInfo*)) \
  F(15, 99, void, ReleaseTensorTypeAndShapeInfo, (OrtTensorTypeAndShapeInfo*)) \
  F(15, 100, void, ReleaseSessionOptions, (OrtSessionOptions*)) \
  F(15, 120, OrtStatus*, DisablePerSessionThreads, (OrtSessionOptions*)) \
  F(15, 121, OrtStatus*, CreateThreadingOptions, (OrtThreadingOptions**)) \
  F(15, 122, void, ReleaseThreadingOptions, (OrtThreadingOptions*)) \
  F(15, 125, OrtStatus*, GetAvailableProviders, (char***, int*)) \
  F(15, 126, OrtStatus*, ReleaseAvailableProviders, (char**, int)) \
  F(15, 130, OrtStatus*, AddSessionConfigEntry, (OrtSessionOptions*, const char*, const char*)) \
  F(15, 147, OrtStatus*, SetGlobalIntraOpNumThreads, (OrtThreadingOptions*, int)) \
  F(15, 148, OrtStatus*, SetGlobalInterOpNumThreads, (OrtThreadingOptions*, int)) \
  F(15, 151, OrtStatus*, CreateEnvWithCustomLoggerAndGlobalThreadPools, (OrtLogFunction, void*, OrtLogLevel, const char*, const OrtThreadingOptions*, OrtEnv**)) \
  F(15, 165, OrtStatus*, AddRunConfigEntry, (OrtRunOptions*, const char*, const char*)) \
  F(15, 170, OrtStatus*, SessionOptionsAppendExecutionProvider_TensorRT_V2, (OrtSessionOptions*, const OrtTensorRtOptions*)) \
  F(15, 171, OrtStatus*, CreateTensorRTProviderOptions, (OrtTensorRtOptions**)) \
  F(15, 172, OrtStatus*, UpdateTensorRTProviderOptions, (OrtTensorRtOptions*, OrtNames, OrtNames, size_t)) \
  F(15, 174, void, ReleaseTensorRTProviderOptions, (OrtTensorRtOptions*)) \
  F(15, 204, OrtStatus*, SessionOptionsAppendExecutionProvider_CUDA_V2, (OrtSessionOptions*, const OrtCudaOptions*)) \
  F(15, 205, OrtStatus*, CreateCUDAProviderOptions, (OrtCudaOptions**)) \
  F(15, 206, OrtStatus*, UpdateCUDAProviderOptions, (OrtCudaOptions*, OrtNames, OrtNames, size_t)) \
  F(15, 208, void, ReleaseCUDAProviderOptions, (OrtCudaOptions*)) \
  F(15, 216, OrtStatus*, SessionOptionsAppendExecutionProvider, (OrtSessionOptions*, const char*, OrtNames, OrtNames, size_t)) \
  F(15, 228, OrtStatus*, RegisterCustomOpsLibrary_V2, (OrtSessionOptions*, const char*)) \
  F(15, 252, OrtStatus*, GetResizedStringTensorElementBuffer, (OrtValue*, size_t, size_t, char**)) \
  F(24, 390, bool, TensorTypeAndShape_HasShape, (const OrtTensorTypeAndShapeInfo*))
// clang-format on

// The functions, taken from the table.
struct OrtFunctions {
#define TRITIUM_ORT_MEMBER(since, position, result, name, arguments) result(*name) arguments = nullptr;
  TRITIUM_ORT_FUNCTIONS(TRITIUM_ORT_MEMBER)
#undef TRITIUM_ORT_MEMBER
  std::string version;

  // Whether a tensor's type can be asked if it has a shape at all; older versions give the empty shape for both.
  bool tells_shapes() const { return TensorTypeAndShape_HasShape != nullptr; }
};

// The functions of the library that OpenOrt opened.
const OrtFunctions& Ort();

// Opens libonnxruntime, with its symbols kept to itself, and checks that its API is one that is known here. It stays
// open until the process ends: its threads and statics do not survive being unloaded. Throws Error.
void OpenOrt(const std::string& path);

// Throws what a call into ONNX Runtime reports.
void Check(OrtStatus* status);

struct OrtRelease {
  void operator()(OrtStatus* x) const { Ort().ReleaseStatus(x); }
  void operator()(OrtEnv* x) const { Ort().ReleaseEnv(x); }
  void operator()(OrtSession* x) const { Ort().ReleaseSession(x); }
  void operator()(OrtSessionOptions* x) const { Ort().ReleaseSessionOptions(x); }
  void operator()(OrtRunOptions* x) const { Ort().ReleaseRunOptions(x); }
  void operator()(OrtValue* x) const { Ort().ReleaseValue(x); }
  void operator()(OrtMemoryInfo* x) const { Ort().ReleaseMemoryInfo(x); }
  void operator()(OrtTypeInfo* x) const { Ort().ReleaseTypeInfo(x); }
  void operator()(OrtTensorTypeAndShapeInfo* x) const { Ort().ReleaseTensorTypeAndShapeInfo(x); }
  void operator()(OrtThreadingOptions* x) const { Ort().ReleaseThreadingOptions(x); }
  void operator()(OrtCudaOptions* x) const { Ort().ReleaseCUDAProviderOptions(x); }
  void operator()(OrtTensorRtOptions* x) const { Ort().ReleaseTensorRTProviderOptions(x); }
};

template <class T>
using OrtPtr = std::unique_ptr<T, OrtRelease>;

// As in Make<OrtEnv>(Ort().CreateEnv, arguments…): the last argument of such functions takes the new object.
template <class T, class Function, class... Arguments>
OrtPtr<T> Make(Function function, Arguments... arguments) {
  T* made = nullptr;
  Check(function(arguments..., &made));
  return OrtPtr<T>(made);
}

}  // namespace tritium
