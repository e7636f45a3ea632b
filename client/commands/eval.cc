// `tessera eval`: measures accuracy on questions with known answers, and agreement with a
// reference.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/base.h"
#include "client/cli/format.h"
#include "client/cli/json_fields.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"
#include "client/report/eval_html.h"
#include "client/report/eval_report.h"
#include "client/report/html.h"
#include "client/rpc/connection.h"
#include "client/rpc/generation_options.h"
#include "client/rpc/prompt_parts.h"
#include "client/rpc/retrying_calls.h"
#include "client/rpc/usage.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Asks the questions of a JSON lines file. Each line is {\"task\", \"prompt\", \"images\", "
    "\"answer\", \"reference\"}. The prompt is sent without chat template and split at <image>; "
    "image paths are relative to the file. Answers are greedy with at most 8 tokens. Spaces around "
    "answers are ignored.\n"
    "accuracy: share of answers equal to \"answer\", by task; mean_accuracy: that share over all "
    "questions; agreement: share equal to \"reference\". A failed call counts as a wrong answer. "
    "kv_bytes_per_token, mean_bits (per stored value, with metadata) and evicted_share (of the "
    "prompt's tokens) are means over questions.\n"
    "With --policies the same questions are asked under each policy in turn.\n"
    "Exits with status 1 if a call failed, or if the agreement is below --min_agreement.";

struct Config {
  Endpoint endpoint{kDefaultAddress};
  std::string questions;
  int concurrency = 8;
  int limit = 0;
  std::string kv_policy, policies;
  v1::KvPolicy::CommitAt commit_at = v1::KvPolicy::COMMIT_AT_PROMPT;
  std::vector<std::string> tasks;
  std::string report;
  bool bypass_prefix = false;
  bool show_wrong = false, json = false;
  double min_agreement = 0;
  RetryPolicy retry;

  void Register(Options* options) {
    endpoint.Register(options);
    options->Add("questions", "FILE", &questions, "the questions; must be given");
    options->Add("concurrency", &concurrency, Range<int>{1, 65536}, "calls in flight");
    options->Add("limit", &limit, Range<int>{0}, "ask only the first N questions; 0 is all");
    options->Add("kv_policy", "POLICY", &kv_policy, "KV-compression method of every question");
    options->Add("policies", "\"A;B;...\"", &policies,
                 "KV-compression methods to compare, such as \"none;rtn(bits=2);akvq\"");
    options->AddParsed(
        "commit_at", "prompt|question",
        [this](absl::string_view text) { return ParseCommitAt(text, &commit_at); },
        absl::StrCat(kCommitAtHelp, "; default prompt"));
    options->AddParsed(
        "tasks", "NAME,...",
        [this](absl::string_view text) {
          tasks = absl::StrSplit(text, ',', absl::SkipWhitespace());
          return absl::OkStatus();
        },
        "also report the accuracy over these tasks, and draw it");
    options->Add("report", "FILE", &report,
                 "write an HTML page with a chart of accuracy over KV bytes per token");
    options->Add("bypass_prefix", &bypass_prefix, "neither read nor fill the server's caches");
    options->Add("show_wrong", &show_wrong,
                 "list answers that differ from \"answer\" or \"reference\"");
    options->Add("min_agreement", &min_agreement, Range<double>{0, 1},
                 "exit with status 1 if agreement is below this");
    options->Add("json", &json,
                 "also print the scores as JSON at the end, one line for each policy");
    retry.Register(options);
  }

  // Returns the policies in the order of --policies; "" is the server's default.
  absl::StatusOr<std::vector<std::string>> Policies() const {
    if (policies.empty()) return std::vector<std::string>{kv_policy};
    if (!kv_policy.empty())
      return absl::InvalidArgumentError("--policies and --kv_policy exclude each other");
    std::vector<std::string> list;
    for (const absl::string_view text : absl::StrSplit(policies, ';')) {
      list.emplace_back(absl::StripAsciiWhitespace(text));
      if (list.back().empty())
        return absl::InvalidArgumentError("--policies: an empty policy between semicolons");
    }
    return list;
  }
};

struct Asked {
  std::vector<QuestionResult> results;
  std::vector<RpcError> errors;  // by question; OK if it was answered
  bool stopped = false;          // by an interrupt
};

absl::StatusOr<v1::GenerateRequest> BuildRequest(const Question& question, const Config& config,
                                                 const std::string& policy) {
  ASSIGN_OR_RETURN(v1::GenerateRequest request, QuestionRequest(question));
  request.mutable_kv_policy()->set_text(policy);
  request.mutable_kv_policy()->set_commit_at(config.commit_at);
  if (config.bypass_prefix) request.mutable_cache()->set_bypass_prefix(true);
  return request;
}

