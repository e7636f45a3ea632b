#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "google/protobuf/unknown_field_set.h"
#include "server/api/error_details.h"
#include "server/api/parsed_request.h"

namespace tessera {
namespace {

constexpr int kMaxMessageParts = 100'000;

// Recurses as deep as the schema, which has no cycles.
absl::Status VisitFields(const google::protobuf::Message& message, const std::string& path,
                         int* visited) {
  if (++*visited > kMaxMessageParts) {
    return FieldError(path, absl::StrCat("a request of more than ", kMaxMessageParts, " parts"),
                      reason::kLimitExceeded);
  }
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    return FieldError(path.empty() ? "request" : path,
                      absl::StrCat("field number ", unknown.field(0).number(),
                                   " is not known to this server: is the client newer?"),
                      reason::kUnknownField);
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string name = absl::StrCat(path, path.empty() ? "" : ".", field->name());
    if (!field->is_repeated()) {
      RETURN_IF_ERROR(VisitFields(reflection.GetMessage(message, field), name, visited));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      RETURN_IF_ERROR(VisitFields(reflection.GetRepeatedMessage(message, field, i),
                                  absl::StrCat(name, "[", i, "]"), visited));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckNoUnknownFields(const google::protobuf::Message& message) {
  int visited = 0;
  return VisitFields(message, "", &visited);
}

}  // namespace tessera
