// `none`: every token stays, in RAW16.
#include "cache/policies/policies.h"

namespace tessera {

PolicyEntry NonePolicy() {
  return {"none", "Every token stays, at 16 bit.", /*parameters=*/{}, nullptr, nullptr};
}

}  // namespace tessera
