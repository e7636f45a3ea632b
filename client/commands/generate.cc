// `tessera generate`: answers a file of JSON lines, with many calls in flight.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/format.h"
#include "client/cli/line_feed.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"
#include "client/commands/generate_line.h"
#include "client/rpc/connection.h"
#include "client/rpc/prompt_parts.h"
#include "client/rpc/usage.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Answers JSON lines. Each line is an object with \"prompt\" or \"messages\" ([{\"role\", "
    "\"content\"}]), an optional \"id\", and any of the generation settings below by name.\n"
    "A prompt may have \"images\": [paths]; {image} in the prompt marks their places. With "
    "\"raw\": true the prompt is sent without chat template, and <image> marks the places. Image "
    "paths are relative to the input file.\n"
    "Writes one line for each: {\"id\", \"text\", \"finish_reason\", \"usage\", \"attempts\"} or "
    "{\"id\", \"error\"}. Calls are retried when the server is full or unavailable. Ctrl-C stops "
    "reading, and every line that was read still gets its answer line.\n"
    "Exits with status 1 if a line failed.";

struct Config {
  Endpoint endpoint{kDefaultAddress};
  std::string input = "-", output = "-";
  std::optional<std::string> image_directory;
  int concurrency = 16;
  bool unordered = false;
  LineDefaults line;
  RetryPolicy retry;

  void Register(Options* options) {
    endpoint.Register(options);
    options->Add("input", "FILE", &input, "the lines to answer; - is the standard input");
    options->Add("output", "FILE", &output, "where answers go; - is the standard output");
    options->Add("image_directory", "DIR", &image_directory,
                 "image paths are relative to this instead of the input file's directory");
    options->Add("concurrency", &concurrency, Range<int>{1, 65536}, "calls in flight");
    options->Add("unordered", &unordered, "write answers as they come instead of in input order");
    options->Add("system", "TEXT", &line.system, "system prompt of lines with a \"prompt\"");
    line.generation.Register(options);
    retry.Register(options);
  }
};

class Generator {
 public:
  Generator(std::shared_ptr<grpc::Channel> channel, const Config& config, const Io& io, int fd,
            std::ostream* out)
      : config_(config),
        // Answers that wait for an earlier one take memory, so the run-ahead has a limit.
        max_ahead_(std::max(1024, 16 * config.concurrency)),
        io_(io),
        out_(*out),
        calls_(std::move(channel), config.retry),
        feed_(fd, [this] { calls_.Wake(); }) {}

  int Run() {
    ProgressBar bar(io_);
    Interrupt::Scope on_interrupt(io_.interrupt, [this] {
      feed_.Stop();
      calls_.Stop();
    });
    while (true) {
      while (HasRoom()) {
        std::optional<std::string> line = feed_.TryNext();
        if (!line) break;
        Begin(*line);
      }
      if (feed_.ended() && calls_.in_flight() == 0) break;
      if (auto result = calls_.Next()) {
        const int64_t index = result->call.tag;
        Answer(index, result->call.ok(), AnswerLine(ids_.at(index), *result));
        ids_.erase(index);
      }
      if (!out_.good()) break;  // further answers could not be written
      bar.Update(done_, feed_.ended() ? lines_ : 0, failed_);
    }
    out_.flush();
    return Finish();
  }

 private:
  bool HasRoom() const {
    return calls_.in_flight() < config_.concurrency && lines_ - written_ < max_ahead_;
  }

  void Begin(const std::string& line) {
    ++line_number_;
    if (absl::StripAsciiWhitespace(line).empty()) return;
    const int64_t index = lines_++;
    LineRequest parsed;
    const absl::Status status = ParseLine(line, line_number_, config_.line, &parsed);
    if (!status.ok()) {
      Answer(index, false,
             ErrorLine(parsed.id, absl::StatusCodeToString(status.code()), status.message()));
    } else if (calls_.stopped()) {
      Answer(index, false, ErrorLine(parsed.id, "CANCELLED", "interrupted before it was sent"));
    } else {
      ids_[index] = std::move(parsed.id);
      calls_.Start(index, std::move(parsed.request));
    }
  }

  void Answer(int64_t index, bool good, const nlohmann::ordered_json& line) {
    ++done_;
    if (!good) ++failed_;
    if (config_.unordered) {
      ++written_;
      out_ << ToLine(line) << "\n";
      out_.flush();
      return;
    }
    waiting_[index] = ToLine(line);
    while (!waiting_.empty() && waiting_.begin()->first == written_) {
      out_ << waiting_.begin()->second << "\n";
      waiting_.erase(waiting_.begin());
      ++written_;
    }
    out_.flush();
  }

  int Finish() {
    if (!out_.good()) {
      *io_.err << "tessera generate: the output could not be written\n";
      return kExitFailure;
    }
    if (const std::string error = feed_.error(); !error.empty()) {
      *io_.err << "tessera generate: input: " << error << "\n";
      return kExitFailure;
    }
    if (failed_ == 0 && !calls_.stopped()) return kExitOk;
    *io_.err << "tessera generate: " << FormatCount(failed_) << " of " << FormatCount(lines_)
             << " lines failed" << (calls_.stopped() ? "; interrupted" : "") << "\n";
    return kExitFailure;
  }

  const Config& config_;
  const int64_t max_ahead_;
  const Io& io_;
  std::ostream& out_;
  RetryingCalls calls_;
  LineFeed feed_;  // wakes calls_, so it is destroyed first
  int64_t line_number_ = 0, lines_ = 0, written_ = 0, done_ = 0, failed_ = 0;
  std::map<int64_t, nlohmann::json> ids_;   // ids of the calls in flight
  std::map<int64_t, std::string> waiting_;  // answers that an earlier line holds back
};

}  // namespace

int RunGenerate(const Args& args, const Io& io) {
  Config config;
  Options options("generate", kSummary);
  config.Register(&options);
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  if (config.input != "-" && config.input == config.output) {
    return options.UsageError(absl::InvalidArgumentError("--output would overwrite --input"), io);
  }
  auto channel = Connect(config.endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  const bool from_file = config.input != "-";
  config.line.image_directory =
      config.image_directory.value_or(from_file ? DirectoryOf(config.input) : "");
  const int fd = from_file ? open(config.input.c_str(), O_RDONLY | O_CLOEXEC) : io.in_fd;
  if (fd < 0) {
    *io.err << "tessera generate: " << config.input << ": " << std::strerror(errno) << "\n";
    return kExitFailure;
  }
  std::ofstream file;
  if (config.output != "-") {
    file.open(config.output, std::ios::binary | std::ios::trunc);
    if (!file) {
      *io.err << "tessera generate: " << config.output << ": " << std::strerror(errno) << "\n";
      if (from_file) close(fd);
      return kExitFailure;
    }
  }
  int code;
  {
    Generator generator(*std::move(channel), config, io, fd, config.output != "-" ? &file : io.out);
    code = generator.Run();
  }
  if (from_file) close(fd);
  return code;
}

}  // namespace tessera::client
