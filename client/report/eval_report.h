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
  // The server's figures.
  std::string policy;  // granted
  double kv_bytes_per_token = 0, mean_bits = 0;
  double evicted_share = 0;  // of the prompt's tokens
};
QuestionResult ResultOf(bool answered, const std::string& answer, const v1::Usage& usage);

// Whether two answers are the same, spaces around them aside.
bool SameAnswer(absl::string_view a, absl::string_view b);

// The scores of one policy.
struct EvalReport {
  struct Task {
    int questions = 0, right = 0, agreeing = 0, failed = 0;
  };
  std::string policy;     // as asked for; once a question was answered, as granted
  std::string commit_at;  // "prompt" or "question"
  std::map<std::string, Task> tasks;
  Task all;
  // Over answered questions.
  double kv_bytes_per_token_sum = 0, mean_bits_sum = 0, evicted_share_sum = 0;

  // Means; 0 without any answer.
  double kv_bytes_per_token() const { return Mean(kv_bytes_per_token_sum); }
  double mean_bits() const { return Mean(mean_bits_sum); }
  double evicted_share() const { return Mean(evicted_share_sum); }
  double agreement() const;
  // The share of the questions of these tasks (empty: of all) that were answered right.
  double Accuracy(const std::vector<std::string>& names) const;
  void Add(const Question& question, const QuestionResult& result);
  // Rows by task, then all.
  std::string RenderTable() const;
  // {"policy", "commit_at", "questions", "accuracy": {task: x}, "mean_accuracy", "agreement",
  // "kv_bytes_per_token", "mean_bits", "evicted_share"}, "tasks_accuracy" if `chosen` names tasks,
  // and "failed" if any call did. mean_accuracy is the share of all questions answered right.
  nlohmann::ordered_json ToJson(const std::vector<std::string>& chosen) const;

 private:
  double Mean(double sum) const;
};

// Rows by policy. With `chosen` tasks also their accuracy.
std::string RenderComparison(const std::vector<EvalReport>& reports,
                             const std::vector<std::string>& chosen);

}  // namespace tessera::client
