// The page of an evaluation: a chart of accuracy over KV bytes per token with the Pareto front, and
// the scores by task. Threads: functions only, safe.
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

// Returns the indices of the points on the Pareto front, by ascending bytes. A point is on the
// front if no other one is at least as good in accuracy and bytes and better in one. Equal points
// all stay.
std::vector<size_t> ParetoFront(const std::vector<EvalPoint>& points);

// Returns the chart as <svg>; the axis of bytes is logarithmic. REQUIRES: `points` is not empty.
std::string RenderParetoPicture(const std::vector<EvalPoint>& points);

// Returns a standalone HTML page (html.h). `questions` is the name of the file. The chart shows the
// accuracy over `tasks`, or over all if it is empty.
std::string RenderEvalPage(const std::vector<EvalReport>& reports, const std::string& questions,
                           const std::vector<std::string>& tasks);

}  // namespace tessera::client
