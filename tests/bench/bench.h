// Helpers of the benchmarks: commands with declared flags, interleaved timing, and a report as a
// table for people or JSON lines for programs.
//
// A benchmark compares within one run: it times all candidates in turn for several rounds and
// reports medians, so a machine that slows down slows all candidates. Threads: one thread.
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
  // Parses --name=value. INVALID_ARGUMENT for a name that is not in `known`.
  static absl::StatusOr<Flags> Parse(const std::vector<Flag>& known,
                                     const std::vector<std::string>& arguments);
  const std::string& Text(absl::string_view name) const;
  // Return a flag's number or list of numbers. Exit with a message if the text is not positive
  // numbers.
  int64_t Number(absl::string_view name) const;
  std::vector<int64_t> Numbers(absl::string_view name) const;

 private:
  std::map<std::string, std::string> values_;
};

// Rows of named cells. All rows of a report should have the same columns.
class Report {
 public:
  Report& Row();  // begins a row
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

// A command. Every command also has TimingFlags and --json. `run` fills the report; its error is
// printed and the exit code is 1.
struct Command {
  const char* name;
  const char* help;
  std::vector<Flag> flags;
  absl::Status (*run)(const Flags& flags, Report& report);
};

// Returns --rounds and --clock, which every command has.
std::vector<Flag> TimingFlags();

// Returns each candidate's median seconds over --rounds rounds; each round runs every candidate
// once. `candidate(round)` is called once before, untimed, with round -1. --clock=cpu measures the
// process's CPU time instead: better on a busy machine with one thread.
std::vector<double> MedianSeconds(
    const Flags& flags, const std::vector<std::function<void(int64_t round)>>& candidates);

// Returns values in [-1, 1), cheap enough for large inputs.
class FastRandom {
 public:
  explicit FastRandom(uint64_t seed) : state_(seed * 2 + 1) {}
  float Next();
  void Fill(float* to, int64_t n);

 private:
  uint64_t state_;
};

}  // namespace tessera::bench
