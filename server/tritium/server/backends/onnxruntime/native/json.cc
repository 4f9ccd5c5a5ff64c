#include "json.h"

#include <charconv>

#include "error.h"

namespace tritium {

namespace {

constexpr int kMaxDepth = 64;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

// How many bytes the UTF-8 sequence at the start of `text` has; 0 if it is none (RFC 3629: shortest form, no
// surrogates).
size_t Utf8Length(std::string_view text) {
  auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return tail(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!tail(1) || !tail(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  Json Document() {
    Json value = Value(0);
    SkipSpace();
    if (at_ != text_.size()) Fail("the end of the text");
    return value;
  }

 private:
  [[noreturn]] void Fail(const std::string& expected) const {
    throw Invalid("this is no JSON: " + expected + " must be at byte " + std::to_string(at_));
  }

  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool Take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }

  Json Value(int depth) {
    SkipSpace();
    const char c = Peek();
    if ((c == '{' || c == '[') && depth == kMaxDepth) Fail("no more than " + std::to_string(kMaxDepth) + " levels");
    if (c == '{') return Object(depth);
    if (c == '[') return Array(depth);
    if (c == '"') return Json::String(String());
    if (c == '-' || IsDigit(c)) return Number();
    if (Word("true")) return Json::Bool(true);
    if (Word("false")) return Json::Bool(false);
    if (Word("null")) return Json();
    Fail("a value");
  }

  bool Word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json Object(int depth) {
    Json object = Json::Object();
    ++at_;
    SkipSpace();
    if (Take('}')) return object;
    do {
      SkipSpace();
      if (Peek() != '"') Fail("a key");
      std::string key = String();
      if (object.Find(key) != nullptr) Fail("a key other than '" + key + "', which is there already,");
      SkipSpace();
      if (!Take(':')) Fail("':'");
      object.members_.emplace_back(std::move(key), Value(depth + 1));
      SkipSpace();
    } while (Take(','));
    if (!Take('}')) Fail("',' or '}'");
    return object;
  }

  Json Array(int depth) {
    Json array = Json::Array();
    ++at_;
    SkipSpace();
    if (Take(']')) return array;
    do {
      array.items_.push_back(Value(depth + 1));
      SkipSpace();
    } while (Take(','));
    if (!Take(']')) Fail("',' or ']'");
    return array;
  }

  void Digits() {
    if (!IsDigit(Peek())) Fail("a digit");
    while (IsDigit(Peek())) ++at_;
  }

  Json Number() {
    const size_t start = at_;
    Take('-');
    if (!Take('0')) Digits();
    if (Take('.')) Digits();
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (!Take('+')) Take('-');
      Digits();
    }
    Json number;
    number.kind_ = Json::Kind::kNumber;
    number.text_ = std::string(text_.substr(start, at_ - start));
    return number;
  }

  uint32_t Hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = Peek();
      if (IsDigit(c))
        code = code * 16 + static_cast<uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f')
        code = code * 16 + static_cast<uint32_t>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F')
        code = code * 16 + static_cast<uint32_t>(c - 'A' + 10);
      else
        Fail("a hexadecimal digit");
    }
    return code;
  }

  uint32_t Escaped() {
    const uint32_t code = Hex4();
    if (code >= 0xDC00 && code <= 0xDFFF) Fail("the first half of a surrogate pair");
    if (code < 0xD800 || code > 0xDBFF) return code;
    if (!Take('\\') || !Take('u')) Fail("the second half of a surrogate pair");
    const uint32_t low = Hex4();
    if (low < 0xDC00 || low > 0xDFFF) Fail("the second half of a surrogate pair");
    return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }

  std::string String() {
    std::string out;
    ++at_;
    while (true) {
      if (at_ >= text_.size()) Fail("the end of a string");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c != '\\') {
        if (static_cast<unsigned char>(c) < 0x20) Fail("no control character");
        const size_t length = Utf8Length(text_.substr(at_));
        if (length == 0) Fail("UTF-8");
        out.append(text_.substr(at_, length));
        at_ += length;
        continue;
      }
      ++at_;
      static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
      if (Take('u')) {
        AppendUtf8(Escaped(), &out);
      } else if (const size_t i = kLetters.find(Peek()); i != kLetters.npos) {
        out.push_back(kMeanings[i]);
        ++at_;
      } else {
        Fail("an escape (\" \\ / b f n r t u)");
      }
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

Json Json::Parse(std::string_view text) { return JsonReader(text).Document(); }

Json Json::Bool(bool value) {
  Json json;
  json.kind_ = Kind::kBool;
  json.bool_ = value;
  return json;
}

Json Json::Number(int64_t value) {
  Json json;
  json.kind_ = Kind::kNumber;
  json.text_ = std::to_string(value);
  return json;
}

Json Json::String(std::string value) {
  Json json;
  json.kind_ = Kind::kString;
  json.text_ = std::move(value);
  return json;
}

Json Json::Array() {
  Json json;
  json.kind_ = Kind::kArray;
  return json;
}

Json Json::Object() {
  Json json;
  json.kind_ = Kind::kObject;
  return json;
}

const Json* Json::Find(std::string_view key) const {
  for (const Member& member : members_) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

void Json::Set(std::string_view key, Json value) {
  for (Member& member : members_) {
    if (member.first == key) {
      member.second = std::move(value);
      return;
    }
  }
  members_.emplace_back(std::string(key), std::move(value));
}

namespace {

[[noreturn]] void NotA(std::string_view kind, std::string_view what, const Json& value) {
  throw Invalid(std::string(what) + " must be " + std::string(kind) + ", got " + value.Dump() + " instead");
}

}  // namespace

bool Json::AsBool(std::string_view what) const {
  if (kind_ != Kind::kBool) NotA("true or false", what, *this);
  return bool_;
}

int64_t Json::AsInt(std::string_view what) const {
  int64_t value = 0;
  const char* end = text_.data() + text_.size();
  if (kind_ == Kind::kNumber || kind_ == Kind::kString) {
    const auto [stop, status] = std::from_chars(text_.data(), end, value);
    if (status == std::errc() && stop == end) return value;
  }
  NotA("a whole number of 64 bits", what, *this);
}

const std::string& Json::AsString(std::string_view what) const {
  if (kind_ != Kind::kString) NotA("a string", what, *this);
  return text_;
}

std::string Json::Dump() const {
  std::string out;
  Write(&out);
  return out;
}

namespace {

void WriteString(const std::string& text, std::string* out) {
  static constexpr char kHex[] = "0123456789abcdef";
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out->append("\\u00");
      out->push_back(kHex[c >> 4]);
      out->push_back(kHex[c & 15]);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

}  // namespace

void Json::Write(std::string* out) const {
  switch (kind_) {
    case Kind::kNull:
      out->append("null");
      break;
    case Kind::kBool:
      out->append(bool_ ? "true" : "false");
      break;
    case Kind::kNumber:
      out->append(text_);
      break;
    case Kind::kString:
      WriteString(text_, out);
      break;
    case Kind::kArray:
      out->push_back('[');
      for (size_t i = 0; i < items_.size(); ++i) {
        if (i > 0) out->push_back(',');
        items_[i].Write(out);
      }
      out->push_back(']');
      break;
    case Kind::kObject:
      out->push_back('{');
      for (size_t i = 0; i < members_.size(); ++i) {
        if (i > 0) out->push_back(',');
        WriteString(members_[i].first, out);
        out->push_back(':');
        members_[i].second.Write(out);
      }
      out->push_back('}');
      break;
  }
}

}  // namespace tritium
