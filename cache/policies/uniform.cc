// What the methods that store by bits share.
#include "absl/strings/numbers.h"
#include "cache/policies/policies.h"
#include "kernels/base.h"

namespace tessera {

Format TokenFormat(int64_t bits) {
  switch (bits) {
    case 8:
      return Format::kToken8;
    case 4:
      return Format::kToken4;
    case 2:
      return Format::kToken2;
    default:
      TESSERA_CHECK(bits == 1);
      return Format::kToken1;
  }
}

int64_t BitsOf(const PolicyArguments& arguments, absl::string_view name) {
  int64_t bits = 0;
  TESSERA_CHECK(absl::SimpleAtoi(arguments.Choice(name), &bits));
  return bits;
}

}  // namespace tessera
