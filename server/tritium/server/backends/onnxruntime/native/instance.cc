#include "instance.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace tritium {

namespace {

constexpr size_t kAlignment = 64;
constexpr char kShrinkage[] = "memory.enable_memory_arena_shrinkage";
// Where an empty tensor is said to lie.
alignas(kAlignment) char nowhere[kAlignment];

uint64_t Now() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

// Kernels may count on an element being aligned, and vectorised loops do; a request's bytes lie anywhere.
bool Aligned(const void* address, const DataType& type) {
  return reinterpret_cast<uintptr_t>(address) % type.bytes == 0;
}

std::string InstanceName(TRITONBACKEND_ModelInstance* instance) {
  const char* name = nullptr;
  Check(TRITONBACKEND_ModelInstanceName(instance, &name));
  return name;
}

Placement PlacementOf(TRITONBACKEND_ModelInstance* instance) {
  Placement placement;
  Check(TRITONBACKEND_ModelInstanceKind(instance, &placement.kind));
  Check(TRITONBACKEND_ModelInstanceDeviceId(instance, &placement.device_id));
  // Everything that is no GPU computes on the CPU, and can share one session.
  return placement.gpu() ? placement : Placement();
}

// Whose arenas shrink after each run, as in "cpu:0;gpu:0". ONNX Runtime would look at it in each run only.
std::string Shrinkage(const ModelConfig& config) {
  const std::string devices = config.Parameter(kShrinkage);
  std::istringstream list(devices);
  for (std::string device; std::getline(list, device, ';');) {
    const std::string kind = device.substr(0, 4);
    if (kind != "cpu:" && kind != "gpu:") {
      throw Invalid("parameter '" + std::string(kShrinkage) + "' must be a list such as cpu:0;gpu:0, got '" + devices +
                    "' instead");
    }
    ParseInt(device.substr(4), "the device in parameter '" + std::string(kShrinkage) + "'", 0,
             kind == "cpu:" ? 0 : 1023);
  }
  if (devices.find("cpu") != devices.npos && !config.BoolParameter("enable_mem_arena", true)) {
    throw Invalid("parameter '" + std::string(kShrinkage) +
                  "' names the CPU's arena, which enable_mem_arena turns off");
  }
  return devices;
}

// A tensor over memory that is somebody else's.
OrtPtr<OrtValue> TensorAt(char* data, size_t bytes, const Shape& shape, const DataType& type,
                          const OrtMemoryInfo* memory) {
  return Make<OrtValue>(Ort().CreateTensorWithDataAsOrtValue, memory, static_cast<void*>(data), bytes, shape.data(),
                        shape.size(), type.ort);
}

// Whether kernels count and index by numbers of this type. They look more than once, and in shared memory a client
// could change what lies there in between, so such inputs are copied.
bool Decides(const DataType& type) {
  return type.triton == TritonType::kBool || type.triton == TritonType::kInt32 || type.triton == TritonType::kInt64;
}

// A buffer of a request, which must be in the host's memory.
const char* HostBuffer(TRITONBACKEND_Input* input, uint32_t index, uint64_t* bytes) {
  const void* buffer = nullptr;
  MemoryType memory = MemoryType::kCpu;
  int64_t memory_id = 0;
  Check(TRITONBACKEND_InputBuffer(input, index, &buffer, bytes, &memory, &memory_id));
  if (memory == MemoryType::kGpu)
    throw Error(ErrorCode::kUnsupported, "an input lies in GPU memory: send it from the host's");
  return static_cast<const char*>(buffer);
}

// Copies the pieces of an input together. Throws Error unless they are `bytes` in all.
void Gather(TRITONBACKEND_Input* input, uint32_t buffer_count, char* out, uint64_t bytes) {
  uint64_t copied = 0;
  for (uint32_t i = 0; i < buffer_count; ++i) {
    uint64_t piece_bytes = 0;
    const char* piece = HostBuffer(input, i, &piece_bytes);
    if (piece_bytes > bytes - copied) throw Invalid("an input has more bytes than its shape");
    if (piece_bytes > 0) std::memcpy(out + copied, piece, piece_bytes);
    copied += piece_bytes;
  }
  if (copied != bytes) throw Invalid("an input has fewer bytes than its shape");
}

// Space in a response for an output; nullptr if the client wants it where the CPU cannot write.
char* OutputSpace(TRITONBACKEND_Response* response, const OutputSlot& slot, const Shape& shape, size_t bytes) {
  TRITONBACKEND_Output* output = nullptr;
  Check(TRITONBACKEND_ResponseOutput(response, &output, slot.name.c_str(), slot.type->triton, shape.data(),
                                     static_cast<uint32_t>(shape.size())));
  void* space = nullptr;
  MemoryType memory = MemoryType::kCpu;
  int64_t memory_id = 0;
  Check(TRITONBACKEND_OutputBuffer(output, &space, bytes, &memory, &memory_id));
  if (memory == MemoryType::kGpu)
    throw Error(ErrorCode::kUnsupported,
                "output '" + slot.name + "' is wanted in GPU memory: ask for it in the host's");
  return static_cast<char*>(space);
}

// Space for what the next request of this sequence gets, once the state is updated.
char* StateSpace(TRITONBACKEND_Request* request, const OutputSlot& slot, const Shape& shape, size_t bytes,
                 TRITONBACKEND_State** state) {
  Check(TRITONBACKEND_StateNew(state, request, slot.name.c_str(), slot.type->triton, shape.data(),
                               static_cast<uint32_t>(shape.size())));
  void* space = nullptr;
  MemoryType memory = MemoryType::kCpu;
  int64_t memory_id = 0;
  Check(TRITONBACKEND_StateBuffer(*state, &space, bytes, &memory, &memory_id));
  if (memory == MemoryType::kGpu)
    throw Error(ErrorCode::kUnsupported, "the state '" + slot.name + "' is kept in GPU memory");
  return static_cast<char*>(space);
}

}  // namespace

