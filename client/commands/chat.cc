// `tessera chat`: single messages or an interactive conversation about images.
#include <iostream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/line_reader.h"
#include "client/cli/terminal.h"
#include "client/commands/chat_session.h"
#include "client/commands/commands.h"
#include "client/rpc/connection.h"
#include "client/rpc/usage.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Asks a tesserad server about images. Each --message is one turn of a conversation. Without "
    "--message, turns are read from the terminal, or line by line from a pipe.\n"
    "An --image belongs to the next --message, or to the last one if none follows. Images come "
    "before the text in order, unless the text marks their places with {image}.\n"
    "In a conversation, /image FILE adds an image to the next message, /clear forgets the turns, "
    "and /quit ends it. Ctrl-C cancels the running answer.\n"
    "Exits with status 1 if an answer failed or differs from --expect.";

struct Turn {
  std::vector<std::string> images;
  std::string text;
};

struct Config {
  Endpoint endpoint{kDefaultAddress};
  std::vector<Turn> turns;
  std::vector<std::string> images;  // given after the last message
  ChatSession::Settings session;
  std::optional<std::string> expect;
  bool json = false;
};

// --image and --message depend on order: images are collected until their message comes.
void Register(Options* options, Config* config) {
  config->endpoint.Register(options);
  options->AddEach(
      "image", "FILE",
      [config](absl::string_view path) -> absl::Status {
        config->images.emplace_back(path);
        return absl::OkStatus();
      },
      "an image for the next --message");
  options->AddEach(
      "message", "TEXT",
      [config](absl::string_view text) -> absl::Status {
        config->turns.push_back({std::exchange(config->images, {}), std::string(text)});
        return absl::OkStatus();
      },
      "ask this; without it turns are read from the input");
  options->Add("system", "TEXT", &config->session.system, "system prompt");
  options->Add("raw", &config->session.raw,
               "send the one --message as the whole prompt, without chat template; images "
               "replace its <image> markers");
  options->Add("expect", "TEXT", &config->expect,
               "exit with status 1 unless the last answer is this; spaces around it are ignored");
  options->Add("json", &config->json, "print each answer as one JSON line instead of streaming it");
  config->session.generation.Register(options);
  options->Add("timeout", &config->session.timeout, "deadline of an answer; 0 is no limit");
}

absl::Status Check(Config* config) {
  if (!config->turns.empty() && !config->images.empty()) {
    std::vector<std::string>& last = config->turns.back().images;
    last.insert(last.end(), config->images.begin(), config->images.end());
    config->images.clear();
  }
  if (config->session.raw) {
    if (config->turns.size() != 1) {
      return absl::InvalidArgumentError("--raw needs exactly one --message");
    }
    if (!config->session.system.empty()) {
      return absl::InvalidArgumentError("--raw and --system exclude each other");
    }
  }
  if (config->expect && config->turns.empty()) {
    return absl::InvalidArgumentError("--expect needs a --message");
  }
  return absl::OkStatus();
}

class Chat {
 public:
  Chat(std::shared_ptr<grpc::Channel> channel, const Config& config, const Io& io)
      : config_(config),
        io_(io),
        style_(io.err_terminal),
        session_(std::move(channel), config.session, io.interrupt,
                 [this](int64_t, absl::string_view text) { Stream(text); }) {}

  int RunTurns(const std::vector<Turn>& turns) {
    std::string answer;
    for (const Turn& turn : turns) {
      if (!AskAndPrint(turn, &answer)) return kExitFailure;
    }
    if (!config_.expect) return kExitOk;
    const absl::string_view got = absl::StripAsciiWhitespace(answer);
    const absl::string_view wanted = absl::StripAsciiWhitespace(*config_.expect);
    if (got == wanted) return kExitOk;
    *io_.err << style_.Red("unexpected answer") << ": got \"" << Shown(got) << "\", expected \""
             << wanted << "\"\n";
    return kExitFailure;
  }

