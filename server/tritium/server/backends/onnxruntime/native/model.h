// A model: its config held against its file, and the session that its instances share.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "session.h"

namespace tritium {

// An input that requests may bring.
struct InputSlot {
  std::string name;
  const DataType* type;
  bool required;  // the model has no default for it
  bool control;   // filled in by the sequence batcher
  bool scalar;    // the model wants no axis where the client has to send one of length 1
};

// An output that requests may ask for, or a state.
struct OutputSlot {
  std::string name;
  const DataType* type;
  Shape dims;         // as the model file declares it, batch axis included; -1 is open
  bool fixed;         // numbers that a run writes, every axis but the batch known before
  Shape scalar_dims;  // what the client sees where the model gives no axis
  bool reshaped;      // by Triton, on its way to the client
  Shape reshape;      // from this shape, batch axis included; -1 is open
  bool state;         // kept by Triton for the sequence
};

// A session, and what requests look like to it. Instances share it; ONNX Runtime's Run may be called at once.
struct LoadedModel {
  LoadedModel(const Environment& environment, const ModelConfig& config, const std::string& file,
              const Placement& placement);

  Session session;
  std::vector<InputSlot> inputs;
  std::vector<OutputSlot> outputs;
};

class Model {
 public:
  // Reads the config, and completes it where Triton asks for that. Throws Error.
  Model(TRITONBACKEND_Model* model, const Environment& environment);

  const ModelConfig& config() const { return config_; }

  // The model, loaded for that placement: a session that another instance has opened already, unless the parameter
  // share_session_between_instances says false. Throws Error.
  std::shared_ptr<const LoadedModel> Load(const Placement& placement);

 private:
  std::string File() const;

  const Environment& environment_;
  std::string folder_;
  ModelConfig config_;
  std::mutex mutex_;
  std::map<std::pair<InstanceKind, int>, std::weak_ptr<const LoadedModel>> loaded_;
};

}  // namespace tritium
