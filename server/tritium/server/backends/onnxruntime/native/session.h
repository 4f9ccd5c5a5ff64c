// An ONNX Runtime session: opened as the config says, with what the model file declares.
#pragma once

#include <string>
#include <vector>

#include "config.h"
#include "ort_api.h"

namespace tritium {

// A tensor of the model file.
struct TensorInfo {
  std::string name;
  const DataType* type;  // nullptr: no tensor, or of an element type that Triton has not
  bool has_shape;        // false: the file leaves even the number of axes open
  Shape dims;            // -1 is open

  // The type's name, for messages.
  std::string Described() const;
};

// Where a session computes.
struct Placement {
  InstanceKind kind = InstanceKind::kCpu;
  int device_id = 0;

  bool gpu() const { return kind == InstanceKind::kGpu; }
};

// What all models share.
struct Environment {
  OrtPtr<OrtEnv> env;
  bool global_threads = false;
  // For models whose config says nothing of batching.
  int default_max_batch_size = 0;
};

struct Session {
  // Opens the model file. Throws Error.
  Session(const Environment& environment, const ModelConfig& config, const std::string& file,
          const Placement& placement);

  OrtPtr<OrtSession> ort;
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  std::vector<TensorInfo> initializers;  // inputs with a default
};

// The tensor of that name; nullptr if there is none.
const TensorInfo* Find(const std::vector<TensorInfo>& tensors, const std::string& name);

}  // namespace tritium
