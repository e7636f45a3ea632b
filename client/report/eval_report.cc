#include "client/report/eval_report.h"

#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/base.h"
#include "base/read_file.h"
#include "client/cli/format.h"
#include "client/cli/json_fields.h"
#include "client/rpc/prompt_parts.h"

namespace tessera::client {
namespace {

constexpr int kMaxTokens = 8;

absl::StatusOr<Question> ParseQuestion(absl::string_view line, absl::string_view directory) {
  ASSIGN_OR_RETURN(const nlohmann::json object, ParseObject(line));
  Fields fields(object);
  Question question;
  const std::pair<const char*, std::string*> texts[] = {{"task", &question.task},
                                                        {"prompt", &question.prompt},
                                                        {"answer", &question.answer},
                                                        {"reference", &question.reference}};
  for (const auto& [key, out] : texts) {
    if (fields.Find(key) == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" is missing"));
    }
    RETURN_IF_ERROR(fields.Get(key, out));
  }
  RETURN_IF_ERROR(fields.Get("images", &question.images));
  for (std::string& path : question.images) path = ResolvePath(directory, path);
  return question;
}

double Share(int part, int whole) { return whole > 0 ? static_cast<double>(part) / whole : 0.0; }

}  // namespace

absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  const std::string directory = DirectoryOf(path);
  std::vector<Question> questions;
  int number = 0;
  for (absl::string_view rest = text; !rest.empty();) {
    const size_t newline = std::min(rest.find('\n'), rest.size() - 1);
    const absl::string_view line = absl::StripAsciiWhitespace(rest.substr(0, newline + 1));
    rest.remove_prefix(newline + 1);
    ++number;
    if (line.empty()) continue;
    auto question = ParseQuestion(line, directory);
    if (!question.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": ", question.status().message()));
    }
    questions.push_back(*std::move(question));
  }
  if (questions.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no questions in it"));
  }
  return questions;
}

absl::StatusOr<v1::GenerateRequest> QuestionRequest(const Question& question) {
  std::vector<v1::Image> images;
  for (const std::string& path : question.images) {
    ASSIGN_OR_RETURN(images.emplace_back(), LoadImage(path));
  }
  v1::GenerateRequest request;
  ASSIGN_OR_RETURN(*request.mutable_content(),
                   SplitAtMarkers(question.prompt, kRawMarker, std::move(images)));
  request.set_apply_template(false);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(kMaxTokens);
  return request;
}

QuestionResult ResultOf(bool answered, const std::string& answer, const v1::Usage& usage) {
  QuestionResult result;
  result.answered = answered;
  result.answer = answer;
  result.policy = usage.kv_policy();
  result.kv_bytes_per_token = usage.kv_bytes_per_token();
  result.mean_bits = usage.kv_mean_bits();
  if (usage.prompt_tokens() > 0) {
    result.evicted_share =
        (usage.evicted_text_tokens() + usage.evicted_image_tokens()) / usage.prompt_tokens();
  }
  return result;
}

bool SameAnswer(absl::string_view a, absl::string_view b) {
  return absl::StripAsciiWhitespace(a) == absl::StripAsciiWhitespace(b);
}

void EvalReport::Add(const Question& question, const QuestionResult& result) {
  const bool right = result.answered && SameAnswer(result.answer, question.answer);
  const bool agreeing = result.answered && SameAnswer(result.answer, question.reference);
  for (Task* task : {&tasks[question.task], &all}) {
    ++task->questions;
    task->right += right;
    task->agreeing += agreeing;
    task->failed += !result.answered;
  }
  if (!result.answered) return;
  if (!result.policy.empty()) policy = result.policy;
  kv_bytes_per_token_sum += result.kv_bytes_per_token;
  mean_bits_sum += result.mean_bits;
  evicted_share_sum += result.evicted_share;
}

double EvalReport::Mean(double sum) const {
  const int answered = all.questions - all.failed;
  return answered > 0 ? sum / answered : 0.0;
}

double EvalReport::agreement() const { return Share(all.agreeing, all.questions); }

double EvalReport::Accuracy(const std::vector<std::string>& names) const {
  if (names.empty()) return Share(all.right, all.questions);
  int right = 0, questions = 0;
  for (const std::string& name : names) {
    const auto task = tasks.find(name);
    if (task == tasks.end()) continue;
    right += task->second.right;
    questions += task->second.questions;
  }
  return Share(right, questions);
}

std::string EvalReport::RenderTable() const {
  Table table({"task", "questions", "right", "accuracy", "agreement", "failed"});
  const auto add = [&](const std::string& name, const Task& task) {
    table.AddRow({name, absl::StrCat(task.questions), absl::StrCat(task.right),
                  absl::StrFormat("%.3f", Share(task.right, task.questions)),
                  absl::StrFormat("%.3f", Share(task.agreeing, task.questions)),
                  absl::StrCat(task.failed)});
  };
  for (const auto& [name, task] : tasks) add(name, task);
  add("all", all);
  return table.Render();
}

std::string RenderComparison(const std::vector<EvalReport>& reports,
                             const std::vector<std::string>& chosen) {
  std::vector<std::string> header = {"policy", "accuracy"};
  if (!chosen.empty()) header.push_back("chosen tasks");
  for (const char* name : {"agreement", "KV bytes/token", "mean bits", "evicted", "failed"})
    header.push_back(name);
  Table table(header);
  for (const EvalReport& r : reports) {
    std::vector<std::string> row = {r.policy, absl::StrFormat("%.3f", r.Accuracy({}))};
    if (!chosen.empty()) row.push_back(absl::StrFormat("%.3f", r.Accuracy(chosen)));
    row.push_back(absl::StrFormat("%.3f", r.agreement()));
    row.push_back(FormatCount(std::llround(r.kv_bytes_per_token())));
    row.push_back(absl::StrFormat("%.2f", r.mean_bits()));
    row.push_back(absl::StrFormat("%.1f%%", 100 * r.evicted_share()));
    row.push_back(absl::StrCat(r.all.failed));
    table.AddRow(std::move(row));
  }
  return table.Render();
}

nlohmann::ordered_json EvalReport::ToJson(const std::vector<std::string>& chosen) const {
  nlohmann::ordered_json json;
  json["policy"] = policy;
  json["commit_at"] = commit_at;
  json["questions"] = all.questions;
  json["accuracy"] = nlohmann::ordered_json::object();
  for (const auto& [name, task] : tasks) {
    json["accuracy"][name] = Share(task.right, task.questions);
  }
  json["mean_accuracy"] = Accuracy({});
  if (!chosen.empty()) json["tasks_accuracy"] = Accuracy(chosen);
  json["agreement"] = agreement();
  json["kv_bytes_per_token"] = kv_bytes_per_token();
  json["mean_bits"] = mean_bits();
  json["evicted_share"] = evicted_share();
  if (all.failed > 0) json["failed"] = all.failed;
  return json;
}

}  // namespace tessera::client
