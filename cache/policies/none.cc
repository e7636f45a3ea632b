// `none`: every token stays, in RAW16.
#include "cache/policies/policies.h"
#include "kernels/base.h"

namespace tessera {
namespace {

class None final : public Policy {
 public:
  std::string Text() const override { return "none"; }
  int64_t PeakBytes(int64_t tokens, const KvGeometry& geometry) const override {
    const int64_t pages = CeilDiv<int64_t>(tokens, PageTokens(Format::kRaw16));
    return geometry.layers * pages * PageBytes(Format::kRaw16, geometry);
  }
};

absl::StatusOr<std::shared_ptr<const Policy>> MakeNone(const PolicyArguments&) {
  return std::make_shared<None>();
}

}  // namespace

PolicyEntry NonePolicy() {
  return {"none", "Every token stays, at 16 bit.", /*parameters=*/{}, MakeNone};
}

}  // namespace tessera
