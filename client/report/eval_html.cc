#include "client/report/eval_html.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/format.h"
#include "client/report/html.h"

namespace tessera::client {
namespace {

constexpr double kWidth = 920, kHeight = 480;
constexpr double kLeft = 56, kRight = 24, kTop = 16, kBottom = 48;
constexpr double kRadius = 5, kLetter = 6.4, kLine = 15;  // of a label: width, height

struct Box {
  double left, top, right, bottom;
  bool Meets(const Box& o) const {
    return left < o.right && o.left < right && top < o.bottom && o.top < bottom;
  }
};

// Pixels of the plane; bytes are logarithmic.
class Axes {
 public:
  explicit Axes(const std::vector<EvalPoint>& points) {
    double least = points[0].bytes_per_token, most = least, low = 1;
    for (const EvalPoint& p : points) {
      least = std::min(least, p.bytes_per_token);
      most = std::max(most, p.bytes_per_token);
      low = std::min(low, p.accuracy);
    }
    first_ = std::floor(std::log2(least) - 0.1);
    last_ = std::max(std::ceil(std::log2(most) + 0.1), first_ + 1);
    bottom_ = std::floor(low * 10 - 1e-9) / 10;
    bottom_ = std::clamp(bottom_, 0.0, 0.9);
  }
  double X(double bytes) const {
    return kLeft + (std::log2(bytes) - first_) / (last_ - first_) * (kWidth - kLeft - kRight);
  }
  double Y(double accuracy) const {
    return kHeight - kBottom - (accuracy - bottom_) / (1 - bottom_) * (kHeight - kTop - kBottom);
  }
  std::string Grid() const {
    std::string out;
    for (int power = static_cast<int>(first_); power <= static_cast<int>(last_); ++power) {
      const double x = X(std::exp2(power));
      absl::StrAppendFormat(&out,
                            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
                            "stroke=\"var(--line)\"/>\n<text class=\"soft\" x=\"%.1f\" y=\"%.1f\" "
                            "text-anchor=\"%s\">%s</text>\n",
                            x, kTop, x, kHeight - kBottom, x, kHeight - kBottom + 18,
                            power == static_cast<int>(last_) ? "end" : "middle",
                            FormatBytes(std::llround(std::exp2(power))));
    }
    const int ticks = static_cast<int>(std::lround((1 - bottom_) * 10));
    for (int i = 0; i <= ticks; ++i) {
      const double accuracy = bottom_ + i / 10.0, y = Y(accuracy);
      absl::StrAppendFormat(&out,
                            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
                            "stroke=\"var(--line)\"/>\n<text class=\"soft\" x=\"%.1f\" y=\"%.1f\" "
                            "text-anchor=\"end\">%.1f</text>\n",
                            kLeft, y, kWidth - kRight, y, kLeft - 8, y + 4, accuracy);
    }
    absl::StrAppendFormat(&out,
                          "<text class=\"soft\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">KV bytes "
                          "per token</text>\n",
                          kWidth - kRight, kHeight - 8);
    return out;
  }