  int RunConversation(std::vector<std::string> images) {
    LineReader reader(io_.in_fd);
    const bool prompts = io_.in_terminal && io_.out_terminal;
    bool all_good = true;
    Turn next{std::move(images), ""};
    if (prompts) {
      *io_.out << Style(true).Dim("/image FILE, /clear, /quit; Ctrl-C cancels an answer") << "\n";
    }
    // The terminal drops the typed line by itself, so only the prompt is shown again.
    Interrupt::Scope at_prompt(io_.interrupt, [this, prompts] {
      if (prompts)
        *io_.out << "\n" << Style(true).Dim("(/quit or Ctrl-D ends)") << "\n> " << std::flush;
    });
    while (true) {
      if (prompts) *io_.out << Style(true).Bold("> ") << std::flush;
      std::optional<std::string> line = reader.Next();
      if (!line || *line == "/quit" || *line == "/exit") break;
      if (absl::StripAsciiWhitespace(*line).empty()) continue;
      if (line->front() == '/') {
        all_good &= Command(*line, &next);
        continue;
      }
      next.text = *std::move(line);
      std::string answer;
      // After an error the images stay with the next message.
      if (AskAndPrint(next, &answer)) {
        next = Turn();
      } else {
        all_good = false;
      }
    }
    if (!reader.error().empty()) {
      *io_.err << "tessera chat: input: " << reader.error() << "\n";
      return kExitFailure;
    }
    // People see errors as they come. A script needs them in the exit status.
    return all_good || prompts ? kExitOk : kExitFailure;
  }

 private:
  std::string Shown(absl::string_view text) const {
    return io_.out_terminal ? Printable(text) : std::string(text);
  }

  void Stream(absl::string_view text) {
    if (config_.json) return;
    // Some models start an answer with a space, because they join words with spaces.
    if (at_start_) text = absl::StripLeadingAsciiWhitespace(text);
    if (text.empty()) return;
    at_start_ = false;
    *io_.out << Shown(text) << std::flush;
  }

  bool Command(const std::string& line, Turn* next) {
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "/image ")) {
      const std::string path(absl::StripAsciiWhitespace(rest));
      const auto image = LoadImage(path);
      if (!image.ok()) {
        *io_.err << style_.Red("error") << ": " << image.status().message() << "\n";
        return false;
      }
      next->images.push_back(path);
      return true;
    }
    if (line == "/clear") {
      session_.Clear();
      *next = Turn();
      return true;
    }
    *io_.err << style_.Red("error") << ": commands are /image FILE, /clear and /quit\n";
    return false;
  }

  bool AskAndPrint(const Turn& turn, std::string* answer) {
    std::vector<v1::Image> images;
    for (const std::string& path : turn.images) {
      auto image = LoadImage(path);
      if (!image.ok()) return Fail(absl::StrCat(image.status().message(), "\n"));
      images.push_back(*std::move(image));
    }
    at_start_ = true;
    const auto result = session_.Ask(turn.text, std::move(images));
    if (!result.ok()) return Fail(absl::StrCat(result.status().message(), "\n"));
    if (!config_.json && !at_start_) *io_.out << "\n" << std::flush;
    if (!result->ok()) return Fail(FormatError(result->error));
    *answer = result->text;
    if (config_.json) {
      nlohmann::ordered_json json;
      json["answer"] = result->text;
      AddFinish(result->finished, &json);
      *io_.out << ToLine(json) << std::endl;
    } else {
      *io_.err << style_.Dim(UsageLine(*result)) << "\n";
    }
    return true;
  }

  bool Fail(absl::string_view message) {
    *io_.err << style_.Red("error") << ": " << message;
    return false;
  }

  const Config& config_;
  const Io& io_;
  const Style style_;
  bool at_start_ = true;  // the stream's thread writes it while Ask waits, else this one
  ChatSession session_;
};

}  // namespace

int RunChat(const Args& args, const Io& io) {
  Config config;
  Options options("chat", kSummary);
  Register(&options, &config);
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  if (const auto status = Check(&config); !status.ok()) return options.UsageError(status, io);
  auto channel = Connect(config.endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  Chat chat(*std::move(channel), config, io);
  return config.turns.empty() ? chat.RunConversation(std::move(config.images))
                              : chat.RunTurns(config.turns);
}

}  // namespace tessera::client
