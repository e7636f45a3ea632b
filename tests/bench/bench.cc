#include "tests/bench/bench.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/base.h"

namespace tessera::bench {

absl::StatusOr<Flags> Flags::Parse(const std::vector<Flag>& known,
                                   const std::vector<std::string>& arguments) {
  Flags flags;
  for (const Flag& f : known) flags.values_[f.name] = f.value;
  for (const std::string& argument : arguments) {
    const size_t equals = argument.find('=');
    const std::string name =
        argument.size() > 2 && equals != std::string::npos ? argument.substr(2, equals - 2) : "";
    if (argument.substr(0, 2) != "--" || !flags.values_.count(name)) {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument \"", argument, "\""));
    }
    flags.values_[name] = argument.substr(equals + 1);
  }
  return flags;
}

const std::string& Flags::Text(absl::string_view name) const {
  const auto it = values_.find(std::string(name));
  TESSERA_CHECK(it != values_.end());
  return it->second;
}

std::vector<int64_t> Flags::Numbers(absl::string_view name) const {
  std::vector<int64_t> numbers;
  for (absl::string_view part : absl::StrSplit(Text(name), ',')) {
    int64_t n;
    if (!absl::SimpleAtoi(part, &n) || n <= 0) {
      std::fprintf(stderr, "--%s: \"%s\" is not a list of positive numbers\n",
                   std::string(name).c_str(), Text(name).c_str());
      std::exit(2);
    }
    numbers.push_back(n);
  }
  return numbers;
}

int64_t Flags::Number(absl::string_view name) const {
  const std::vector<int64_t> numbers = Numbers(name);
  if (numbers.size() != 1) {
    std::fprintf(stderr, "--%s takes one number\n", std::string(name).c_str());
    std::exit(2);
  }
  return numbers[0];
}

Report& Report::Row() {
  rows_.emplace_back();
  return *this;
}

Report& Report::Text(const char* column, absl::string_view value) {
  rows_.back().push_back({column, std::string(value), true});
  return *this;
}

Report& Report::Number(const char* column, double value, int digits) {
  rows_.back().push_back({column, absl::StrFormat("%.*f", digits, value), false});
  return *this;
}

void Report::Print(bool json) const {
  if (json) {
    for (const auto& row : rows_) {
      const char* separator = "{";
      for (const Cell& cell : row) {  // all columns and texts are constants: no escaping needed
        const char* quote = cell.quoted ? "\"" : "";
        std::printf("%s\"%s\": %s%s%s", separator, cell.column, quote, cell.text.c_str(), quote);
        separator = ", ";
      }
      std::printf("}\n");
    }
    return;
  }
  if (rows_.empty()) return;
  std::vector<int> widths;
  for (const Cell& cell : rows_[0])
    widths.push_back(static_cast<int>(std::string(cell.column).size()));
  for (const auto& row : rows_) {
    TESSERA_CHECK(row.size() == widths.size());
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], static_cast<int>(row[i].text.size()));
    }
  }
  for (size_t i = 0; i < widths.size(); ++i) std::printf("%*s  ", widths[i], rows_[0][i].column);
  std::printf("\n");
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) std::printf("%*s  ", widths[i], row[i].text.c_str());
    std::printf("\n");
  }
}

std::vector<Flag> TimingFlags() {
  return {{"rounds", "15", "timed runs; the median is reported"},
          {"clock", "wall", "wall, or cpu: processor time, for one thread on a busy machine"}};
}

std::vector<double> MedianSeconds(const Flags& flags,
                                  const std::vector<std::function<void(int64_t)>>& candidates) {
  if (flags.Text("clock") != "cpu" && flags.Text("clock") != "wall") {
    std::fprintf(stderr, "--clock is wall or cpu\n");
    std::exit(2);
  }
  const clockid_t clock = flags.Text("clock") == "cpu" ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
  const auto now = [clock] {
    timespec t;
    TESSERA_CHECK(clock_gettime(clock, &t) == 0);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  std::vector<std::vector<double>> seconds(candidates.size());
  for (const auto& candidate : candidates) candidate(-1);
  for (int64_t round = 0; round < flags.Number("rounds"); ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double start = now();
      candidates[i](round);
      seconds[i].push_back(now() - start);
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& s : seconds) {
    std::nth_element(s.begin(), s.begin() + s.size() / 2, s.end());
    medians.push_back(s[s.size() / 2]);
  }
  return medians;
}

float FastRandom::Next() {
  state_ = state_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * 0x1p-31f;
}

void FastRandom::Fill(float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = Next();
}

}  // namespace tessera::bench
