#include "client/commands/generate_line.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "client/rpc/prompt_parts.h"
#include "client/rpc/usage.h"

namespace tessera::client {
namespace {

using absl::InvalidArgumentError;
using nlohmann::json;

absl::StatusOr<v1::Message::Role> ParseRole(const std::string& role) {
  if (role == "system") return v1::Message::ROLE_SYSTEM;
  if (role == "user") return v1::Message::ROLE_USER;
  if (role == "assistant") return v1::Message::ROLE_ASSISTANT;
  return InvalidArgumentError(
      absl::StrCat("role \"", role, "\" is none of system, user and assistant"));
}

absl::Status ParsePart(const json& part, const std::string& directory, v1::ContentPart* out) {
  if (!part.is_object()) return InvalidArgumentError("a content part must be an object");
  Fields fields(part);
  std::string type, text, path;
  RETURN_IF_ERROR(fields.Get("type", &type));
  if (type == "text") {
    if (fields.Find("text") == nullptr) return InvalidArgumentError("a text part needs \"text\"");
    RETURN_IF_ERROR(fields.Get("text", &text));
    out->set_text(text);
  } else if (type == "image") {
    RETURN_IF_ERROR(fields.Get("path", &path));
    if (path.empty()) return InvalidArgumentError("an image part needs \"path\"");
    ASSIGN_OR_RETURN(*out->mutable_image(), LoadImage(ResolvePath(directory, path)));
  } else {
    return InvalidArgumentError(absl::StrCat("type \"", type, "\" is neither text nor image"));
  }
  return fields.CheckAllUsed();
}

absl::Status ParseMessage(const json& message, const std::string& directory, v1::Message* out) {
  if (!message.is_object()) return InvalidArgumentError("not an object");
  Fields fields(message);
  std::string role;
  RETURN_IF_ERROR(fields.Get("role", &role));
  ASSIGN_OR_RETURN(const v1::Message::Role parsed, ParseRole(role));
  out->set_role(parsed);
  const json* content = fields.Find("content");
  if (content != nullptr && content->is_string()) {
    out->add_content()->set_text(content->get<std::string>());
  } else if (content != nullptr && content->is_array()) {
    for (const json& part : *content) {
      RETURN_IF_ERROR(ParsePart(part, directory, out->add_content()));
    }
  } else {
    return InvalidArgumentError("\"content\" must be a string or a list of parts");
  }
  return fields.CheckAllUsed();
}

absl::Status ParseMessages(const json& messages, const std::string& directory,
                           v1::GenerateRequest* request) {
  if (!messages.is_array() || messages.empty()) {
    return InvalidArgumentError("\"messages\" must be a list of at least one message");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const absl::Status status = ParseMessage(messages[i], directory, request->add_messages());
    if (status.ok()) continue;
    return InvalidArgumentError(absl::StrCat("messages[", i, "]: ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status ParsePrompt(Fields* fields, const LineDefaults& defaults,
                         v1::GenerateRequest* request) {
  std::string prompt, system = defaults.system;
  std::vector<std::string> paths;
  bool raw = false;
  RETURN_IF_ERROR(fields->Get("prompt", &prompt));
  RETURN_IF_ERROR(fields->Get("images", &paths));
  RETURN_IF_ERROR(fields->Get("raw", &raw));
  const bool line_has_system = fields->Find("system") != nullptr;
  RETURN_IF_ERROR(fields->Get("system", &system));
  std::vector<v1::Image> images;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(images.emplace_back(), LoadImage(ResolvePath(defaults.image_directory, path)));
  }
  if (raw) {
    if (line_has_system) return InvalidArgumentError("\"raw\" and \"system\" exclude each other");
    ASSIGN_OR_RETURN(*request->mutable_content(),
                     SplitAtMarkers(prompt, kRawMarker, std::move(images)));
    request->set_apply_template(false);
    return absl::OkStatus();
  }
  if (!system.empty()) {
    v1::Message& message = *request->add_messages();
    message.set_role(v1::Message::ROLE_SYSTEM);
    message.add_content()->set_text(system);
  }
  v1::Message& user = *request->add_messages();
  user.set_role(v1::Message::ROLE_USER);
  ASSIGN_OR_RETURN(*user.mutable_content(), TurnParts(prompt, std::move(images)));
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseLine(absl::string_view line, int64_t number, const LineDefaults& defaults,
                       LineRequest* out) {
  out->id = number;
  ASSIGN_OR_RETURN(const json object, ParseObject(line));
  Fields fields(object);
  if (const json* id = fields.Find("id"); id != nullptr) {
    if (!id->is_string() && !id->is_number()) {
      return InvalidArgumentError("\"id\" must be a string or a number");
    }
    out->id = *id;
  }
  const json* messages = fields.Find("messages");
  const bool has_prompt = fields.Find("prompt") != nullptr;
  if (has_prompt == (messages != nullptr)) {
    return InvalidArgumentError("a line needs either \"prompt\" or \"messages\"");
  }
  if (has_prompt) {
    RETURN_IF_ERROR(ParsePrompt(&fields, defaults, &out->request));
  } else {
    RETURN_IF_ERROR(ParseMessages(*messages, defaults.image_directory, &out->request));
  }
  GenerationOptions generation = defaults.generation;
  RETURN_IF_ERROR(generation.Read(&fields));
  RETURN_IF_ERROR(fields.CheckAllUsed());
  generation.Apply(&out->request);
  return absl::OkStatus();
}

nlohmann::ordered_json AnswerLine(const json& id, const FinalResult& result) {
  nlohmann::ordered_json line;
  line["id"] = id;
  if (result.call.ok()) {
    line["text"] = result.call.text;
    AddFinish(result.call.finished, &line);
  } else {
    if (!result.call.text.empty()) line["text"] = result.call.text;
    line["error"] = ToJson(result.call.error);
  }
  line["attempts"] = result.attempts;
  return line;
}

nlohmann::ordered_json ErrorLine(const json& id, absl::string_view code,
                                 absl::string_view message) {
  nlohmann::ordered_json line;
  line["id"] = id;
  line["error"] = {{"code", std::string(code)}, {"message", std::string(message)}};
  return line;
}

}  // namespace tessera::client
