#include "model.h"

#include <sys/stat.h>

#include <algorithm>

namespace tritium {

namespace {

Json ConfigJson(TRITONBACKEND_Model* model) {
  TRITONSERVER_Message* message = nullptr;
  Check(TRITONBACKEND_ModelConfig(model, kConfigVersion, &message));
  const std::unique_ptr<TRITONSERVER_Message, void (*)(TRITONSERVER_Message*)> owner(
      message, [](TRITONSERVER_Message* m) { Report(TRITONSERVER_MessageDelete(m), "a config could not be freed"); });
  const char* text = nullptr;
  size_t bytes = 0;
  Check(TRITONSERVER_MessageSerializeToJson(message, &text, &bytes));
  return Json::Parse({text, bytes});
}

void SetConfigJson(TRITONBACKEND_Model* model, const Json& json) {
  const std::string text = json.Dump();
  TRITONSERVER_Message* message = nullptr;
  Check(TRITONSERVER_MessageNewFromSerializedJson(&message, text.data(), text.size()));
  TRITONSERVER_Error* error = TRITONBACKEND_ModelSetConfig(model, kConfigVersion, message);
  Report(TRITONSERVER_MessageDelete(message), "a config could not be freed");
  Check(error);
}

std::string VersionFolder(TRITONBACKEND_Model* model) {
  int kind = 0;
  const char* location = nullptr;
  Check(TRITONBACKEND_ModelRepository(model, &kind, &location));
  if (kind != kArtifactFilesystem) throw Error(ErrorCode::kUnsupported, "the model repository must be a folder");
  uint64_t version = 0;
  Check(TRITONBACKEND_ModelVersion(model, &version));
  return std::string(location) + "/" + std::to_string(version);
}

std::string ModelName(TRITONBACKEND_Model* model) {
  const char* name = nullptr;
  Check(TRITONBACKEND_ModelName(model, &name));
  return name;
}

bool OpenFirstAxis(const std::vector<TensorInfo>& tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [](const TensorInfo& tensor) { return !tensor.dims.empty() && tensor.dims[0] == -1; });
}

// What a config declares of these tensors, in Triton's JSON.
Json Declared(const std::vector<TensorInfo>& tensors, bool batched) {
  Json list = Json::Array();
  for (const TensorInfo& tensor : tensors) {
    if (tensor.type == nullptr) {
      throw Error(ErrorCode::kUnsupported,
                  "'" + tensor.name + "' is no tensor of a type that Triton has, so the config cannot be completed");
    }
    Json dims = Json::Array();
    // Triton has no axis of length 0 in a config.
    for (size_t axis = batched; axis < tensor.dims.size(); ++axis)
      dims.Append(Json::Number(tensor.dims[axis] == 0 ? -1 : tensor.dims[axis]));
    Json item = Json::Object();
    item.Set("name", Json::String(tensor.name));
    item.Set("data_type", Json::String(tensor.type->name));
    if (dims.items().empty()) {
      dims.Append(Json::Number(1));
      // Outside a batch Triton refuses the empty shape, and the axis is taken away here.
      if (batched) {
        Json reshape = Json::Object();
        reshape.Set("shape", Json::Array());
        item.Set("reshape", std::move(reshape));
      }
    }
    item.Set("dims", std::move(dims));
    list.Append(std::move(item));
  }
  return list;
}

// The config with inputs, outputs and batching filled in from the model file, by the rules of Triton's own backend.
Json Completed(const ModelConfig& config, const Session& session, int default_max_batch_size) {
  Json json = config.json;
  const bool can_batch = OpenFirstAxis(session.inputs) && OpenFirstAxis(session.outputs);
  int64_t max_batch_size = config.max_batch_size;
  if (can_batch && max_batch_size == 0) {
    max_batch_size = default_max_batch_size;
    json.Set("max_batch_size", Json::Number(max_batch_size));
  }
  if (!can_batch && max_batch_size > 0) {
    throw Invalid("max_batch_size is " + std::to_string(max_batch_size) +
                  ", but the first axis of some input or output is not open: it must be 0");
  }
  if (max_batch_size > 1 && json.Find("dynamic_batching") == nullptr && json.Find("sequence_batching") == nullptr) {
    json.Set("dynamic_batching", Json::Object());
  }
  if (config.inputs.empty()) json.Set("input", Declared(session.inputs, max_batch_size > 0));
  if (config.outputs.empty()) json.Set("output", Declared(session.outputs, max_batch_size > 0));
  return json;
}

std::string Names(const std::vector<TensorInfo>& tensors) {
  std::string names;
  for (const TensorInfo& tensor : tensors) names += (names.empty() ? "'" : ", '") + tensor.name + "'";
  return "[" + names + "]";
}

void CheckType(const char* kind, const std::string& name, const TensorInfo& tensor, const DataType* declared) {
  if (tensor.type == declared) return;
  throw Invalid(std::string(kind) + " '" + name + "' is " + tensor.Described() + " in the model and " + declared->name +
                " in the config");
}

Shape WithBatch(Shape dims, const ModelConfig& config) {
  if (config.batched()) dims.insert(dims.begin(), -1);
  return dims;
}

// Holds a declared tensor against the model's. An input must not be more open than the model; an output may be, save
// in its first axis.
void CheckDeclared(bool output, const TensorConfig& declared, const TensorInfo& tensor, const ModelConfig& config) {
  const char* kind = output ? "output" : "input";
  CheckType(kind, declared.name, tensor, declared.type);
  if (!tensor.has_shape) return;
  const Shape dims = WithBatch(declared.dims, config);
  bool fits = dims.size() == tensor.dims.size();
  for (size_t axis = 0; fits && axis < dims.size(); ++axis) {
    const int64_t want = dims[axis], have = tensor.dims[axis];
    // A config cannot say 0, so -1 stands for it.
    fits = have == -1 || want == have || (want == -1 && (have == 0 || (output && axis > 0)));
  }
  if (!config.batched() && tensor.dims.empty())
    fits = std::all_of(dims.begin(), dims.end(), [](int64_t dim) { return dim == 1; });
  if (fits) return;
  throw Invalid(std::string(kind) + " '" + declared.name + "' has shape " + ToString(tensor.dims) +
                " in the model and " + ToString(dims) + " in the config" +
                (config.batched() ? " (its first axis is the batch, because max_batch_size is above 0)" : ""));
}

const TensorInfo& FindOrRefuse(const char* kind, const std::string& name, const std::vector<TensorInfo>& tensors,
                               const std::vector<TensorInfo>* more = nullptr) {
  const TensorInfo* tensor = Find(tensors, name);
  if (tensor == nullptr && more != nullptr) tensor = Find(*more, name);
  if (tensor == nullptr) {
    throw Invalid(std::string("the config's ") + kind + " '" + name + "' is not in the model; it has " +
                  Names(tensors));
  }
  if (tensor->type == nullptr) {
    throw Error(ErrorCode::kUnsupported, std::string(kind) + " '" + name + "' is no tensor of a type that Triton has");
  }
  return *tensor;
}

std::vector<InputSlot> InputSlots(const ModelConfig& config, const Session& session) {
  std::vector<InputSlot> slots;
  const auto named = [&](const std::string& name) {
    return std::any_of(slots.begin(), slots.end(), [&](const InputSlot& slot) { return slot.name == name; });
  };
  const auto add = [&](const TensorInfo& tensor, bool control = false) {
    if (named(tensor.name)) throw Invalid("the config names '" + tensor.name + "' twice among what the model takes");
    const bool required = Find(session.inputs, tensor.name) != nullptr;
    const bool scalar = !config.batched() && tensor.dims.empty() && (tensor.has_shape || !Ort().tells_shapes());
    slots.push_back({tensor.name, tensor.type, required, control, scalar});
  };
  for (const TensorConfig& declared : config.inputs) {
    const TensorInfo& tensor = FindOrRefuse("input", declared.name, session.inputs, &session.initializers);
    CheckDeclared(false, declared, tensor, config);
    if (declared.optional && config.batched()) {
      throw Invalid("input '" + declared.name + "' must not be optional where max_batch_size is above 0");
    }
    if (declared.optional && Find(session.inputs, declared.name) != nullptr) {
      throw Invalid("input '" + declared.name + "' is optional in the config, but the model has no default for it");
    }
    add(tensor);
  }
  for (const ControlConfig& control : config.controls) {
    const TensorInfo& tensor = FindOrRefuse("sequence control", control.name, session.inputs);
    CheckType("sequence control", control.name, tensor, control.type);
    const size_t batch = config.batched() ? 1 : 0;
    if (tensor.has_shape &&
        (tensor.dims.size() != batch + 1 || (tensor.dims[batch] != 1 && tensor.dims[batch] != -1))) {
      throw Invalid("sequence control '" + control.name + "' must be one value for each row, and has shape " +
                    ToString(tensor.dims) + " in the model");
    }
    add(tensor, true);
  }
  for (const StateConfig& state : config.states) {
    const TensorInfo& tensor = FindOrRefuse("state input", state.input, session.inputs);
    CheckType("state input", state.input, tensor, state.type);
    add(tensor);
  }
  for (const TensorInfo& tensor : session.inputs) {
    if (!named(tensor.name))
      throw Invalid("the model needs an input '" + tensor.name + "' that the config does not declare");
  }
  return slots;
}

std::vector<OutputSlot> OutputSlots(const ModelConfig& config, const Session& session) {
  std::vector<OutputSlot> slots;
  const auto add = [&](const TensorInfo& tensor) -> OutputSlot& {
    const auto first = tensor.dims.begin() + (config.batched() && !tensor.dims.empty());
    // An output that is an input is the input's own value: ONNX Runtime does not write it anywhere.
    const bool passed_on =
        Find(session.inputs, tensor.name) != nullptr || Find(session.initializers, tensor.name) != nullptr;
    const bool fixed = tensor.has_shape && !tensor.type->is_string() && !passed_on &&
                       std::none_of(first, tensor.dims.end(), [](int64_t dim) { return dim < 0; });
    slots.push_back({tensor.name, tensor.type, tensor.dims, fixed, {1}, false, {}, false});
    return slots.back();
  };
  for (const TensorConfig& declared : config.outputs) {
    const TensorInfo& tensor = FindOrRefuse("output", declared.name, session.outputs);
    CheckDeclared(true, declared, tensor, config);
    OutputSlot& slot = add(tensor);
    const bool ones = std::all_of(declared.dims.begin(), declared.dims.end(), [](int64_t dim) { return dim == 1; });
    if (ones && !declared.dims.empty()) slot.scalar_dims = declared.dims;
    slot.reshaped = declared.reshaped;
    slot.reshape = WithBatch(declared.dims, config);
  }
  for (const StateConfig& state : config.states) {
    const TensorInfo& tensor = FindOrRefuse("state output", state.output, session.outputs);
    CheckType("state output", state.output, tensor, state.type);
    const auto declared =
        std::find_if(slots.begin(), slots.end(), [&](const OutputSlot& slot) { return slot.name == state.output; });
    (declared != slots.end() ? *declared : add(tensor)).state = true;
  }
  return slots;
}

}  // namespace