// Refuses a misspelt task, because it would have no accuracy at all.
absl::Status CheckTasks(const std::vector<Question>& questions, const Config& config) {
  for (const std::string& name : config.tasks) {
    const bool known = std::any_of(questions.begin(), questions.end(),
                                   [&name](const Question& q) { return q.task == name; });
    if (!known)
      return absl::InvalidArgumentError(
          absl::StrCat("--tasks: no question of task \"", name, "\" in ", config.questions));
  }
  return absl::OkStatus();
}

// Finds a missing image before the first question is asked, instead of in the middle of a long run.
absl::Status CheckAll(const std::vector<Question>& questions, const Config& config) {
  for (size_t i = 0; i < questions.size(); ++i) {
    const absl::Status status = BuildRequest(questions[i], config, "").status();
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat("question ", i + 1, ": ", status.message()));
  }
  return absl::OkStatus();
}

Asked AskAll(std::shared_ptr<grpc::Channel> channel, const Config& config,
             const std::string& policy, const std::vector<Question>& questions, const Io& io) {
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
      auto request = BuildRequest(questions[index], config, policy);
      if (request.ok()) {
        calls.Start(index, *std::move(request));
      } else {  // an image has changed since CheckAll
        asked.errors[index] = {grpc::StatusCode::NOT_FOUND,
                               std::string(request.status().message())};
      }
    }
    if (calls.in_flight() == 0) continue;
    auto result = calls.Next();
    if (!result) continue;
    const CallResult& call = result->call;
    asked.errors[call.tag] = call.error;
    asked.results[call.tag] = ResultOf(call.ok(), call.text, call.finished.usage());
    bar.Update(++done, static_cast<int64_t>(questions.size()), failed += !call.ok());
  }
  asked.stopped = calls.stopped();
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

// Shows only the first errors in full, because a server that is down causes one for each question.
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

int Conclude(const Config& config, const std::vector<EvalReport>& reports, const Io& io) {
  if (reports.size() == 1) {
    *io.out << reports[0].RenderTable();
    *io.out << absl::StrFormat("KV bytes per token: %s, %.2f bits a value, %.1f%% evicted (%s)\n",
                               FormatCount(std::llround(reports[0].kv_bytes_per_token())),
                               reports[0].mean_bits(), 100 * reports[0].evicted_share(),
                               Printable(reports[0].policy));
  } else {
    *io.out << RenderComparison(reports, config.tasks);
  }
  int code = kExitOk;
  if (!config.report.empty()) {
    const absl::Status written =
        WriteTextFile(config.report, RenderEvalPage(reports, config.questions, config.tasks));
    if (!written.ok()) {
      *io.err << "tessera eval: " << written.message() << "\n";
      code = kExitFailure;
    }
  }
  for (const EvalReport& report : reports) {
    if (config.json) *io.out << ToLine(report.ToJson(config.tasks)) << "\n";
    if (report.all.failed > 0) code = kExitFailure;
    if (report.agreement() >= config.min_agreement) continue;
    *io.err << "agreement is below " << config.min_agreement << "\n";
    code = kExitFailure;
  }
  return code;
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
  const auto policies = config.Policies();
  if (!policies.ok()) return options.UsageError(policies.status(), io);
  auto channel = Connect(config.endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  auto questions = ReadQuestions(config.questions);
  if (!questions.ok()) {
    *io.err << "tessera eval: " << questions.status().message() << "\n";
    return kExitFailure;
  }
  if (config.limit > 0 && config.limit < static_cast<int>(questions->size())) {
    questions->resize(config.limit);
  }
  absl::Status status = CheckTasks(*questions, config);
  if (status.ok()) status = CheckAll(*questions, config);
  if (!status.ok()) {
    *io.err << "tessera eval: " << status.message() << "\n";
    return kExitFailure;
  }

  std::vector<EvalReport> reports;
  for (const std::string& policy : *policies) {
    const Asked asked = AskAll(*channel, config, policy, *questions, io);
    EvalReport& report = reports.emplace_back();
    report.policy = policy.empty() ? "the server's default" : policy;
    report.commit_at = config.commit_at == v1::KvPolicy::COMMIT_AT_QUESTION ? "question" : "prompt";
    for (size_t i = 0; i < questions->size(); ++i) report.Add((*questions)[i], asked.results[i]);
    if (policies->size() > 1 && (config.show_wrong || report.all.failed > 0))
      *io.out << report.policy << ":\n";
    if (config.show_wrong) ShowWrong(*questions, asked, io);
    ShowErrors(asked, io);
    if (asked.stopped) break;
  }
  return Conclude(config, reports, io);
}

}  // namespace tessera::client
