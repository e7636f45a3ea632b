// `tessera eval`: accuracy on questions with known answers, and agreement with a reference.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/client/commands.h"
#include "server/client/connection.h"
#include "server/client/eval_report.h"
#include "server/client/format.h"
#include "server/client/json_fields.h"
#include "server/client/prompt_parts.h"
#include "server/client/retrying_calls.h"
#include "server/client/terminal.h"
#include "server/client/usage.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Asks the questions of a JSON lines file ({\"task\", \"prompt\", \"images\", \"answer\", "
    "\"reference\"}; the prompt is sent raw, split at <image>; image paths are relative to the "
    "file), greedily, 8 tokens each, and compares answers with the spaces around them removed.\n"
    "accuracy: share of answers equal to \"answer\"; mean_accuracy: that share over all questions; "
    "agreement: share equal to \"reference\"; kv_bytes_per_token: the server's figure, mean over "
    "questions. A failed call counts as a wrong answer.\n"
    "Exit status 1 if a call failed; a low score is no failure unless --min_agreement says so.";

struct Config {
  std::string address = kDefaultAddress;
  std::string questions;
  int concurrency = 8;
  int limit = 0;
  std::string kv_policy;
  bool bypass_prefix = false;
  bool show_wrong = false, json = false;
  double min_agreement = 0;
  RetryPolicy retry;

  void Register(Options* options) {
    options->Add("address", "HOST:PORT", &address, "the server");
    options->Add("questions", "FILE", &questions, "the questions; must be given");
    options->Add("concurrency", &concurrency, Range<int>{1, 65536}, "calls in flight");
    options->Add("limit", &limit, Range<int>{0}, "ask only the first N questions; 0 is all");
    options->Add("kv_policy", "POLICY", &kv_policy, "KV-compression method of every question");
    options->Add("bypass_prefix", &bypass_prefix, "neither read nor feed the server's caches");
    options->Add("show_wrong", &show_wrong, "list answers that differ from answer or reference");
    options->Add("min_agreement", &min_agreement, Range<double>{0, 1},
                 "exit with status 1 if agreement is below this");
    options->Add("json", &json, "print the scores as JSON on the last line");
    retry.Register(options);
  }
};

struct Asked {
  std::vector<QuestionResult> results;
  std::vector<RpcError> errors;  // by question; OK where answered
};

absl::StatusOr<v1::GenerateRequest> BuildRequest(const Question& question, const Config& config) {
  ASSIGN_OR_RETURN(v1::GenerateRequest request, QuestionRequest(question));
  if (!config.kv_policy.empty()) request.mutable_kv_policy()->set_text(config.kv_policy);
  if (config.bypass_prefix) request.mutable_cache()->set_bypass_prefix(true);
  return request;
}

// Finds a missing picture before the first question is asked, not in the middle of a long run.
absl::Status CheckAll(const std::vector<Question>& questions, const Config& config) {
  for (size_t i = 0; i < questions.size(); ++i) {
    const absl::Status status = BuildRequest(questions[i], config).status();
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat("question ", i + 1, ": ", status.message()));
  }
  return absl::OkStatus();
}

Asked AskAll(std::shared_ptr<grpc::Channel> channel, const Config& config,
             const std::vector<Question>& questions, const Io& io) {
  Asked asked;
  asked.results.resize(questions.size());
  asked.errors.resize(questions.size(), RpcError{grpc::StatusCode::CANCELLED,
                                                 "interrupted before the question was asked"});
  RetryingCalls calls(std::move(channel), config.retry);
  Interrupt::Scope on_interrupt(io.interrupt, [&calls] { calls.Stop(); });
  ProgressBar bar(io);
  size_t started = 0;
  int64_t done = 0, failed = 0;
  while (calls.in_flight() > 0 || (started < questions.size() && !calls.stopped())) {
    while (started < questions.size() && calls.in_flight() < config.concurrency &&
           !calls.stopped()) {
      const size_t index = started++;
      auto request = BuildRequest(questions[index], config);
      if (request.ok()) {
        calls.Start(index, *std::move(request));
      } else {  // the file changed since CheckAll
        asked.errors[index] = {grpc::StatusCode::NOT_FOUND,
                               std::string(request.status().message())};
      }
    }
    if (calls.in_flight() == 0) continue;
    auto result = calls.Next();
    if (!result) continue;
    const CallResult& call = result->call;
    asked.errors[call.tag] = call.error;
    asked.results[call.tag] = {call.ok(), call.text, call.finished.usage().kv_bytes_per_token()};
    bar.Update(++done, static_cast<int64_t>(questions.size()), failed += !call.ok());
  }
  return asked;
}

void ShowWrong(const std::vector<Question>& questions, const Asked& asked, const Io& io) {
  for (size_t i = 0; i < asked.results.size(); ++i) {
    const Question& question = questions[i];
    const QuestionResult& result = asked.results[i];
    if (!result.answered || (SameAnswer(result.answer, question.answer) &&
                             SameAnswer(result.answer, question.reference))) {
      continue;
    }
    *io.out << absl::StrFormat("question %d (%s): got \"%s\", answer \"%s\", reference \"%s\"\n",
                               i + 1, question.task, Printable(result.answer), question.answer,
                               question.reference);
  }
}

// The first few errors in full, so that a server that is down does not print a screen for each.
void ShowErrors(const Asked& asked, const Io& io) {
  constexpr int kShown = 5;
  int failed = 0;
  for (size_t i = 0; i < asked.errors.size(); ++i) {
    if (asked.errors[i].ok() || ++failed > kShown) continue;
    *io.err << Style(io.err_terminal).Red("error") << ": question " << i + 1 << ": "
            << FormatError(asked.errors[i]);
  }
  if (failed > kShown) *io.err << "and " << failed - kShown << " more errors\n";
}

}  // namespace

int RunEval(const Args& args, const Io& io) {
  Config config;
  Options options("eval", kSummary);
  config.Register(&options);
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  if (config.questions.empty()) {
    return options.UsageError(absl::InvalidArgumentError("--questions must be given"), io);
  }
  auto channel = Connect(config.address);
  if (!channel.ok()) {
    return options.UsageError(
        absl::InvalidArgumentError(absl::StrCat("--address: ", channel.status().message())), io);
  }
  auto questions = ReadQuestions(config.questions);
  if (!questions.ok()) {
    *io.err << "tessera eval: " << questions.status().message() << "\n";
    return kExitFailure;
  }
  if (config.limit > 0 && config.limit < static_cast<int>(questions->size())) {
    questions->resize(config.limit);
  }
  if (const auto status = CheckAll(*questions, config); !status.ok()) {
    *io.err << "tessera eval: " << status.message() << "\n";
    return kExitFailure;
  }

  const Asked asked = AskAll(*std::move(channel), config, *questions, io);
  EvalReport report;
  for (size_t i = 0; i < questions->size(); ++i) report.Add((*questions)[i], asked.results[i]);
  if (config.show_wrong) ShowWrong(*questions, asked, io);
  ShowErrors(asked, io);
  *io.out << report.RenderTable();
  *io.out << "KV bytes per token: "
          << FormatCount(static_cast<int64_t>(report.kv_bytes_per_token() + 0.5)) << "\n";
  const nlohmann::ordered_json json = report.ToJson();
  if (config.json) *io.out << ToLine(json) << "\n";
  if (report.all.failed > 0) return kExitFailure;
  if (json["agreement"].get<double>() < config.min_agreement) {
    *io.err << "agreement is below " << config.min_agreement << "\n";
    return kExitFailure;
  }
  return kExitOk;
}

}  // namespace tessera::client
