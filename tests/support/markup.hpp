// SPDX-License-Identifier: Apache-2.0
// Reads well-formed XML, as far as the library writes it, and says where it is not.
#pragma once
#include <cctype>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace test {
/// An element of a document, in the order in which they begin.
struct Element {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;  // of it and what is inside, entities read
};

class Markup {
 public:
  /// Throws, naming the place, where elements do not nest, an attribute is not quoted or given twice, or a & begins no
  /// entity of XML. What a style or script element holds is not read.
  explicit Markup(std::string_view document) : text_(document) {
    if (!take("<!DOCTYPE html>")) refuse("a document type");
    while (at_ < text_.size()) {
      if (text_[at_] != '<')
        add(read_character());
      else if (take("</"))
        close();
      else
        open();
    }
    if (!open_.empty()) refuse("</" + elements_[open_.back()].name + ">");
  }
  const std::vector<Element>& elements() const { return elements_; }
  std::vector<Element> named(const std::string& name) const {
    std::vector<Element> some;
    for (const Element& e : elements_)
      if (e.name == name) some.push_back(e);
    return some;
  }

 private:
  [[noreturn]] void refuse(const std::string& expected) const {
    throw std::runtime_error("expected " + expected + " at byte " + std::to_string(at_) + ", got '" +
                             std::string(text_.substr(at_, 60)) + "'");
  }
  bool take(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  std::string read_name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-')) ++at_;
    if (at_ == begin) refuse("a name");
    return std::string(text_.substr(begin, at_ - begin));
  }
  std::string read_character() {
    if (text_[at_] != '&') return std::string(1, text_[at_++]);
    const std::pair<std::string_view, const char*> entities[] = {{"&amp;", "&"},   {"&lt;", "<"},  {"&gt;", ">"},
                                                                 {"&quot;", "\""}, {"&#39;", "'"}, {"&#8722;", "-"}};
    for (const auto& [entity, c] : entities)
      if (take(entity)) return c;
    refuse("an entity");
  }
  void add(const std::string& text) {
    for (const std::size_t k : open_) elements_[k].text += text;
  }
  void open() {
    ++at_;
    Element e{read_name(), {}, ""};
    while (take(" ") || take("\n")) {
      const std::string attribute = read_name();
      if (!take("=\"")) refuse("a value in double quotes");
      std::string value;
      while (at_ < text_.size() && text_[at_] != '"') {
        if (text_[at_] == '<') refuse("no < in a value");
        value += read_character();
      }
      if (!take("\"")) refuse("an end of the value");
      if (!e.attributes.emplace(attribute, value).second) refuse("an attribute once");
    }
    elements_.push_back(e);
    if (take("/>")) return;
    if (!take(">")) refuse(">");
    open_.push_back(elements_.size() - 1);
    if (e.name != "style" && e.name != "script") return;
    const std::size_t end = text_.find("</" + e.name + ">", at_);
    if (end == std::string_view::npos) refuse("</" + e.name + ">");
    elements_.back().text = text_.substr(at_, end - at_);
    at_ = end;
  }
  void close() {
    if (open_.empty() || read_name() != elements_[open_.back()].name || !take(">")) refuse("the end of what is open");
    open_.pop_back();
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<Element> elements_;
  std::vector<std::size_t> open_;
};
}  // namespace test
