// `tessera explain`: asks one question and draws how the KV cache stores each of its tokens.
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "client/cli/terminal.h"
#include "client/commands/chat_session.h"
#include "client/commands/commands.h"
#include "client/report/explain_html.h"
#include "client/report/html.h"
#include "client/rpc/connection.h"
#include "client/rpc/usage.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Asks one question and writes an HTML page that shows what a KV policy did to it: the bits of "
    "every token in every layer, the kept patches of each image, and the bytes by layer and "
    "class.\n"
    "Needs a server that runs with --allow_explain. Images come before the question in order, "
    "unless the question marks their places with {image}.";

struct Config {
  Endpoint endpoint{kDefaultAddress};
  std::string question, out = "explain.html";
  std::vector<std::string> images;
  ChatSession::Settings session;

  void Register(Options* options) {
    GenerationOptions& generation = session.generation;
    options->AddArgument("QUESTION", &question, "what to ask");
    endpoint.Register(options);
    options->AddEach(
        "image", "FILE",
        [this](absl::string_view path) {
          images.emplace_back(path);
          return absl::OkStatus();
        },
        "an image");
    options->Add("policy", "POLICY", &generation.kv_policy,
                 "KV-compression method; without it the server's default");
    options->AddParsed(
        "commit_at", "prompt|question",
        [&generation](absl::string_view text) {
          return ParseCommitAt(text, &generation.commit_at);
        },
        kCommitAtHelp);
    options->Add("raw", &session.raw,
                 "send the question as the whole prompt, without chat template; images replace "
                 "its <image> markers");
    options->Add("max_tokens", &generation.max_tokens, Range<int>{1, 1 << 24},
                 "maximum tokens of the answer");
    options->Add("out", "FILE", &out, "the page to write");
    options->Add("timeout", &session.timeout, "deadline of the answer; 0 is no limit");
    session.explain = true;
  }
};

absl::StatusOr<Explained> Ask(std::shared_ptr<grpc::Channel> channel, const Config& config,
                              const Io& io) {
  Explained explained;
  explained.question = config.question;
  std::vector<v1::Image> images;
  for (const std::string& path : config.images) {
    ASSIGN_OR_RETURN(images.emplace_back(), LoadImage(path));
    explained.images.push_back(images.back().data());
  }
  ChatSession session(std::move(channel), config.session, io.interrupt, nullptr);
  ASSIGN_OR_RETURN(const CallResult result, session.Ask(config.question, std::move(images)));
  if (!result.ok()) {
    return absl::InternalError(absl::StripAsciiWhitespace(FormatError(result.error)));
  }
  explained.answer = std::string(absl::StripAsciiWhitespace(result.text));
  explained.finished = result.finished;
  RETURN_IF_ERROR(CheckExplanation(result.finished.explanation(), config.images.size()));
  *io.out << Printable(explained.answer) << "\n";
  *io.err << Style(io.err_terminal).Dim(UsageLine(result)) << "\n";
  return explained;
}

}  // namespace

int RunExplain(const Args& args, const Io& io) {
  Config config;
  Options options("explain", kSummary);
  config.Register(&options);
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  auto channel = Connect(config.endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  if (config.question.empty()) {
    return options.UsageError(absl::InvalidArgumentError("a QUESTION must be given"), io);
  }
  const auto explained = Ask(*std::move(channel), config, io);
  absl::Status status = explained.status();
  if (status.ok()) status = WriteTextFile(config.out, RenderExplainPage(*explained));
  if (!status.ok()) {
    *io.err << Style(io.err_terminal).Red("error") << ": " << Printable(status.message()) << "\n";
    return kExitFailure;
  }
  *io.err << "wrote " << config.out << "\n";
  return kExitOk;
}

}  // namespace tessera::client
