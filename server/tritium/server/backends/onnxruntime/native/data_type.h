// The element types that both Triton and ONNX have, under their three names.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "ort_api.h"
#include "triton_api.h"

namespace tritium {

using Shape = std::vector<int64_t>;

struct DataType {
  const char* name;  // as in a model's config
  TritonType triton;
  OrtElement ort;
  uint32_t bytes;  // of one element; 0 for strings

  bool is_string() const { return bytes == 0; }
};

inline constexpr DataType kDataTypes[] = {
    {"TYPE_BOOL", TritonType::kBool, OrtElement::kBool, 1},
    {"TYPE_UINT8", TritonType::kUint8, OrtElement::kUint8, 1},
    {"TYPE_UINT16", TritonType::kUint16, OrtElement::kUint16, 2},
    {"TYPE_UINT32", TritonType::kUint32, OrtElement::kUint32, 4},
    {"TYPE_UINT64", TritonType::kUint64, OrtElement::kUint64, 8},
    {"TYPE_INT8", TritonType::kInt8, OrtElement::kInt8, 1},
    {"TYPE_INT16", TritonType::kInt16, OrtElement::kInt16, 2},
    {"TYPE_INT32", TritonType::kInt32, OrtElement::kInt32, 4},
    {"TYPE_INT64", TritonType::kInt64, OrtElement::kInt64, 8},
    {"TYPE_FP16", TritonType::kFp16, OrtElement::kFloat16, 2},
    {"TYPE_FP32", TritonType::kFp32, OrtElement::kFloat, 4},
    {"TYPE_FP64", TritonType::kFp64, OrtElement::kDouble, 8},
    {"TYPE_BF16", TritonType::kBf16, OrtElement::kBfloat16, 2},
    {"TYPE_STRING", TritonType::kBytes, OrtElement::kString, 0},
};

// nullptr if there is none.
inline const DataType* FindDataType(std::string_view config_name) {
  for (const DataType& type : kDataTypes) {
    if (config_name == type.name) return &type;
  }
  return nullptr;
}

inline const DataType* FindDataType(OrtElement element) {
  for (const DataType& type : kDataTypes) {
    if (element == type.ort) return &type;
  }
  return nullptr;
}

// How many elements a shape has. Throws Error: a negative axis, or more than fit into 63 bits.
inline int64_t ElementCount(const int64_t* shape, size_t rank) {
  int64_t count = 1;
  for (size_t axis = 0; axis < rank; ++axis) {
    if (shape[axis] < 0 || __builtin_mul_overflow(count, shape[axis], &count)) {
      throw Invalid("a shape's axes must not be negative, and their product must fit into 63 bits");
    }
  }
  return count;
}

// How many bytes numbers of a shape take. Throws Error as ElementCount does.
inline size_t ByteCount(const int64_t* shape, size_t rank, const DataType& type) {
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(ElementCount(shape, rank)), type.bytes, &bytes)) {
    throw Invalid("a tensor must have fewer than 2^64 bytes");
  }
  return bytes;
}

inline std::string ToString(const int64_t* shape, size_t rank) {
  std::string text = "[";
  for (size_t axis = 0; axis < rank; ++axis) text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
  return text + "]";
}

inline std::string ToString(const Shape& shape) { return ToString(shape.data(), shape.size()); }

}  // namespace tritium
