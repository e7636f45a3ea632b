// Questions with known answers, and the scores of a model's answers. Threads: functions only, safe.
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
  std::vector<std::string> images;  // resolved paths
};

// Reads JSON lines with "task", "prompt" (raw, with <image> markers), "answer", "reference" and
// "images" (paths relative to the file). Other keys are ignored. Errors name the line.
absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path);

// Returns the request for a question: the raw prompt without template, greedy, at most 8 tokens.
absl::StatusOr<v1::GenerateRequest> QuestionRequest(const Question& question);

struct QuestionResult {
  bool answered = false;  // false: the call failed, counted as a wrong answer
  std::string answer;     // as generated
  // As reported by the server.
  std::string policy;
  double kv_bytes_per_token = 0, mean_bits = 0;
  double evicted_share = 0;  // share of the prompt's tokens
};
QuestionResult ResultOf(bool answered, const std::string& answer, const v1::Usage& usage);

// Returns whether two answers are equal, apart from spaces around them.
bool SameAnswer(absl::string_view a, absl::string_view b);

// The scores of one policy.
struct EvalReport {
  struct Task {
    int questions = 0, right = 0, agreeing = 0, failed = 0;
  };
  std::string policy;     // as requested; after the first answer, as the server reports it
  std::string commit_at;  // "prompt" or "question"
  std::map<std::string, Task> tasks;
  Task all;
  // Sums over answered questions.
  double kv_bytes_per_token_sum = 0, mean_bits_sum = 0, evicted_share_sum = 0;

  // Means over answered questions; 0 without answers.
  double kv_bytes_per_token() const { return Mean(kv_bytes_per_token_sum); }
  double mean_bits() const { return Mean(mean_bits_sum); }
  double evicted_share() const { return Mean(evicted_share_sum); }
  double agreement() const;
  // Returns the share of right answers over these tasks, or over all if `names` is empty.
  double Accuracy(const std::vector<std::string>& names) const;
  void Add(const Question& question, const QuestionResult& result);
  // Returns a table with a row for each task and one for all.
  std::string RenderTable() const;
  // Returns {"policy", "commit_at", "questions", "accuracy": {task: x}, "mean_accuracy",
  // "tasks_accuracy"?, "agreement", "kv_bytes_per_token", "mean_bits", "evicted_share", "failed"?}.
  // mean_accuracy is the share of right answers over all questions; tasks_accuracy is that over the
  // `chosen` tasks, if any.
  nlohmann::ordered_json ToJson(const std::vector<std::string>& chosen) const;

 private:
  double Mean(double sum) const;
};

// Returns a table with a row for each policy. Adds the accuracy over the `chosen` tasks, if any.
std::string RenderComparison(const std::vector<EvalReport>& reports,
                             const std::vector<std::string>& chosen);

}  // namespace tessera::client
