// What the benchmarks share: commands with declared flags, interleaved timing, one report as a
// table for people or JSON lines for machines.
//
// A benchmark compares in one run: it times all candidates in turn, several rounds, and reports
// medians, so that a machine that slows down slows all of them. Threads: one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera::bench {

struct Flag {
  const char* name;
  const char* value;  // default
  const char* help;
};

class Flags {
 public:
  // Parses --name=value; INVALID_ARGUMENT for a name that `known` lacks.
  static absl::StatusOr<Flags> Parse(const std::vector<Flag>& known,
                                     const std::vector<std::string>& arguments);
  const std::string& Text(absl::string_view name) const;
  // Exit with a message when the text is not a positive number (a list of them).
  int64_t Number(absl::string_view name) const;
  std::vector<int64_t> Numbers(absl::string_view name) const;

 private:
  std::map<std::string, std::string> values_;
};

// Rows of named cells. All rows of a report should have the same columns.
class Report {
 public:
  Report& Row();  // begins one
  Report& Text(const char* column, absl::string_view value);
  Report& Number(const char* column, double value, int digits);
  void Print(bool json) const;

 private:
  struct Cell {
    const char* column;
    std::string text;
    bool quoted;
  };
  std::vector<std::vector<Cell>> rows_;
};

// Every command also has TimingFlags and --json. `run` fills the report; an error is printed and
// exits 1.
struct Command {
  const char* name;
  const char* help;
  std::vector<Flag> flags;
  absl::Status (*run)(const Flags& flags, Report& report);
};

// --rounds and --clock, which every command has.
std::vector<Flag> TimingFlags();

// Median seconds of each candidate over --rounds rounds; in each round all run once, in turn.
// `candidate(round)` is called once more beforehand, untimed, with round -1. --clock=cpu counts the
// process's processor time instead: on a busy machine, with one thread, the better measure.
std::vector<double> MedianSeconds(
    const Flags& flags, const std::vector<std::function<void(int64_t round)>>& candidates);

// Values in [-1, 1), cheap enough for large operands.
class FastRandom {
 public:
  explicit FastRandom(uint64_t seed) : state_(seed * 2 + 1) {}
  float Next();
  void Fill(float* to, int64_t n);

 private:
  uint64_t state_;
};

}  // namespace tessera::bench