char* Buffer::Reserve(size_t bytes) {
  if (bytes > size_ || memory_ == nullptr) {
    const size_t size = (std::max(bytes, kAlignment) + kAlignment - 1) / kAlignment * kAlignment;
    memory_.reset();
    size_ = 0;
    memory_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, size)));
    if (memory_ == nullptr) throw std::bad_alloc();
    size_ = size;
  }
  return memory_.get();
}

void Buffer::Free::operator()(char* memory) const { std::free(memory); }

Instance::Instance(TRITONBACKEND_ModelInstance* instance, Model* model)
    : instance_(instance),
      name_(InstanceName(instance)),
      max_rows_(model->config().max_batch_size),
      batched_(model->config().batched()),
      loaded_(model->Load(PlacementOf(instance))),
      run_options_(Make<OrtRunOptions>(Ort().CreateRunOptions)),
      cpu_(Make<OrtMemoryInfo>(Ort().CreateCpuMemoryInfo, kOrtDeviceAllocator, kOrtDefaultMemory)),
      buffers_(loaded_->inputs.size()) {
  Check(Ort().GetAllocatorWithDefaultOptions(&allocator_));
  const std::string shrinkage = Shrinkage(model->config());
  if (!shrinkage.empty()) Check(Ort().AddRunConfigEntry(run_options_.get(), kShrinkage, shrinkage.c_str()));
  for (size_t slot = 0; slot < loaded_->inputs.size(); ++slot) input_slots_[loaded_->inputs[slot].name] = slot;
  for (size_t slot = 0; slot < loaded_->outputs.size(); ++slot) {
    const OutputSlot& output = loaded_->outputs[slot];
    output_slots_[output.name] = slot;
  }
  results_.resize(loaded_->outputs.size());
  strings_.resize(loaded_->outputs.size());
  // From a GPU ONNX Runtime copies by the number of elements, and would not see another shape.
  const Declaration known = PlacementOf(instance).gpu() ? Declaration::kBroken : Declaration::kUnseen;
  declarations_.resize(loaded_->outputs.size(), known);
  alone_.resize(1);
}

Instance::~Instance() {
  Log(LogLevel::kInfo, name_ + " answered " + std::to_string(requests_) + " requests in " + std::to_string(runs_) +
                           " runs; " + std::to_string(refused_) + " got an error");
}

void Instance::Execute(TRITONBACKEND_Request** requests, uint32_t count) {
  const size_t inputs = loaded_->inputs.size(), outputs = loaded_->outputs.size();
  // All memory that the bookkeeping needs is taken before anything is promised.
  jobs_.assign(count, Job());
  parts_.assign(count * inputs, Part());
  wanted_.assign(count * outputs, 0);
  for (Group* group : {&pending_, &group_, &rest_}) {
    group->clear();
    group->reserve(count);
  }
  const uint64_t start = Now();
  const Times unread{start, start, start};
  for (uint32_t i = 0; i < count; ++i) {
    Job& job = jobs_[i];
    job.request = requests[i];
    job.parts = parts_.data() + i * inputs;
    job.wanted = wanted_.data() + i * outputs;
    job.error = Guarded([&] { Read(&job); });
    if (job.error != nullptr) {
      Finish(&job, unread);
    } else {
      pending_.push_back(&job);
    }
  }
  while (!pending_.empty()) {
    group_.clear();
    rest_.clear();
    for (Job* job : pending_) (group_.empty() || Fit(*group_.front(), *job) ? group_ : rest_).push_back(job);
    pending_.swap(rest_);
    Answer(group_, start);
  }
}