 private:
  double first_, last_;  // powers of two
  double bottom_;
};

// Where a label of this width fits beside (x, y): the nearest place that meets nothing in `taken`.
Box PlaceLabel(double x, double y, double width, const std::vector<Box>& taken) {
  Box fallback{};
  for (int shift = 0; shift < 40; ++shift) {
    for (const int side : {1, -1}) {
      for (const int up : {0, 1}) {
        const double left = side > 0 ? x + 10 : x - 10 - width;
        const double top = y - kLine / 2 + (up == 0 ? shift : -shift) * (kLine / 2);
        const Box box{left, top, left + width, top + kLine};
        if (shift == 0 && side > 0 && up == 0) fallback = box;
        if (box.left < kLeft || box.right > kWidth - 2 || box.top < 0 ||
            box.bottom > kHeight - kBottom) {
          continue;
        }
        const bool free = std::none_of(taken.begin(), taken.end(),
                                       [&](const Box& other) { return other.Meets(box); });
        if (free) return box;
      }
    }
  }
  return fallback;
}

std::vector<std::string> TaskNames(const std::vector<EvalReport>& reports) {
  std::set<std::string> names;
  for (const EvalReport& report : reports) {
    for (const auto& [name, task] : report.tasks) names.insert(name);
  }
  return {names.begin(), names.end()};
}

std::string ScoreTable(const std::vector<EvalReport>& reports,
                       const std::vector<std::string>& chosen) {
  std::vector<std::string> header = {"policy", "accuracy"};
  if (!chosen.empty()) header.push_back("chosen tasks");
  for (const char* name : {"agreement", "KV bytes per token", "mean bits", "evicted"})
    header.push_back(name);
  const std::vector<std::string> tasks = TaskNames(reports);
  header.insert(header.end(), tasks.begin(), tasks.end());
  std::vector<std::vector<std::string>> rows;
  for (const EvalReport& r : reports) {
    std::vector<std::string> row = {r.policy, absl::StrFormat("%.3f", r.Accuracy({}))};
    if (!chosen.empty()) row.push_back(absl::StrFormat("%.3f", r.Accuracy(chosen)));
    row.push_back(absl::StrFormat("%.3f", r.agreement()));
    row.push_back(FormatCount(std::llround(r.kv_bytes_per_token())));
    row.push_back(absl::StrFormat("%.2f", r.mean_bits()));
    row.push_back(absl::StrFormat("%.1f%%", 100 * r.evicted_share()));
    for (const std::string& task : tasks)
      row.push_back(r.tasks.contains(task) ? absl::StrFormat("%.2f", r.Accuracy({task})) : "");
    rows.push_back(std::move(row));
  }
  return HtmlTable(header, rows);
}

}  // namespace

std::vector<size_t> ParetoFront(const std::vector<EvalPoint>& points) {
  std::vector<size_t> front;
  for (size_t i = 0; i < points.size(); ++i) {
    const EvalPoint& p = points[i];
    const bool beaten = std::any_of(points.begin(), points.end(), [&p](const EvalPoint& o) {
      return o.accuracy >= p.accuracy && o.bytes_per_token <= p.bytes_per_token &&
             (o.accuracy > p.accuracy || o.bytes_per_token < p.bytes_per_token);
    });
    if (!beaten) front.push_back(i);
  }
  std::stable_sort(front.begin(), front.end(), [&points](size_t a, size_t b) {
    return points[a].bytes_per_token < points[b].bytes_per_token;
  });
  return front;
}

std::string RenderParetoPicture(const std::vector<EvalPoint>& points) {
  const Axes axes(points);
  const std::vector<size_t> front = ParetoFront(points);
  const std::set<size_t> on_front(front.begin(), front.end());
  std::string out = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"accuracy over KV bytes per "
      "token\">\n%s",
      kWidth, kHeight, axes.Grid());
  // With the bytes of a point on the front one has its accuracy, until the next point: steps.
  std::string path;
  std::vector<Box> taken;  // where labels may not lie
  double last_x = 0, last_y = 0;
  for (const size_t i : front) {
    const double x = axes.X(points[i].bytes_per_token), y = axes.Y(points[i].accuracy);
    absl::StrAppendFormat(&path, "%c%.1f %.1f L%.1f %.1f ", path.empty() ? 'M' : 'L', x,
                          path.empty() ? y : last_y, x, y);
    if (last_x > 0) {
      taken.push_back({last_x, last_y - 2, x, last_y + 2});
      taken.push_back({x - 2, std::min(y, last_y), x + 2, std::max(y, last_y)});
    }
    last_x = x;
    last_y = y;
  }
  absl::StrAppendFormat(&out,
                        "<path d=\"%s\" fill=\"none\" stroke=\"var(--accent)\" stroke-width=\"2\" "
                        "stroke-linejoin=\"round\"/>\n",
                        path);
  for (const EvalPoint& p : points) {
    const double x = axes.X(p.bytes_per_token), y = axes.Y(p.accuracy);
    taken.push_back({x - kRadius - 1, y - kRadius - 1, x + kRadius + 1, y + kRadius + 1});
  }
  for (size_t i = 0; i < points.size(); ++i) {
    const EvalPoint& p = points[i];
    const double x = axes.X(p.bytes_per_token), y = axes.Y(p.accuracy);
    const bool best = on_front.contains(i);
    const Box box = PlaceLabel(x, y, kLetter * static_cast<double>(p.name.size()), taken);
    taken.push_back(box);
    const bool right = box.left > x;
    absl::StrAppendFormat(
        &out,
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"var(--line)\"/>\n"
        "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.0f\" fill=\"%s\" stroke=\"%s\" stroke-width=\"2\">"
        "<title>%s: accuracy %.3f, %.0f bytes per token</title></circle>\n"
        "<text%s x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n",
        x, y, right ? box.left : box.right, (box.top + box.bottom) / 2, x, y, kRadius,
        best ? "var(--accent)" : "var(--page)", best ? "var(--accent)" : "var(--soft)",
        EscapeHtml(p.name), p.accuracy, p.bytes_per_token, best ? "" : " class=\"soft\"",
        right ? box.left + 2 : box.right - 2, box.bottom - 4, right ? "start" : "end",
        EscapeHtml(p.name));
  }
  return out + "</svg>\n";
}

std::string RenderEvalPage(const std::vector<EvalReport>& reports, const std::string& questions,
                           const std::vector<std::string>& tasks) {
  std::vector<EvalPoint> points;
  for (const EvalReport& r : reports) {
    if (r.kv_bytes_per_token() > 0)
      points.push_back({r.policy, r.kv_bytes_per_token(), r.Accuracy(tasks)});
  }
  std::string body = "<h1>Accuracy and KV-cache size</h1>\n";
  if (!reports.empty()) {
    absl::StrAppend(&body, "<p class=\"soft\">", reports[0].all.questions, " questions of <code>",
                    EscapeHtml(questions), "</code>, greedy answers, cache compressed at the ",
                    EscapeHtml(reports[0].commit_at),
                    reports[0].commit_at == "prompt" ? "'s end" : "", ".</p>\n");
  }
  absl::StrAppend(
      &body, "<h2>Accuracy",
      tasks.empty() ? "" : absl::StrCat(" on ", EscapeHtml(absl::StrJoin(tasks, ", "))),
      " by KV bytes per token</h2>\n",
      points.empty() ? "<p>No policy answered.</p>\n" : RenderParetoPicture(points),
      "<p class=\"soft\">Filled: on the Pareto front, no other policy is as accurate with as few "
      "bytes. Bytes are those of all pages held at the end, metadata and part-filled pages "
      "included, over all tokens, evicted ones included.</p>\n<h2>Scores</h2>\n",
      ScoreTable(reports, tasks),
      "<p class=\"soft\">accuracy: share of answers that are right; agreement: share equal to the "
      "reference's; mean bits: per stored value, metadata included; evicted: share of the prompt's "
      "tokens, mean over layers. Task columns are accuracies.</p>\n");
  return HtmlPage("Accuracy and KV-cache size", body);
}

}  // namespace tessera::client
