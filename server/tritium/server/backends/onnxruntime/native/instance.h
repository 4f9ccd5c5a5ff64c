// A model instance: from Triton's requests to one run of the session and back.
//
// A batch travels so: the metadata of every request is read and checked; requests of the same row shapes form a group;
// the inputs of a group are used in place if it is one request in one piece, else gathered once into a buffer that is
// kept; the session runs once, for the outputs that somebody asked for; each request gets its slice. Where a group is
// one request and an output's shape is known before, the session writes straight into the response. If a run fails,
// each request of its group runs alone, so that only the one at fault gets an error.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model.h"
#include "strings.h"

namespace tritium {

// Memory that grows to what was ever needed and is used again, aligned for any vector instruction.
class Buffer {
 public:
  char* Reserve(size_t bytes);

 private:
  struct Free {
    void operator()(char* memory) const;
  };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

class Instance {
 public:
  // Throws Error.
  Instance(TRITONBACKEND_ModelInstance* instance, Model* model);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  // Answers and releases every request. Throws before it has touched any of them, or not at all.
  void Execute(TRITONBACKEND_Request** requests, uint32_t count);

 private:
  // What a request brings for one input; no input: nothing.
  struct Part {
    TRITONBACKEND_Input* input = nullptr;
    const int64_t* shape = nullptr;
    uint32_t rank = 0;
    uint32_t buffer_count = 0;
    uint64_t bytes = 0;
  };
  struct Job {
    TRITONBACKEND_Request* request = nullptr;
    TRITONBACKEND_Response* response = nullptr;
    TRITONSERVER_Error* error = nullptr;
    int64_t rows = 1;
    Part* parts = nullptr;   // one for each input of the model
    char* wanted = nullptr;  // one for each output
  };
  struct Times {
    uint64_t start = 0;
    uint64_t compute_start = 0;
    uint64_t compute_end = 0;
  };
  // An output, as one run gives it.
  struct Result {
    bool wanted = false;
    char* space = nullptr;  // in the response, asked for before the run
    bool direct = false;    // the session writes there itself
    OrtPtr<OrtValue> value;
    Shape shape;
  };
  // Whether an output has the shape that the model file declares: it has been seen to, or not to, or not been seen.
  enum class Declaration : char { kUnseen, kHolds, kBroken };
  using Group = std::vector<Job*>;

  void Read(Job* job);
  void ReadInput(uint32_t index, Job* job);
  bool Fit(const Job& a, const Job& b) const;
  void Answer(const Group& group, uint64_t start);
  void Run(const Group& group, Times* times);
  OrtPtr<OrtValue> Gathered(size_t slot, const Group& group, int64_t rows);
  OrtPtr<OrtValue> GatheredStrings(size_t slot, const Group& group);
  bool Prepare(const Group& group, int64_t rows);
  OrtStatus* RunSession();
  void ReadResults(int64_t rows);
  void Respond(Job* job, size_t slot, int64_t first_row);
  void Finish(Job* job, const Times& times);
  void LogFinished(const Job& job, const Times& times) const;

  TRITONBACKEND_ModelInstance* const instance_;
  const std::string name_;
  const int64_t max_rows_;  // of a batch
  const bool batched_;
  const std::shared_ptr<const LoadedModel> loaded_;
  OrtPtr<OrtRunOptions> run_options_;
  OrtPtr<OrtMemoryInfo> cpu_;
  OrtAllocator* allocator_ = nullptr;
  std::map<std::string, size_t, std::less<>> input_slots_;
  std::map<std::string, size_t, std::less<>> output_slots_;

  // Kept from run to run, so that in steady state nothing is allocated here.
  std::vector<Job> jobs_;
  std::vector<Part> parts_;
  std::vector<char> wanted_;
  Group pending_, group_, rest_, alone_;
  Shape shape_;
  std::vector<Buffer> buffers_;  // one for each input
  std::vector<const char*> input_names_, output_names_;
  std::vector<OrtPtr<OrtValue>> inputs_;
  std::vector<const OrtValue*> input_values_;
  std::vector<OrtValue*> output_values_;
  std::vector<Result> results_;            // one for each output
  std::vector<Strings> strings_;           // one for each output, of use to those of that type
  std::vector<Declaration> declarations_;  // one for each output

  uint64_t requests_ = 0;
  uint64_t refused_ = 0;
  uint64_t runs_ = 0;
};

}  // namespace tritium
