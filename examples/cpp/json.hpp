// A reader of the JSON of a contract: strict, and no more than that needs.
#pragma once

#include <cctype>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace hepbridge {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Json {
  enum Kind { nothing, truth, number, text, list, record } kind = nothing;
  double value = 0;
  std::string string;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& name) const {
    auto found = members.find(name);
    if (found == members.end()) throw Error("the contract has no entry '" + name + "'");
    return found->second;
  }
  const std::string& str() const { return string; }
};

class JsonReader {
 public:
  explicit JsonReader(std::string words) : s_(std::move(words)) {}

  Json read() {
    Json out = value();
    space();
    if (at_ != s_.size()) fail();
    return out;
  }

 private:
  [[noreturn]] void fail() const { throw Error("the contract is no valid JSON at character " + std::to_string(at_)); }
  void space() { while (at_ < s_.size() && std::isspace(static_cast<unsigned char>(s_[at_]))) ++at_; }
  char look() { space(); if (at_ >= s_.size()) fail(); return s_[at_]; }
  void take(char c) { if (look() != c) fail(); ++at_; }
  bool next(char end) { if (look() == end) { ++at_; return false; } take(','); return true; }

  std::string quoted() {
    take('"');
    std::string out;
    for (; at_ < s_.size() && s_[at_] != '"'; ++at_) {
      if (s_[at_] != '\\') { out += s_[at_]; continue; }
      if (++at_ >= s_.size() || std::string("\"\\/").find(s_[at_]) == std::string::npos) fail();
      out += s_[at_];  // other escapes do not occur in a contract
    }
    if (at_ >= s_.size()) fail();
    ++at_;
    return out;
  }

  Json value() {
    Json out;
    const char c = look();
    if (c == '"') {
      out.kind = Json::text;
      out.string = quoted();
    } else if (c == '[') {
      out.kind = Json::list;
      ++at_;
      if (look() == ']') { ++at_; return out; }
      do out.items.push_back(value()); while (next(']'));
    } else if (c == '{') {
      out.kind = Json::record;
      ++at_;
      if (look() == '}') { ++at_; return out; }
      do {
        std::string name = quoted();
        take(':');
        if (!out.members.emplace(name, value()).second) fail();
      } while (next('}'));
    } else {
      for (const char* word : {"true", "false", "null"})
        if (s_.compare(at_, std::string(word).size(), word) == 0) {
          at_ += std::string(word).size();
          out.kind = c == 'n' ? Json::nothing : Json::truth;
          out.value = c == 't';
          return out;
        }
      char* end = nullptr;
      out.kind = Json::number;
      out.value = std::strtod(s_.c_str() + at_, &end);
      if (end == s_.c_str() + at_) fail();
      at_ = static_cast<std::size_t>(end - s_.c_str());
    }
    return out;
  }

  std::string s_;
  std::size_t at_ = 0;
};

}  // namespace hepbridge
