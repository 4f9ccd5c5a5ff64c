// A model's config.pbtxt, as far as this backend acts on it; the rest is Triton's own.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data_type.h"
#include "json.h"

namespace tritium {

// An input or an output, as the config declares it.
struct TensorConfig {
  std::string name;
  const DataType* type;
  Shape dims;  // as the model sees them (the reshape, where there is one), without the batch axis; -1 is open
  bool reshaped = false;
  bool optional = false;
};

// An input that the sequence batcher fills in.
struct ControlConfig {
  std::string name;
  const DataType* type;
};

// A tensor that Triton keeps for a sequence between its requests.
struct StateConfig {
  std::string input;
  std::string output;
  const DataType* type;
};

struct AcceleratorConfig {
  std::string name;
  std::map<std::string, std::string> parameters;
};

class ModelConfig {
 public:
  // Throws Error where something is missing, of the wrong kind, or unknown.
  explicit ModelConfig(Json json);

  bool batched() const { return max_batch_size > 0; }

  // A value of `parameters`; the fallback if there is none. Throws Error where it is not of that kind.
  std::string Parameter(const std::string& key, const std::string& fallback = "") const;
  int IntParameter(const std::string& key, int fallback, int least, int most) const;
  bool BoolParameter(const std::string& key, bool fallback) const;
  // What of the config has no effect here, in words.
  std::vector<std::string> WithoutEffect() const;

  Json json;
  int64_t max_batch_size = 0;
  std::string model_file;  // empty: the default
  std::vector<TensorConfig> inputs;
  std::vector<TensorConfig> outputs;
  std::vector<ControlConfig> controls;
  std::vector<StateConfig> states;
  int64_t graph_level = 0;
  std::vector<AcceleratorConfig> gpu_accelerators;
  std::vector<AcceleratorConfig> cpu_accelerators;
  std::vector<std::string> op_libraries;
};

// A whole number in a text; throws Error, naming `what`, if it is none or out of the range.
int ParseInt(const std::string& text, const std::string& what, int least, int most);

// true, false, 1 or 0 in a text, in any case; throws Error, naming `what`, otherwise.
bool ParseBool(const std::string& text, const std::string& what);

}  // namespace tritium
