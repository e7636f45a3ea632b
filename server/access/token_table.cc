#include "server/access/token_table.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/base.h"
#include "base/read_file.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"

namespace tessera {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxTokens = 4096;  // each call compares with all of them
constexpr size_t kMaxNameBytes = 64;
constexpr int kMaxLimit = 1 << 24;

absl::Status Wrong(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::Status ParseName(absl::string_view name) {
  const bool good = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (good && name.size() <= kMaxNameBytes) return absl::OkStatus();
  return Wrong(absl::StrCat("a name has 1 to ", kMaxNameBytes,
                            " letters, digits, dots, underscores and dashes"));
}

absl::Status ParsePolicies(absl::string_view text, std::vector<std::string>* out) {
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    std::vector<std::string> known;
    for (const PolicyInfo& info : PolicyTable()) known.push_back(info.name);
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Wrong(absl::StrCat("policies: \"", name,
                                "\" is an unknown policy; known: ", absl::StrJoin(known, ", ")));
    }
    out->emplace_back(name);
  }
  std::sort(out->begin(), out->end());
  return absl::OkStatus();
}

absl::Status ParseLimit(absl::string_view word, TenantLimits* out) {
  if (word == "admin") {
    out->admin = true;
    return absl::OkStatus();
  }
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(word, absl::MaxSplits('=', 1));
  const auto& [key, value] = parts;
  if (key == "policies") return ParsePolicies(value, &out->policies);
  int* number = key == "requests_per_minute" ? &out->requests_per_minute
                : key == "concurrent"        ? &out->concurrent
                : key == "max_tokens"        ? &out->max_tokens
                                             : nullptr;
  if (number == nullptr) {
    return Wrong(absl::StrCat("\"", word,
                              "\" is an unknown limit; known: requests_per_minute=N, concurrent=N, "
                              "max_tokens=N, policies=NAME,NAME and admin"));
  }
  if (!absl::SimpleAtoi(value, number) || *number < 1 || *number > kMaxLimit) {
    return Wrong(absl::StrCat(key, ": want a number from 1 to ", kMaxLimit));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TokenTable::AddLine(absl::string_view line) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  Entry entry;
  // The error does not repeat the word: it may be a token that was put here by mistake.
  if (words[0].size() != 2 * entry.digest.size() ||
      !std::all_of(words[0].begin(), words[0].end(), absl::ascii_isxdigit)) {
    return Wrong("want the SHA-256 of a token, 64 hexadecimal digits, first");
  }
  const std::string bytes = absl::HexStringToBytes(words[0]);
  std::copy(bytes.begin(), bytes.end(), entry.digest.begin());
  if (words.size() < 2) return Wrong("want a name after the hash");
  Tenant tenant;
  tenant.name = std::string(words[1]);
  RETURN_IF_ERROR(ParseName(words[1]));
  std::vector<absl::string_view> keys;
  for (size_t i = 2; i < words.size(); ++i) {
    keys.push_back(words[i].substr(0, words[i].find('=')));
    if (std::count(keys.begin(), keys.end(), keys.back()) > 1) {
      return Wrong(absl::StrCat(keys.back(), " is given twice"));
    }
    RETURN_IF_ERROR(ParseLimit(words[i], &tenant.limits));
  }
  for (const Entry& other : entries_) {
    if (other.digest == entry.digest) return Wrong("an earlier line has this hash");
  }
  const auto same = std::find_if(tenants_.begin(), tenants_.end(),
                                 [&](const Tenant& t) { return t.name == tenant.name; });
  entry.tenant = static_cast<size_t>(same - tenants_.begin());
  if (same == tenants_.end()) {
    tenants_.push_back(std::move(tenant));
  } else if (!(same->limits == tenant.limits)) {
    return Wrong(absl::StrCat("an earlier line gives ", tenant.name, " other limits"));
  }
  if (entries_.size() == kMaxTokens)
    return Wrong(absl::StrCat("more than ", kMaxTokens, " tokens"));
  entries_.push_back(entry);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const TokenTable>> TokenTable::Parse(absl::string_view text) {
  auto table = std::make_shared<TokenTable>();
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    if (absl::Status status = table->AddLine(line); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", status.message()));
    }
  }
  // An empty file is more likely truncated than meant to lock out every caller.
  if (table->entries_.empty()) return absl::InvalidArgumentError("no token in it");
  return table;
}

absl::StatusOr<std::shared_ptr<const TokenTable>> TokenTable::Read(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  auto table = Parse(text);
  if (table.ok()) return table;
  return absl::Status(table.status().code(), absl::StrCat(path, ": ", table.status().message()));
}

const Tenant* TokenTable::Find(absl::string_view token) const {
  const Digest digest = Hasher().Add(token.data(), token.size()).Finish();
  const Tenant* found = nullptr;
  for (const Entry& entry : entries_) {
    const bool same = CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0;
    found = same ? &tenants_[entry.tenant] : found;
  }
  return found;
}

}  // namespace tessera
