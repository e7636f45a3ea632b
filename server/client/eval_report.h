// Questions with known answers, and the score of a model's answers to them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

struct Question {
  std::string task, prompt, answer, reference;
  std::vector<std::string> images;  // paths, resolved
};

// JSON lines with "task", "prompt" (raw, with <image> markers), "answer", "reference" and "images"
// (paths relative to the file); other keys are allowed and not used. Errors name the line.
absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path);

// The raw prompt split at <image>, no template, greedy, at most 8 tokens.
absl::StatusOr<v1::GenerateRequest> QuestionRequest(const Question& question);

struct QuestionResult {
  bool answered = false;  // false: the call failed, counted as a wrong answer
  std::string answer;     // as generated
  double kv_bytes_per_token = 0;
};

// Whether two answers are the same, spaces around them aside.
bool SameAnswer(absl::string_view a, absl::string_view b);

struct EvalReport {
  struct Task {
    int questions = 0, right = 0, agreeing = 0, failed = 0;
  };
  std::map<std::string, Task> tasks;
  Task all;
  double kv_bytes_per_token_sum = 0;  // over answered questions

  double kv_bytes_per_token() const;  // their mean; 0 without any
  void Add(const Question& question, const QuestionResult& result);
  // Rows by task, then all.
  std::string RenderTable() const;
  // {"questions", "accuracy": {task: x}, "mean_accuracy", "agreement", "kv_bytes_per_token"}, and
  // "failed" if any call did. mean_accuracy is the share of all questions answered right.
  nlohmann::ordered_json ToJson() const;
};

}  // namespace tessera::client
