// `tessera stress`: writes a checkpoint that computes the same function but is harder to compress.
// Needs no server.
#include "tools/stress/stress.h"

#include "absl/strings/str_cat.h"
#include "client/cli/options.h"
#include "client/cli/terminal.h"
#include "client/commands/commands.h"

namespace tessera::client {
namespace {

constexpr char kSummary[] =
    "Writes a float32 copy of a llava-hf checkpoint. Its answers stay the same, but its keys are "
    "harder to store in few bits. Needs no server.\n"
    "--factor F plants key outliers: in every head two RoPE pairs of W_k are multiplied by F, and "
    "those of W_q divided by F. No product of query and key changes.\n"
    "--massive plants massive activations, as trained LLaVA models have them: the first token gets "
    "an activation thousands of times the median, and large keys. For this the least important "
    "RoPE pair of each head is removed from the queries, so answers may differ a little.";

}  // namespace

int RunStress(const Args& args, const Io& io) {
  std::string model, out;
  StressOptions stress;
  Options options("stress", kSummary);
  options.Add("model", "DIR", &model, "the checkpoint to read; must be given");
  options.Add("out", "DIR", &out, "where to write: a new or empty directory; must be given");
  options.Add("factor", &stress.factor, Range<double>{1e-3, 1e4},
              "scale of the key outliers; 1 is none");
  options.Add("massive", &stress.massive, "plant massive activations");
  if (const auto code = options.ParseOrExit(args, io)) return *code;
  if (model.empty() || out.empty()) {
    return options.UsageError(absl::InvalidArgumentError("--model and --out must be given"), io);
  }
  if (stress.factor == 1 && !stress.massive) {
    return options.UsageError(
        absl::InvalidArgumentError("nothing to do: give --factor, --massive or both"), io);
  }
  const absl::Status status = WriteStressCheckpoint(model, out, stress);
  if (!status.ok()) {
    *io.err << Style(io.err_terminal).Red("error") << ": " << Printable(status.message()) << "\n";
    return kExitFailure;
  }
  *io.out << "wrote " << out << "\n";
  return kExitOk;
}

}  // namespace tessera::client
