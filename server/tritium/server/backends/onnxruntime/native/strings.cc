#include "strings.h"

#include <cstring>
#include <limits>

namespace tritium {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "lengths travel in this machine's byte order");

void ReadStrings(std::string_view bytes, bool padded, size_t first, size_t count, OrtValue* tensor) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t length = 0;
    if (bytes.size() < sizeof length) {
      throw Invalid("a BYTES tensor of " + std::to_string(count) + " elements ends before the length of element " +
                    std::to_string(i));
    }
    std::memcpy(&length, bytes.data(), sizeof length);
    bytes.remove_prefix(sizeof length);
    if (bytes.size() < length) {
      throw Invalid("element " + std::to_string(i) + " of a BYTES tensor says that it has " + std::to_string(length) +
                    " bytes, and only " + std::to_string(bytes.size()) + " follow");
    }
    char* place = nullptr;
    Check(Ort().GetResizedStringTensorElementBuffer(tensor, first + i, length, &place));
    if (length > 0) std::memcpy(place, bytes.data(), length);
    bytes.remove_prefix(length);
  }
  if (!padded && !bytes.empty()) {
    throw Invalid("a BYTES tensor of " + std::to_string(count) + " elements has " + std::to_string(bytes.size()) +
                  " bytes too many");
  }
}

void Strings::Take(const OrtValue* tensor, size_t count) {
  size_t bytes = 0;
  Check(Ort().GetStringTensorDataLength(tensor, &bytes));
  content_.resize(bytes + 1);  // never empty, so that there is always an address
  starts_.resize(count + 1);
  if (count > 0) Check(Ort().GetStringTensorContent(tensor, content_.data(), bytes, starts_.data(), count));
  starts_[count] = bytes;
}

size_t Strings::Size(size_t first, size_t count) const {
  for (size_t i = first; i < first + count; ++i) {
    if (starts_[i + 1] - starts_[i] > std::numeric_limits<uint32_t>::max()) {
      throw Error(ErrorCode::kUnsupported, "an output string has 4 GiB or more, which Triton cannot carry");
    }
  }
  return starts_[first + count] - starts_[first] + count * sizeof(uint32_t);
}

void Strings::Write(size_t first, size_t count, char* out) const {
  for (size_t i = first; i < first + count; ++i) {
    const uint32_t length = static_cast<uint32_t>(starts_[i + 1] - starts_[i]);
    std::memcpy(out, &length, sizeof length);
    if (length > 0) std::memcpy(out + sizeof length, content_.data() + starts_[i], length);
    out += sizeof length + length;
  }
}

}  // namespace tritium
