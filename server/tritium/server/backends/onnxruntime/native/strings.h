// BYTES: Triton sends each string as four bytes of length (little-endian) and then its bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ort_api.h"

namespace tritium {

// Fills elements [first, first + count) of an ONNX string tensor from Triton's form. Throws Error unless the bytes hold
// just that many strings; where they are padded, anything may follow.
void ReadStrings(std::string_view bytes, bool padded, size_t first, size_t count, OrtValue* tensor);

// The strings of an ONNX tensor, taken out at once.
class Strings {
 public:
  // Reads the tensor's `count` strings; what an earlier call read is gone.
  void Take(const OrtValue* tensor, size_t count);
  // How many bytes [first, first + count) take in Triton's form. Throws Error: a string of 4 GiB or more.
  size_t Size(size_t first, size_t count) const;
  // Writes them there.
  void Write(size_t first, size_t count, char* out) const;

 private:
  std::vector<char> content_;
  std::vector<size_t> starts_;  // of each string, and the end
};

}  // namespace tritium
