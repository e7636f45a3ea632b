#include "client/report/eval_html.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/byte_size.h"
#include "client/cli/format.h"
#include "client/report/html.h"
#include "client/report/svg.h"

namespace tessera::client {
namespace {

constexpr double kWidth = 920, kHeight = 480;
constexpr double kLeft = 56, kRight = 24, kTop = 16, kBottom = 48;
constexpr double kRadius = 5;                // radius of a point
constexpr double kLetter = 6.4, kLine = 15;  // width of a letter, and height of a label

struct Box {
  double left, top, right, bottom;
  bool Meets(const Box& o) const {
    return left < o.right && o.left < right && top < o.bottom && o.top < bottom;
  }
};

// Maps bytes (logarithmic) and accuracy to pixels.
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
  void DrawGrid(Svg* svg) const {
    constexpr char kStroke[] = "stroke=\"var(--line)\"";
    const double base = kHeight - kBottom, end = kWidth - kRight;
    for (int power = static_cast<int>(first_); power <= static_cast<int>(last_); ++power) {
      const double x = X(std::exp2(power));
      svg->Line(x, kTop, x, base, kStroke);
      svg->Text(x, base + 18, FormatBytes(std::llround(std::exp2(power))),
                power == static_cast<int>(last_) ? Svg::Anchor::kEnd : Svg::Anchor::kMiddle);
    }
    const int ticks = static_cast<int>(std::lround((1 - bottom_) * 10));
    for (int i = 0; i <= ticks; ++i) {
      const double accuracy = bottom_ + i / 10.0, y = Y(accuracy);
      svg->Line(kLeft, y, end, y, kStroke);
      svg->Text(kLeft - 8, y + 4, absl::StrFormat("%.1f", accuracy), Svg::Anchor::kEnd);
    }
    svg->Text(end, kHeight - 8, "KV bytes per token", Svg::Anchor::kEnd);
  }

 private:
  double first_, last_;  // powers of two
  double bottom_;
};

// Returns the free place nearest to (x, y) for a label of this width, next to everything in
// `taken`. If there is none, returns the place to the right of the point.
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

// Returns the path of the front, and adds it to `taken`. It is a staircase: between two points of
// the front, the best accuracy is that of the smaller point.
std::string FrontPath(const std::vector<EvalPoint>& points, const std::vector<size_t>& front,
                      const Axes& axes, std::vector<Box>* taken) {
  std::string path;
  double last_x = 0, last_y = 0;
  for (const size_t i : front) {
    const double x = axes.X(points[i].bytes_per_token), y = axes.Y(points[i].accuracy);
    if (path.empty()) {
      path = absl::StrFormat("M%.1f %.1f", x, y);
    } else {
      absl::StrAppendFormat(&path, " L%.1f %.1f L%.1f %.1f", x, last_y, x, y);
      taken->push_back({last_x, last_y - 2, x, last_y + 2});
      taken->push_back({x - 2, std::min(y, last_y), x + 2, std::max(y, last_y)});
    }
    last_x = x;
    last_y = y;
  }
  return path;
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
  Svg svg(kWidth, kHeight, "accuracy over KV bytes per token");
  axes.DrawGrid(&svg);
  std::vector<Box> taken;  // no label may lie here
  svg.Path(FrontPath(points, front, axes, &taken),
           "fill=\"none\" stroke=\"var(--accent)\" stroke-width=\"2\" stroke-linejoin=\"round\"");
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
    svg.Line(x, y, right ? box.left : box.right, (box.top + box.bottom) / 2,
             "stroke=\"var(--line)\"");
    svg.Circle(x, y, kRadius,
               best ? "fill=\"var(--accent)\" stroke=\"var(--accent)\" stroke-width=\"2\""
                    : "fill=\"var(--page)\" stroke=\"var(--soft)\" stroke-width=\"2\"",
               absl::StrFormat("%s: accuracy %.3f, %.0f bytes per token", p.name, p.accuracy,
                               p.bytes_per_token));
    svg.Text(right ? box.left + 2 : box.right - 2, box.bottom - 4, p.name,
             right ? Svg::Anchor::kStart : Svg::Anchor::kEnd,
             best ? Svg::Ink::kFull : Svg::Ink::kSoft);
  }
  return svg.Render();
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
      "<p class=\"soft\">Filled points are on the Pareto front: no other policy is as accurate "
      "with "
      "as few bytes. Bytes per token are the bytes of all pages at the end, with metadata and "
      "part-filled pages, over all tokens, with evicted ones.</p>\n<h2>Scores</h2>\n",
      ScoreTable(reports, tasks),
      "<p class=\"soft\">accuracy: share of right answers; agreement: share of answers equal to "
      "the "
      "reference; mean bits: per stored value, with metadata; evicted: share of the prompt's "
      "tokens, mean over layers. The columns of tasks are accuracies.</p>\n");
  return HtmlPage("Accuracy and KV-cache size", body);
}

}  // namespace tessera::client
