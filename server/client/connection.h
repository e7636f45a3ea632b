// The address option and the channel that it names.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace tessera::client {

// Plaintext channel to "HOST:PORT", "[IPV6]:PORT" or "unix:PATH"; it connects at the first call.
// Messages of any size may be received. INVALID_ARGUMENT for an address of another form.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(absl::string_view address);

// Sets the call's deadline; 0 sets none.
void SetTimeout(absl::Duration timeout, grpc::ClientContext* context);

}  // namespace tessera::client