// Reads and checks what a request says of itself. What its tensors hold is looked at when it runs.
void Instance::Read(Job* job) {
  bool cancelled = false;
  Check(TRITONBACKEND_RequestIsCancelled(job->request, &cancelled));
  if (cancelled) throw Error(ErrorCode::kCancelled, "the request was cancelled");
  uint32_t count = 0;
  Check(TRITONBACKEND_RequestInputCount(job->request, &count));
  for (uint32_t i = 0; i < count; ++i) ReadInput(i, job);
  bool first = true;
  for (size_t slot = 0; slot < loaded_->inputs.size(); ++slot) {
    const Part& part = job->parts[slot];
    if (part.input == nullptr && loaded_->inputs[slot].required) {
      throw Invalid("input '" + loaded_->inputs[slot].name + "' is missing");
    }
    if (part.input == nullptr || !batched_) continue;
    if (part.rank == 0) throw Invalid("input '" + loaded_->inputs[slot].name + "' has no batch axis");
    if (!first && part.shape[0] != job->rows)
      throw Invalid("the inputs of a request must have the same number of rows");
    // Triton looks at 32 bits of this.
    if (part.shape[0] > max_rows_)
      throw Invalid("a request must not have more than " + std::to_string(max_rows_) + " rows");
    job->rows = part.shape[0];
    first = false;
  }
  Check(TRITONBACKEND_RequestOutputCount(job->request, &count));
  for (uint32_t i = 0; i < count; ++i) {
    const char* name = nullptr;
    Check(TRITONBACKEND_RequestOutputName(job->request, i, &name));
    const auto slot = output_slots_.find(std::string_view(name));
    if (slot == output_slots_.end()) throw Invalid("the model has no output '" + std::string(name) + "'");
    job->wanted[slot->second] = 1;
  }
}

void Instance::ReadInput(uint32_t index, Job* job) {
  Part part;
  const char* name = nullptr;
  TritonType type = TritonType::kInvalid;
  Check(TRITONBACKEND_RequestInputByIndex(job->request, index, &part.input));
  Check(TRITONBACKEND_InputProperties(part.input, &name, &type, &part.shape, &part.rank, &part.bytes,
                                      &part.buffer_count));
  const auto slot = input_slots_.find(std::string_view(name));
  if (slot == input_slots_.end()) throw Invalid("the model has no input '" + std::string(name) + "'");
  const InputSlot& input = loaded_->inputs[slot->second];
  if (type != input.type->triton) throw Invalid("input '" + input.name + "' must be " + input.type->name);
  // Each string has a length, so a shape cannot ask for more memory than the request has brought.
  const bool fits = input.type->is_string()
                        ? static_cast<uint64_t>(ElementCount(part.shape, part.rank)) <= part.bytes / sizeof(uint32_t)
                        : ByteCount(part.shape, part.rank, *input.type) == part.bytes;
  if (!fits) {
    throw Invalid("input '" + input.name + "' has " + std::to_string(part.bytes) + " bytes, which cannot be a " +
                  input.type->name + " of shape " + ToString(part.shape, part.rank));
  }
  job->parts[slot->second] = part;
}

// Whether two requests can be rows of one batch.
bool Instance::Fit(const Job& a, const Job& b) const {
  if (!batched_) return false;
  for (size_t slot = 0; slot < loaded_->inputs.size(); ++slot) {
    const Part &one = a.parts[slot], &other = b.parts[slot];
    if ((one.input == nullptr) != (other.input == nullptr) || one.rank != other.rank) return false;
    if (one.input != nullptr && !std::equal(one.shape + 1, one.shape + one.rank, other.shape + 1)) return false;
  }
  return true;
}

