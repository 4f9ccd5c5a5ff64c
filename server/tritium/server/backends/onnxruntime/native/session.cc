#include "session.h"

#include <algorithm>
#include <map>

namespace tritium {

namespace {

// More would be a slip: each model has its own.
constexpr int kMostThreads = 1024;

using Options = std::map<std::string, std::string>;

// Options as the two parallel arrays that the C API takes.
struct KeysAndValues {
  explicit KeysAndValues(const Options& options) {
    for (const auto& [key, value] : options) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
  }
  std::vector<const char*> keys;
  std::vector<const char*> values;
};

OrtGraphLevel GraphLevel(int64_t level) {
  switch (level) {
    case -1:
      return OrtGraphLevel::kBasic;
    case 0:
      return OrtGraphLevel::kAll;
    case 1:
      return OrtGraphLevel::kExtended;
    case 2:
      return OrtGraphLevel::kNone;
    default:
      throw Invalid("'optimization.graph.level' must be one of [-1, 0, 1, 2] (basic, all, extended, none), got " +
                    std::to_string(level) + " instead");
  }
}

// Triton's older names of TensorRT options; every other key is ONNX Runtime's own.
Options TensorRtOptions(const Options& given) {
  static const Options kRenamed = {
      {"max_workspace_size_bytes", "trt_max_workspace_size"},
      {"int8_calibration_table_name", "trt_int8_calibration_table_name"},
      {"int8_use_native_calibration_table", "trt_int8_use_native_calibration_table"},
  };
  static const Options kPrecisions = {
      {"FP32", ""}, {"FP16", "trt_fp16_enable"}, {"BF16", "trt_bf16_enable"}, {"INT8", "trt_int8_enable"}};
  Options options;
  for (const auto& [key, value] : given) {
    if (key == "precision_mode") {
      const auto precision = kPrecisions.find(value);
      if (precision == kPrecisions.end()) {
        throw Invalid("precision_mode must be FP32, FP16, BF16 or INT8, got '" + value + "' instead");
      }
      if (!precision->second.empty()) options[precision->second] = "1";
    } else {
      const auto renamed = kRenamed.find(key);
      options[renamed != kRenamed.end() ? renamed->second : key] = value;
    }
  }
  return options;
}

// What the parameters of the whole model say of CUDA: the older place of options that `cuda` may have now.
Options DeprecatedCudaOptions(const ModelConfig& config) {
  static const std::map<std::string, Options> kMeanings = {
      {"cudnn_conv_algo_search", {{"0", "EXHAUSTIVE"}, {"1", "HEURISTIC"}, {"2", "DEFAULT"}}},
      {"arena_extend_strategy", {{"0", "kNextPowerOfTwo"}, {"1", "kSameAsRequested"}}},
      {"do_copy_in_default_stream", {}},
      {"gpu_mem_limit", {}},
  };
  Options options;
  for (const auto& [key, meanings] : kMeanings) {
    const std::string value = config.Parameter(key);
    if (value.empty()) continue;
    const auto meaning = meanings.find(value);
    if (meaning == meanings.end() && !meanings.empty()) {
      throw Invalid("parameter '" + key + "' must be 0 to " + std::to_string(meanings.size() - 1) + ", got '" + value +
                    "' instead");
    }
    options[key] = meanings.empty() ? value : meaning->second;
  }
  return options;
}

bool IsBuiltIn(const std::string& provider) {
  char** names = nullptr;
  int count = 0;
  Check(Ort().GetAvailableProviders(&names, &count));
  const bool found = std::find(names, names + count, provider) != names + count;
  Check(Ort().ReleaseAvailableProviders(names, count));
  return found;
}

using Append = void (*)(const Options& given, OrtSessionOptions* options);

void AppendTensorRt(const Options& given, OrtSessionOptions* options) {
  const KeysAndValues pairs(given);
  const auto provider = Make<OrtTensorRtOptions>(Ort().CreateTensorRTProviderOptions);
  Check(Ort().UpdateTensorRTProviderOptions(provider.get(), pairs.keys.data(), pairs.values.data(), pairs.keys.size()));
  Check(Ort().SessionOptionsAppendExecutionProvider_TensorRT_V2(options, provider.get()));
}

void AppendCuda(const Options& given, OrtSessionOptions* options) {
  const KeysAndValues pairs(given);
  const auto provider = Make<OrtCudaOptions>(Ort().CreateCUDAProviderOptions);
  Check(Ort().UpdateCUDAProviderOptions(provider.get(), pairs.keys.data(), pairs.values.data(), pairs.keys.size()));
  Check(Ort().SessionOptionsAppendExecutionProvider_CUDA_V2(options, provider.get()));
}

void AppendOpenVino(const Options& given, OrtSessionOptions* options) {
  const KeysAndValues pairs(given);
  Check(Ort().SessionOptionsAppendExecutionProvider(options, "OpenVINO", pairs.keys.data(), pairs.values.data(),
                                                    pairs.keys.size()));
}

// Appends a provider. Where this ONNX Runtime has none, or cannot open it with no more than the device named (its
// libraries are not on this machine, say), the model goes on without it and the log says why; options that it does not
// take are an error.
void AppendIfUsable(const std::string& provider, Append append, const Options& least, const Options& given,
                    OrtSessionOptions* options) {
  std::string why = "this ONNX Runtime has no " + provider;
  if (IsBuiltIn(provider)) {
    try {
      append(least, Make<OrtSessionOptions>(Ort().CreateSessionOptions).get());
      why.clear();
    } catch (const Error& error) {
      why = provider + " cannot be used here: " + error.what();
    }
  }
  if (why.empty()) {
    append(given, options);
  } else {
    Log(LogLevel::kWarn, why + "; going on without");
  }
}

[[noreturn]] void UnknownAccelerator(const std::string& name, const std::string& valid) {
  throw Invalid("unknown execution accelerator '" + name + "'; here it may be one of [" + valid + "]");
}

// Adds options to others, except those that are left empty.
void Merge(const Options& more, Options* options) {
  for (const auto& [key, value] : more) {
    if (!value.empty()) (*options)[key] = value;
  }
}

void AddGpuProviders(const ModelConfig& config, int device_id, OrtSessionOptions* options) {
  const Options device = {{"device_id", std::to_string(device_id)}};
  Options cuda;
  for (const AcceleratorConfig& accelerator : config.gpu_accelerators) {
    if (accelerator.name == "cuda") {
      Merge(accelerator.parameters, &cuda);
    } else if (accelerator.name == "tensorrt") {
      Options tensorrt;
      Merge(TensorRtOptions(accelerator.parameters), &tensorrt);
      Merge(device, &tensorrt);
      AppendIfUsable("TensorrtExecutionProvider", AppendTensorRt, device, tensorrt, options);
    } else {
      UnknownAccelerator(accelerator.name, "cuda, tensorrt");
    }
  }
  Merge(DeprecatedCudaOptions(config), &cuda);
  Merge(device, &cuda);
  AppendIfUsable("CUDAExecutionProvider", AppendCuda, device, cuda, options);
}

void AddCpuProviders(const ModelConfig& config, OrtSessionOptions* options) {
  for (const AcceleratorConfig& accelerator : config.cpu_accelerators) {
    if (accelerator.name != "openvino") UnknownAccelerator(accelerator.name, "openvino");
    Options openvino;
    Merge(accelerator.parameters, &openvino);
    AppendIfUsable("OpenVINOExecutionProvider", AppendOpenVino, {}, openvino, options);
  }
}

// Whether the shapes of a model vary in more than their batch axis.
bool VariesInShape(const ModelConfig& config) {
  return std::any_of(config.inputs.begin(), config.inputs.end(), [](const TensorConfig& input) {
    return std::find(input.dims.begin(), input.dims.end(), -1) != input.dims.end();
  });
}

OrtPtr<OrtSessionOptions> SessionOptions(const Environment& environment, const ModelConfig& config,
                                         const Placement& placement) {
  auto options = Make<OrtSessionOptions>(Ort().CreateSessionOptions);
  Check(Ort().SetSessionGraphOptimizationLevel(options.get(), GraphLevel(config.graph_level)));
  const int mode = config.IntParameter("execution_mode", 0, 0, 1);
  Check(Ort().SetSessionExecutionMode(options.get(),
                                      mode == 0 ? OrtExecutionMode::kSequential : OrtExecutionMode::kParallel));
  const int intra = config.IntParameter("intra_op_thread_count", 0, 0, kMostThreads);
  const int inter = config.IntParameter("inter_op_thread_count", 0, 0, kMostThreads);
  if (environment.global_threads) {
    Check(Ort().DisablePerSessionThreads(options.get()));
  } else {
    Check(Ort().SetIntraOpNumThreads(options.get(), intra));
    Check(Ort().SetInterOpNumThreads(options.get(), inter));
  }
  // ONNX Runtime keeps a memory pattern for each combination of shapes that it has met, forever: where more than the
  // batch varies, memory would grow with every new one.
  if (!config.BoolParameter("enable_mem_pattern", !VariesInShape(config)))
    Check(Ort().DisableMemPattern(options.get()));
  if (!config.BoolParameter("enable_mem_arena", true)) Check(Ort().DisableCpuMemArena(options.get()));
  constexpr char kDeviceAllocator[] = "session.use_device_allocator_for_initializers";
  const std::string device_allocator = config.Parameter(kDeviceAllocator);
  if (!device_allocator.empty()) {
    Check(Ort().AddSessionConfigEntry(options.get(), kDeviceAllocator, device_allocator.c_str()));
  }
  if (placement.gpu()) AddGpuProviders(config, placement.device_id, options.get());
  AddCpuProviders(config, options.get());
  for (const std::string& library : config.op_libraries) {
    Check(Ort().RegisterCustomOpsLibrary_V2(options.get(), library.c_str()));
  }
  return options;
}

using CountFunction = decltype(OrtFunctions::SessionGetInputCount);
using NameFunction = decltype(OrtFunctions::SessionGetInputName);
using TypeFunction = decltype(OrtFunctions::SessionGetInputTypeInfo);

std::vector<TensorInfo> Tensors(const OrtSession* session, CountFunction count_of, NameFunction name_of,
                                TypeFunction type_of) {
  OrtAllocator* allocator = nullptr;
  Check(Ort().GetAllocatorWithDefaultOptions(&allocator));
  size_t count = 0;
  Check(count_of(session, &count));
  std::vector<TensorInfo> tensors;
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    Check(name_of(session, i, allocator, &name));
    TensorInfo tensor{name, nullptr, true, {}};
    Check(Ort().AllocatorFree(allocator, name));
    const auto type_info = Make<OrtTypeInfo>(type_of, session, i);
    OrtType kind = OrtType::kUnknown;
    Check(Ort().GetOnnxTypeFromTypeInfo(type_info.get(), &kind));
    if (kind == OrtType::kTensor) {
      const OrtTensorTypeAndShapeInfo* info = nullptr;
      Check(Ort().CastTypeInfoToTensorInfo(type_info.get(), &info));
      OrtElement element = OrtElement::kUndefined;
      Check(Ort().GetTensorElementType(info, &element));
      tensor.type = FindDataType(element);
      size_t rank = 0;
      Check(Ort().GetDimensionsCount(info, &rank));
      tensor.dims.resize(rank);
      Check(Ort().GetDimensions(info, tensor.dims.data(), rank));
      // An older ONNX Runtime gives no axes where there is no shape: either may be meant.
      tensor.has_shape = rank > 0 || (Ort().tells_shapes() && Ort().TensorTypeAndShape_HasShape(info));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

Session::Session(const Environment& environment, const ModelConfig& config, const std::string& file,
                 const Placement& placement) {
  const auto options = SessionOptions(environment, config, placement);
  try {
    ort = Make<OrtSession>(Ort().CreateSession, environment.env.get(), file.c_str(), options.get());
  } catch (const Error& error) {
    throw Error(error.code, "ONNX Runtime " + Ort().version + " cannot load " + file + ": " + error.what());
  }
  inputs = Tensors(ort.get(), Ort().SessionGetInputCount, Ort().SessionGetInputName, Ort().SessionGetInputTypeInfo);
  outputs = Tensors(ort.get(), Ort().SessionGetOutputCount, Ort().SessionGetOutputName, Ort().SessionGetOutputTypeInfo);
  initializers = Tensors(ort.get(), Ort().SessionGetOverridableInitializerCount,
                         Ort().SessionGetOverridableInitializerName, Ort().SessionGetOverridableInitializerTypeInfo);
}

std::string TensorInfo::Described() const {
  return type != nullptr ? type->name : "no tensor of a type that Triton has";
}

const TensorInfo* Find(const std::vector<TensorInfo>& tensors, const std::string& name) {
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

}  // namespace tritium