LoadedModel::LoadedModel(const Environment& environment, const ModelConfig& config, const std::string& file,
                         const Placement& placement)
    : session(environment, config, file, placement),
      inputs(InputSlots(config, session)),
      outputs(OutputSlots(config, session)) {}

Model::Model(TRITONBACKEND_Model* model, const Environment& environment)
    : environment_(environment),
      folder_(VersionFolder(model)),
      config_(ConfigJson(model)) {
  bool complete = false;
  Check(TRITONBACKEND_ModelAutoCompleteConfig(model, &complete));
  if (complete && (config_.inputs.empty() || config_.outputs.empty())) {
    const Session session(environment_, config_, File(), Placement());
    const Json json = Completed(config_, session, environment_.default_max_batch_size);
    SetConfigJson(model, json);
    config_ = ModelConfig(json);
  }
  // What is ignored must not be so in silence.
  for (const std::string& other : config_.WithoutEffect()) {
    Log(LogLevel::kWarn, ModelName(model) + ": " + other + " has no effect in this backend");
  }
}

std::shared_ptr<const LoadedModel> Model::Load(const Placement& placement) {
  const auto load = [&] { return std::make_shared<const LoadedModel>(environment_, config_, File(), placement); };
  if (!config_.BoolParameter("share_session_between_instances", true)) return load();
  // Held while the file is read, so that instances of one device do not read it twice.
  const std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<const LoadedModel>& slot = loaded_[{placement.kind, placement.device_id}];
  std::shared_ptr<const LoadedModel> loaded = slot.lock();
  if (loaded == nullptr) slot = loaded = load();
  return loaded;
}

std::string Model::File() const {
  const std::string name = config_.model_file.empty() ? "model.onnx" : config_.model_file;
  if (name.find('\0') != name.npos || ("/" + name + "/").find("/../") != name.npos) {
    throw Invalid("default_model_filename must stay in the version's folder, got '" + name + "' instead");
  }
  std::string file = folder_ + "/" + name;
  struct stat about;
  // A folder of that name holds the model together with its external data.
  if (stat(file.c_str(), &about) == 0 && S_ISDIR(about.st_mode)) file += "/model.onnx";
  if (stat(file.c_str(), &about) != 0 || !S_ISREG(about.st_mode))
    throw Error(ErrorCode::kUnavailable, "there is no " + file);
  return file;
}

}  // namespace tritium