// Runs a group and answers its requests; if the run fails, each runs alone.
void Instance::Answer(const Group& group, uint64_t start) {
  Times times{start, start, start};
  TRITONSERVER_Error* error = Guarded([&] { Run(group, &times); });
  for (Result& result : results_) result.value.reset();
  inputs_.clear();
  if (error == nullptr) return;
  if (group.size() == 1) {
    group.front()->error = error;
    Finish(group.front(), times);
    return;
  }
  TRITONSERVER_ErrorDelete(error);
  for (Job* job : group) {
    alone_[0] = job;
    Answer(alone_, start);
  }
}

// Runs a group and answers its requests. If it throws, none of them has been answered.
void Instance::Run(const Group& group, Times* times) {
  int64_t rows = 0;
  for (const Job* job : group) rows += job->rows;
  input_names_.clear();
  input_values_.clear();
  for (size_t slot = 0; slot < loaded_->inputs.size(); ++slot) {
    if (group.front()->parts[slot].input == nullptr) continue;
    inputs_.push_back(Gathered(slot, group, rows));
    input_values_.push_back(inputs_.back().get());
    input_names_.push_back(loaded_->inputs[slot].name.c_str());
  }
  const bool direct = Prepare(group, rows);

  times->compute_start = times->compute_end = Now();
  OrtStatus* status = RunSession();
  if (status != nullptr && direct) {
    // Either the request is at fault, or the model gives another shape than its file declares: a run that takes
    // what comes tells which.
    Ort().ReleaseStatus(status);
    for (Result& result : results_) {
      result.value.reset();
      result.direct = false;
    }
    status = RunSession();
  }
  times->compute_end = Now();
  Check(status);
  ++runs_;
  ReadResults(rows);
  int64_t first_row = 0;
  for (Job* job : group) {
    job->error = Guarded([&] {
      if (job->response == nullptr) Check(TRITONBACKEND_ResponseNew(&job->response, job->request));
      for (size_t slot = 0; slot < results_.size(); ++slot) Respond(job, slot, first_row);
    });
    first_row += job->rows;
    Finish(job, *times);
  }
  Report(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance_, static_cast<uint64_t>(rows), times->start,
                                                          times->compute_start, times->compute_end, Now()),
         "the statistics of a batch could not be reported");
}

// An input of the whole group as one tensor.
OrtPtr<OrtValue> Instance::Gathered(size_t slot, const Group& group, int64_t rows) {
  const InputSlot& input = loaded_->inputs[slot];
  const Part& first = group.front()->parts[slot];
  shape_.assign(first.shape, first.shape + first.rank);
  if (batched_) shape_[0] = rows;
  if (input.scalar && ElementCount(shape_.data(), shape_.size()) == 1) shape_.clear();
  if (input.type->is_string()) return GatheredStrings(slot, group);

  const size_t bytes = ByteCount(shape_.data(), shape_.size(), *input.type);
  char* data = nullptr;
  if (bytes == 0) {
    data = nowhere;
  } else if (group.size() == 1 && first.buffer_count == 1 && !Decides(*input.type)) {
    uint64_t piece_bytes = 0;
    const char* piece = HostBuffer(first.input, 0, &piece_bytes);
    // ONNX Runtime does not write to its inputs.
    if (piece_bytes == bytes && Aligned(piece, *input.type)) data = const_cast<char*>(piece);
  }
  if (data == nullptr) {
    char* out = data = buffers_[slot].Reserve(bytes);
    for (const Job* job : group) {
      const Part& part = job->parts[slot];
      Gather(part.input, part.buffer_count, out, part.bytes);
      out += part.bytes;
    }
  }
  // Kernels take the bytes at face value, and what they count by others may be memory that is not the request's.
  const auto is_bool = [](char byte) { return (byte & ~1) == 0; };
  if (input.type->triton == TritonType::kBool && !std::all_of(data, data + bytes, is_bool)) {
    throw Invalid("input '" + input.name + "' is BOOL, so its bytes must be 0 or 1");
  }
  return TensorAt(data, bytes, shape_, *input.type, cpu_.get());
}

// The same for strings, of the shape in `shape_`. ONNX Runtime keeps strings in objects of its own.
OrtPtr<OrtValue> Instance::GatheredStrings(size_t slot, const Group& group) {
  auto tensor =
      Make<OrtValue>(Ort().CreateTensorAsOrtValue, allocator_, shape_.data(), shape_.size(), OrtElement::kString);
  size_t element = 0;
  for (const Job* job : group) {
    const Part& part = job->parts[slot];
    uint64_t bytes = part.bytes;
    const char* text = nullptr;
    if (part.buffer_count == 1) {
      text = HostBuffer(part.input, 0, &bytes);
    } else {
      char* joined = buffers_[slot].Reserve(part.bytes);
      Gather(part.input, part.buffer_count, joined, part.bytes);
      text = joined;
    }
    const size_t count = static_cast<size_t>(ElementCount(part.shape, part.rank));
    // Triton leaves room behind the texts that it fills in itself.
    ReadStrings({text, bytes}, loaded_->inputs[slot].control, element, count, tensor.get());
    element += count;
  }
  return tensor;
}

