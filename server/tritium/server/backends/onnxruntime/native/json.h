// A small strict reader and writer for JSON (RFC 8259): Triton hands configs over as JSON text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tritium {

// A JSON value. Numbers keep their text, so that no integer loses digits on its way through a double.
class Json {
 public:
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  using Member = std::pair<std::string, Json>;

  // Reads a whole document. Throws Error: not JSON, a key twice in one object, text that is not UTF-8, more than
  // 64 levels. The message names the byte.
  static Json Parse(std::string_view text);

  Json() = default;
  static Json Bool(bool value);
  static Json Number(int64_t value);
  static Json String(std::string value);
  static Json Array();
  static Json Object();

  Kind kind() const { return kind_; }
  const std::vector<Json>& items() const { return items_; }
  const std::vector<Member>& members() const { return members_; }

  // The member of that name; nullptr if this is no object or has none.
  const Json* Find(std::string_view key) const;
  // Adds a member, or replaces it.
  void Set(std::string_view key, Json value);
  void Append(Json value) { items_.push_back(std::move(value)); }

  // Each throws Error, naming `what`, if this is something else. Protobuf writes 64-bit integers as strings, so an
  // integer in a string counts as one.
  bool AsBool(std::string_view what) const;
  int64_t AsInt(std::string_view what) const;
  const std::string& AsString(std::string_view what) const;

  std::string Dump() const;

 private:
  friend class JsonReader;
  void Write(std::string* out) const;

  Kind kind_ = Kind::kNull;
  bool bool_ = false;
  std::string text_;  // of a string or a number
  std::vector<Json> items_;
  std::vector<Member> members_;
};

}  // namespace tritium
