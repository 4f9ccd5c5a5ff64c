#include "config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>

namespace tritium {

namespace {

const Json kNothing;
const std::vector<Json> kNoItems;

const Json& Member(const Json& json, std::string_view key) {
  const Json* member = json.Find(key);
  return member != nullptr ? *member : kNothing;
}

const std::vector<Json>& Items(const Json& json, std::string_view key) {
  const Json* member = json.Find(key);
  if (member == nullptr || member->kind() == Json::Kind::kNull) return kNoItems;
  if (member->kind() != Json::Kind::kArray) throw Invalid("the config's '" + std::string(key) + "' must be a list");
  return member->items();
}

std::string Text(const Json& json, std::string_view key, const std::string& fallback = "") {
  const Json* member = json.Find(key);
  return member != nullptr ? member->AsString(key) : fallback;
}

bool Flag(const Json& json, std::string_view key) {
  const Json* member = json.Find(key);
  return member != nullptr && member->AsBool(key);
}

Shape Dims(const Json& json, std::string_view key) {
  Shape dims;
  for (const Json& dim : Items(json, key)) dims.push_back(dim.AsInt(key));
  return dims;
}

const DataType* Type(const Json& json, const std::string& tensor) {
  const std::string name = Text(json, "data_type");
  if (const DataType* type = FindDataType(name)) return type;
  throw Invalid("the config's data_type of '" + tensor + "' must be one that ONNX has too, got '" + name + "' instead");
}

std::vector<TensorConfig> Tensors(const Json& json, std::string_view key) {
  std::vector<TensorConfig> tensors;
  for (const Json& item : Items(json, key)) {
    TensorConfig tensor;
    tensor.name = Text(item, "name");
    if (tensor.name.empty()) throw Invalid("each of the config's '" + std::string(key) + "' must have a name");
    for (const TensorConfig& other : tensors) {
      if (other.name == tensor.name) throw Invalid("the config names '" + tensor.name + "' twice");
    }
    tensor.type = Type(item, tensor.name);
    const Json* reshape = item.Find("reshape");
    tensor.reshaped = reshape != nullptr;
    tensor.dims = reshape != nullptr ? Dims(*reshape, "shape") : Dims(item, "dims");
    tensor.optional = Flag(item, "optional");
    if (Flag(item, "allow_ragged_batch")) {
      throw Error(ErrorCode::kUnsupported,
                  "input '" + tensor.name + "' says allow_ragged_batch, which this backend does not have");
    }
    if (Flag(item, "is_shape_tensor")) {
      throw Invalid("'" + tensor.name + "' says is_shape_tensor, which ONNX models do not have");
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// The type of a sequence control: that of its values for false and true, or the one that it names. Where one input is
// several controls, Triton wants them to be alike.
const DataType* ControlType(const Json& input, const std::string& name) {
  static constexpr std::pair<const char*, const char*> kValues[] = {
      {"int32_false_true", "TYPE_INT32"}, {"fp32_false_true", "TYPE_FP32"}, {"bool_false_true", "TYPE_BOOL"}};
  const std::vector<Json>& controls = Items(input, "control");
  if (controls.empty()) throw Invalid("sequence control '" + name + "' says nothing of what it is");
  for (const auto& [values, type] : kValues) {
    if (!Items(controls.front(), values).empty()) return FindDataType(type);
  }
  return Type(controls.front(), name);
}

std::vector<AcceleratorConfig> Accelerators(const Json& json, std::string_view key) {
  std::vector<AcceleratorConfig> accelerators;
  for (const Json& item : Items(json, key)) {
    AcceleratorConfig accelerator;
    accelerator.name = Text(item, "name");
    for (const auto& [name, value] : Member(item, "parameters").members())
      accelerator.parameters[name] = value.AsString(name);
    accelerators.push_back(std::move(accelerator));
  }
  return accelerators;
}

}  // namespace

ModelConfig::ModelConfig(Json document) : json(std::move(document)) {
  if (json.kind() != Json::Kind::kObject) throw Invalid("the config must be a JSON object");
  if (const Json* size = json.Find("max_batch_size")) max_batch_size = size->AsInt("max_batch_size");
  if (max_batch_size < 0) throw Invalid("max_batch_size must be at least 0");
  model_file = Text(json, "default_model_filename");
  inputs = Tensors(json, "input");
  outputs = Tensors(json, "output");
  for (const char* key : {"batch_input", "batch_output"}) {
    if (!Items(json, key).empty()) {
      throw Error(ErrorCode::kUnsupported,
                  std::string("the config has a ") + key + ", which this backend does not have");
    }
  }
  const Json& sequences = Member(json, "sequence_batching");
  for (const Json& item : Items(sequences, "control_input")) {
    const std::string name = Text(item, "name");
    controls.push_back({name, ControlType(item, name)});
  }
  for (const Json& item : Items(sequences, "state")) {
    StateConfig state{Text(item, "input_name"), Text(item, "output_name"), nullptr};
    state.type = Type(item, state.input);
    states.push_back(std::move(state));
  }
  const Json& optimization = Member(json, "optimization");
  if (const Json* level = Member(optimization, "graph").Find("level"))
    graph_level = level->AsInt("optimization.graph.level");
  const Json& accelerators = Member(optimization, "execution_accelerators");
  gpu_accelerators = Accelerators(accelerators, "gpu_execution_accelerator");
  cpu_accelerators = Accelerators(accelerators, "cpu_execution_accelerator");
  for (const Json& library : Items(Member(json, "model_operations"), "op_library_filename")) {
    op_libraries.push_back(library.AsString("op_library_filename"));
  }
}

std::string ModelConfig::Parameter(const std::string& key, const std::string& fallback) const {
  const Json* parameter = Member(json, "parameters").Find(key);
  return parameter != nullptr ? Text(*parameter, "string_value") : fallback;
}

int ModelConfig::IntParameter(const std::string& key, int fallback, int least, int most) const {
  return ParseInt(Parameter(key, std::to_string(fallback)), "parameter '" + key + "'", least, most);
}

bool ModelConfig::BoolParameter(const std::string& key, bool fallback) const {
  return ParseBool(Parameter(key, fallback ? "true" : "false"), "parameter '" + key + "'");
}

std::vector<std::string> ModelConfig::WithoutEffect() const {
  static const std::set<std::string, std::less<>> kKnown = {
      "intra_op_thread_count",
      "inter_op_thread_count",
      "execution_mode",
      "enable_mem_arena",
      "enable_mem_pattern",
      "share_session_between_instances",
      "session.use_device_allocator_for_initializers",
      "memory.enable_memory_arena_shrinkage",
      "cudnn_conv_algo_search",
      "gpu_mem_limit",
      "arena_extend_strategy",
      "do_copy_in_default_stream",
  };
  std::vector<std::string> others;
  for (const auto& [key, value] : Member(json, "parameters").members()) {
    if (kKnown.find(key) == kKnown.end()) others.push_back("parameter '" + key + "'");
  }
  if (!Member(json, "cc_model_filenames").members().empty()) others.push_back("cc_model_filenames");
  return others;
}

int ParseInt(const std::string& text, const std::string& what, int least, int most) {
  int value = 0;
  const auto [stop, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status == std::errc() && stop == text.data() + text.size() && value >= least && value <= most) return value;
  throw Invalid(what + " must be a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                ", got '" + text + "' instead");
}

bool ParseBool(const std::string& text, const std::string& what) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower == "true" || lower == "1") return true;
  if (lower == "false" || lower == "0") return false;
  throw Invalid(what + " must be true, false, 1 or 0, got '" + text + "' instead");
}

}  // namespace tritium