// Prepares the outputs that somebody in the group asked for. Where the group is one request and an output's shape is
// known before, its space in the response is asked for now, and the session writes there if it is aligned; says whether
// any is written so. A response must not ask twice: Triton's frontends act on it.
bool Instance::Prepare(const Group& group, int64_t rows) {
  bool any_direct = false;
  output_names_.clear();
  for (size_t slot = 0; slot < results_.size(); ++slot) {
    const OutputSlot& output = loaded_->outputs[slot];
    Result& result = results_[slot];
    const auto asked = [&](const Job* job) { return job->wanted[slot] != 0; };
    result.wanted = output.state || std::any_of(group.begin(), group.end(), asked);
    result.direct = false;
    result.space = nullptr;
    if (!result.wanted) continue;
    output_names_.push_back(output.name.c_str());
    if (group.size() > 1 || output.state || declarations_[slot] != Declaration::kHolds) continue;
    Job* job = group.front();
    result.shape = output.dims;
    if (batched_ && !result.shape.empty()) result.shape[0] = rows;
    const size_t bytes = ByteCount(result.shape.data(), result.shape.size(), *output.type);
    if (job->response == nullptr) Check(TRITONBACKEND_ResponseNew(&job->response, job->request));
    result.space = OutputSpace(job->response, output, result.shape.empty() ? output.scalar_dims : result.shape, bytes);
    if (bytes == 0) result.space = nowhere;
    if (!Aligned(result.space, *output.type)) continue;
    result.value = TensorAt(result.space, bytes, result.shape, *output.type, cpu_.get());
    result.direct = any_direct = true;
  }
  return any_direct;
}

// Runs the session on the inputs for the wanted outputs.
OrtStatus* Instance::RunSession() {
  output_values_.clear();
  for (const Result& result : results_) {
    if (result.wanted) output_values_.push_back(result.value.get());
  }
  OrtStatus* status =
      Ort().Run(loaded_->session.ort.get(), run_options_.get(), input_names_.data(), input_values_.data(),
                input_values_.size(), output_names_.data(), output_values_.size(), output_values_.data());
  auto value = output_values_.begin();
  for (Result& result : results_) {
    if (!result.wanted) continue;
    if (result.value == nullptr) result.value.reset(*value);
    ++value;
  }
  return status;
}

// Reads the shapes of what the session gave, and takes the strings out.
void Instance::ReadResults(int64_t rows) {
  for (size_t slot = 0; slot < results_.size(); ++slot) {
    Result& result = results_[slot];
    if (!result.wanted || result.direct) continue;
    const OutputSlot& output = loaded_->outputs[slot];
    const auto info = Make<OrtTensorTypeAndShapeInfo>(Ort().GetTensorTypeAndShape, result.value.get());
    size_t rank = 0;
    Check(Ort().GetDimensionsCount(info.get(), &rank));
    shape_.resize(rank);
    Check(Ort().GetDimensions(info.get(), shape_.data(), rank));
    if (batched_ && (rank == 0 || shape_[0] != rows)) {
      throw Error(ErrorCode::kInternal, "output '" + output.name + "' has shape " + ToString(shape_) +
                                            " for a batch of " + std::to_string(rows) +
                                            ": the model does not keep the batch axis, so max_batch_size must be 0");
    }
    // Triton takes the axes of a reshape from the config, and would read beyond a shape that has fewer.
    const auto open_or_same = [](int64_t want, int64_t have) { return want == -1 || want == have; };
    if (output.reshaped &&
        !std::equal(output.reshape.begin(), output.reshape.end(), shape_.begin(), shape_.end(), open_or_same)) {
      throw Error(ErrorCode::kInternal, "output '" + output.name + "' has shape " + ToString(shape_) +
                                            ", and the config reshapes it from " + ToString(output.reshape));
    }
    if (declarations_[slot] != Declaration::kBroken && output.fixed) {
      const size_t axis = batched_ ? 1 : 0;
      const bool holds =
          rank == output.dims.size() && std::equal(shape_.begin() + axis, shape_.end(), output.dims.begin() + axis);
      declarations_[slot] = holds ? Declaration::kHolds : Declaration::kBroken;
    }
    if (result.space != nullptr && declarations_[slot] == Declaration::kBroken) {
      // The space was asked for on the strength of earlier runs, and cannot be asked for again.
      throw Error(ErrorCode::kInternal, "output '" + output.name + "' has shape " + ToString(shape_) +
                                            ", where the model file declares " + ToString(output.dims) +
                                            " and earlier runs kept to it: ask again");
    }
    result.shape.swap(shape_);
    if (output.type->is_string()) {
      strings_[slot].Take(result.value.get(), static_cast<size_t>(ElementCount(result.shape.data(), rank)));
    }
  }
}

