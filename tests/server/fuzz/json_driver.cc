// Reads documents from standard input and writes to standard output what the reader makes of each. Both ways, each is
// preceded by its length: four bytes, in this machine's order.
//
// The answer is "r" and the reason where a document is refused; else "a", the root as an integer where it is one, a
// line feed, and the document as it is written again. Every document is read as a model's config too, which may refuse
// it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "config.h"

using tritium::Error;
using tritium::Json;

namespace {

std::string Integer(const Json& json) {
  try {
    return std::to_string(json.AsInt("it"));
  } catch (const Error&) {
    return "";
  }
}

void ReadConfig(const Json& json) {
  try {
    const tritium::ModelConfig config(json);
    for (const char* key : {"execution_mode", "enable_mem_arena"}) config.Parameter(key);
    config.IntParameter("execution_mode", 0, 0, 1);
    config.BoolParameter("enable_mem_arena", true);
  } catch (const Error&) {
  }
}

std::string Answer(std::string_view document) {
  try {
    const Json json = Json::Parse(document);
    const std::string written = json.Dump();
    if (Json::Parse(written).Dump() != written) std::abort();
    ReadConfig(json);
    return "a" + Integer(json) + "\n" + written;
  } catch (const Error& error) {
    return std::string("r") + error.what();
  }
}

}  // namespace

int main() {
  uint32_t size = 0;
  while (std::fread(&size, sizeof size, 1, stdin) == 1) {
    // Just as large as the document, so that a step beyond its end is seen.
    const std::unique_ptr<char[]> document(new char[size]);
    if (std::fread(document.get(), 1, size, stdin) != size) return 2;
    const std::string answer = Answer({document.get(), size});
    const uint32_t answer_size = static_cast<uint32_t>(answer.size());
    std::fwrite(&answer_size, sizeof answer_size, 1, stdout);
    std::fwrite(answer.data(), 1, answer.size(), stdout);
  }
  return 0;
}
