// `tessera tokenize`: shows the ids and pieces of a text, as Generate sees them.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/json_fields.h"
#include "client/cli/options.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"
#include "client/rpc/connection.h"
#include "client/rpc/rpc_error.h"
#include "grpcpp/client_context.h"
#include "tessera/v1/tokenizer.grpc.pb.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Prints the id and piece of each token. The text is --text, or the whole standard input.";

// Returns every byte of the input, including line ends, because they are tokens too.
absl::StatusOr<std::string> ReadAll(int fd) {
  std::string text;
  char buffer[64 << 10];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer, got);
    } else if (errno != EINTR) {
      return absl::UnavailableError(std::strerror(errno));
    }
  }
}

}  // namespace

int RunTokenize(const Args& args, const Io& io) {
  Endpoint endpoint{kDefaultAddress};
  std::optional<std::string> text;
  bool no_special = false, json = false;
  absl::Duration timeout = absl::Seconds(30);
  Options options("tokenize", kSummary);
  endpoint.Register(&options);
  options.Add("text", "TEXT", &text, "the text");
  options.Add("no_special_tokens", &no_special,
              "leave out tokens that the tokenizer adds, such as BOS");
  options.Add("json", &json, "print one JSON line {\"ids\", \"pieces\"}");
  options.Add("timeout", &timeout, "deadline of the call; 0 is no limit");
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  auto channel = Connect(endpoint);
  if (!channel.ok()) return options.UsageError(channel.status(), io);
  v1::TokenizeRequest request;
  if (!text) {
    auto input = ReadAll(io.in_fd);
    if (!input.ok()) {
      *io.err << "tessera tokenize: input: " << input.status().message() << "\n";
      return kExitFailure;
    }
    text = *std::move(input);
  }
  request.set_text(*text);
  if (no_special) request.set_add_special_tokens(false);
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  SetTimeout(timeout, &context);
  const grpc::Status status =
      v1::Tokenizer::NewStub(*channel)->Tokenize(&context, request, &response);
  if (!status.ok()) {
    *io.err << Style(io.err_terminal).Red("error") << ": " << FormatError(DecodeError(status));
    return kExitFailure;
  }
  if (json) {
    nlohmann::ordered_json line;
    line["ids"] = std::vector<int>(response.ids().begin(), response.ids().end());
    line["pieces"] = std::vector<std::string>(response.pieces().begin(), response.pieces().end());
    *io.out << ToLine(line) << "\n";
    return kExitOk;
  }
  for (int i = 0; i < response.ids_size(); ++i) {
    const std::string piece = i < response.pieces_size() ? response.pieces(i) : "";
    *io.out << absl::StrFormat("%6d  %s\n", response.ids(i),
                               io.out_terminal ? Printable(piece) : piece);
  }
  return kExitOk;
}

}  // namespace tessera::client