// Copies a request's rows of an output into its response, and into the state of its sequence.
void Instance::Respond(Job* job, size_t slot, int64_t first_row) {
  const OutputSlot& output = loaded_->outputs[slot];
  const Result& result = results_[slot];
  const bool respond = job->wanted[slot] != 0 && !result.direct;
  if (!result.wanted || (!respond && !output.state)) return;
  shape_.assign(result.shape.begin(), result.shape.end());
  if (batched_) shape_[0] = job->rows;
  const size_t count = static_cast<size_t>(ElementCount(shape_.data(), shape_.size()));
  const size_t first =
      batched_ && job->rows > 0 ? count / static_cast<size_t>(job->rows) * static_cast<size_t>(first_row) : 0;
  const size_t bytes = output.type->is_string() ? strings_[slot].Size(first, count) : count * output.type->bytes;
  if (shape_.empty()) shape_ = output.scalar_dims;
  const auto copy = [&](char* space) {
    if (bytes == 0) return;
    if (output.type->is_string()) {
      strings_[slot].Write(first, count, space);
    } else {
      void* data = nullptr;
      Check(Ort().GetTensorMutableData(result.value.get(), &data));
      std::memcpy(space, static_cast<const char*>(data) + first * output.type->bytes, bytes);
    }
  };
  if (respond) copy(result.space != nullptr ? result.space : OutputSpace(job->response, output, shape_, bytes));
  if (output.state) {
    TRITONBACKEND_State* state = nullptr;
    copy(StateSpace(job->request, output, shape_, bytes, &state));
    Check(TRITONBACKEND_StateUpdate(state));
  }
}

// Sends a request's response, which is an error if it has one, and lets go of the request.
void Instance::Finish(Job* job, const Times& times) {
  ++requests_;
  if (job->error != nullptr) ++refused_;
  Report(Guarded([&] { LogFinished(*job, times); }), "a request could not be logged");
  if (job->response == nullptr)
    Report(TRITONBACKEND_ResponseNew(&job->response, job->request), "a response could not be made");
  if (job->response != nullptr)
    Report(TRITONBACKEND_ResponseSend(job->response, kResponseFinal, job->error), "a response could not be sent");
  Report(TRITONBACKEND_ModelInstanceReportStatistics(instance_, job->request, job->error == nullptr, times.start,
                                                     times.compute_start, times.compute_end, Now()),
         "the statistics of a request could not be reported");
  if (job->error != nullptr) TRITONSERVER_ErrorDelete(job->error);
  Report(TRITONBACKEND_RequestRelease(job->request, kReleaseAll), "a request could not be released");
}

// Says what became of a request, by its id, so that it can be followed from the client to here: where the model failed
// on it always, else only where the log is verbose. A client's own mistakes must not fill the log.
void Instance::LogFinished(const Job& job, const Times& times) const {
  const bool failed = job.error != nullptr;
  const ErrorCode code = failed ? TRITONSERVER_ErrorCode(job.error) : ErrorCode::kUnknown;
  const bool ours = failed && code != ErrorCode::kInvalidArg && code != ErrorCode::kCancelled;
  const LogLevel level = ours ? LogLevel::kWarn : LogLevel::kVerbose;
  if (!TRITONSERVER_LogIsEnabled(level)) return;
  const char* id = nullptr;
  Check(TRITONBACKEND_RequestId(job.request, &id));
  const std::string who =
      "[request id: " + std::string(id == nullptr || *id == '\0' ? "<id_unknown>" : id) + "] " + name_;
  if (failed) {
    Log(level, who + " failed: " + TRITONSERVER_ErrorMessage(job.error));
  } else {
    Log(level, who + " answered after " + std::to_string((Now() - times.start) / 1000) +
                   " us, of which the model took " + std::to_string((times.compute_end - times.compute_start) / 1000) +
                   " us");
  }
}

}  // namespace tritium
