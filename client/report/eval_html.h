// The picture of an evaluation: accuracy over KV bytes per token, a point for each policy, with the
// Pareto front, and the scores by task.
#pragma once

#include <string>
#include <vector>

#include "client/report/eval_report.h"

namespace tessera::client {

struct EvalPoint {
  std::string name;
  double bytes_per_token = 0;  // > 0
  double accuracy = 0;
};

// Indices of the points that no other one beats: none is at least as accurate with at most the
// bytes, and better in one of them. By bytes, ascending; of equal points all stay.
std::vector<size_t> ParetoFront(const std::vector<EvalPoint>& points);

// <svg>: accuracy over bytes per token (logarithmic). REQUIRES: points not empty.
std::string RenderParetoPicture(const std::vector<EvalPoint>& points);

// A standalone page. `questions` names the file; `tasks` are those whose mean the picture shows;
// empty: all.
std::string RenderEvalPage(const std::vector<EvalReport>& reports, const std::string& questions,
                           const std::vector<std::string>& tasks);

}  // namespace tessera::client
