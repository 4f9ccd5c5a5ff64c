#include "ort_api.h"

#include <dlfcn.h>

#include <cstdlib>

namespace tritium {

namespace {

// What OrtGetApiBase() gives.
struct OrtApiBase {
  const void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

OrtFunctions functions;

}  // namespace

const OrtFunctions& Ort() { return functions; }

void OpenOrt(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(ErrorCode::kUnavailable, "ONNX Runtime cannot be opened: " + std::string(dlerror()));
  }
  auto base_of = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  const OrtApiBase* base = base_of != nullptr ? base_of() : nullptr;
  if (base == nullptr) throw Error(ErrorCode::kUnsupported, path + " is no ONNX Runtime: it has no OrtGetApiBase");
  OrtFunctions found;
  found.version = base->GetVersionString();
  // Versions are 1.N.p, and N is the version of the API too.
  const bool known = found.version.rfind("1.", 0) == 0;
  const uint32_t minor = known ? static_cast<uint32_t>(std::strtoul(found.version.c_str() + 2, nullptr, 10)) : 0;
  const uint32_t version = minor >= kOrtHasShapeVersion ? kOrtHasShapeVersion : kOrtApiVersion;
  const void* const* table = minor >= kOrtApiVersion ? base->GetApi(version) : nullptr;
  if (table == nullptr) {
    throw Error(ErrorCode::kUnsupported, "ONNX Runtime " + found.version + " in " + path +
                                             " is not one that this backend knows: "
                                             "it must be 1." +
                                             std::to_string(kOrtApiVersion) + " or a later 1.x");
  }
#define TRITIUM_ORT_TAKE(since, position, result, name, arguments) \
  if (since <= version) found.name = reinterpret_cast<result(*) arguments>(const_cast<void*>(table[position]));
  TRITIUM_ORT_FUNCTIONS(TRITIUM_ORT_TAKE)
#undef TRITIUM_ORT_TAKE
  functions = found;
}

void Check(OrtStatus* status) {
  if (status == nullptr) return;
  const OrtPtr<OrtStatus> owner(status);
  throw Error(ErrorCode::kInternal, std::string("ONNX Runtime: ") + Ort().GetErrorMessage(status));
}

}  // namespace tritium
