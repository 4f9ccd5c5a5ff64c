// What Triton calls: nothing but the way from its handles to our objects, and no exception across it.
#include <memory>

#include "instance.h"

#define TRITIUM_EXPORT extern "C" __attribute__((visibility("default")))

namespace tritium {

namespace {

template <class T, class Handle>
T* State(TRITONSERVER_Error* (*get)(Handle*, void**), Handle* handle) {
  void* state = nullptr;
  Check(get(handle, &state));
  return static_cast<T*>(state);
}

void CheckTritonVersion() {
  uint32_t major = 0, minor = 0;
  Check(TRITONBACKEND_ApiVersion(&major, &minor));
  if (major == kTritonApiMajor && minor >= kTritonApiMinor) return;
  throw Error(ErrorCode::kUnsupported, "this Triton has backend API " + std::to_string(major) + "." +
                                           std::to_string(minor) + ", and this backend needs " +
                                           std::to_string(kTritonApiMajor) + "." + std::to_string(kTritonApiMinor) +
                                           " or a later " + std::to_string(kTritonApiMajor) + ".x");
}

// What --backend-config=onnxruntime,KEY=VALUE gave.
Json CommandLine(TRITONBACKEND_Backend* backend) {
  TRITONSERVER_Message* message = nullptr;
  Check(TRITONBACKEND_BackendConfig(backend, &message));
  const char* text = nullptr;
  size_t bytes = 0;
  Check(TRITONSERVER_MessageSerializeToJson(message, &text, &bytes));
  const Json json = Json::Parse({text, bytes});
  const Json* options = json.Find("cmdline");
  return options != nullptr ? *options : Json::Object();
}

void OrtLog(void*, OrtLogLevel level, const char*, const char*, const char*, const char* message) noexcept {
  const LogLevel to = level >= OrtLogLevel::kError     ? LogLevel::kError
                      : level == OrtLogLevel::kWarning ? LogLevel::kWarn
                                                       : LogLevel::kVerbose;
  Log(to, message);
}

std::unique_ptr<Environment> MakeEnvironment(const Json& options) {
  const auto option = [&](const char* key, const char* fallback) {
    const Json* value = options.Find(key);
    return value != nullptr ? value->AsString(key) : std::string(fallback);
  };
  const auto number = [&](const char* key) {
    return ParseInt(option(key, "0"), std::string("backend option '") + key + "'", 0, 1 << 20);
  };
  const std::string library = option("ort-library", "");
  if (library.empty()) {
    throw Invalid(
        "where is ONNX Runtime? --backend-config=onnxruntime,ort-library=PATH must name its libonnxruntime.so");
  }
  OpenOrt(library);
  auto environment = std::make_unique<Environment>();
  environment->default_max_batch_size = number("default-max-batch-size");
  environment->global_threads =
      ParseBool(option("enable-global-threadpool", "0"), "backend option 'enable-global-threadpool'");
  if (environment->global_threads) {
    const auto threads = Make<OrtThreadingOptions>(Ort().CreateThreadingOptions);
    Check(Ort().SetGlobalIntraOpNumThreads(threads.get(), number("intra_op_thread_count")));
    Check(Ort().SetGlobalInterOpNumThreads(threads.get(), number("inter_op_thread_count")));
    environment->env =
        Make<OrtEnv>(Ort().CreateEnvWithCustomLoggerAndGlobalThreadPools, OrtLog, nullptr, OrtLogLevel::kWarning,
                     "onnxruntime", static_cast<const OrtThreadingOptions*>(threads.get()));
  } else {
    environment->env =
        Make<OrtEnv>(Ort().CreateEnvWithCustomLogger, OrtLog, nullptr, OrtLogLevel::kWarning, "onnxruntime");
  }
  Check(Ort().DisableTelemetryEvents(environment->env.get()));
  Log(LogLevel::kInfo, "Tritium's ONNX Runtime backend, ONNX Runtime " + Ort().version + " (" + library + ")");
  return environment;
}

}  // namespace

}  // namespace tritium

using namespace tritium;

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend* backend) {
  return Guarded([&] {
    CheckTritonVersion();
    auto environment = MakeEnvironment(CommandLine(backend));
    Check(TRITONBACKEND_BackendSetState(backend, environment.get()));
    environment.release();
  });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_Finalize(TRITONBACKEND_Backend* backend) {
  return Guarded([&] { delete State<Environment>(TRITONBACKEND_BackendState, backend); });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend*,
                                                                     TRITONBACKEND_BackendAttribute* attribute) {
  return Guarded([&] { Check(TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(attribute, true)); });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model* handle) {
  return Guarded([&] {
    TRITONBACKEND_Backend* backend = nullptr;
    Check(TRITONBACKEND_ModelBackend(handle, &backend));
    auto model = std::make_unique<Model>(handle, *State<Environment>(TRITONBACKEND_BackendState, backend));
    Check(TRITONBACKEND_ModelSetState(handle, model.get()));
    model.release();
  });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model* handle) {
  return Guarded([&] { delete State<Model>(TRITONBACKEND_ModelState, handle); });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* handle) {
  return Guarded([&] {
    TRITONBACKEND_Model* model = nullptr;
    Check(TRITONBACKEND_ModelInstanceModel(handle, &model));
    auto instance = std::make_unique<Instance>(handle, State<Model>(TRITONBACKEND_ModelState, model));
    Check(TRITONBACKEND_ModelInstanceSetState(handle, instance.get()));
    instance.release();
  });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* handle) {
  return Guarded([&] { delete State<Instance>(TRITONBACKEND_ModelInstanceState, handle); });
}

TRITIUM_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance* handle,
                                                                      TRITONBACKEND_Request** requests,
                                                                      uint32_t count) {
  return Guarded([&] { State<Instance>(TRITONBACKEND_ModelInstanceState, handle)->Execute(requests, count); });
}
