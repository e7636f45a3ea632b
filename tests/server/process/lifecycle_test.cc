#include "server/process/lifecycle.h"

#include <map>

#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using State = Lifecycle::State;

class FakeHealth final : public grpc::HealthCheckServiceInterface {
 public:
  void SetServingStatus(const std::string& name, bool serving) override { names[name] = serving; }
  void SetServingStatus(bool) override { FAIL() << "names are set one by one"; }
  std::map<std::string, bool> names;
};

const std::map<std::string, bool> kNotReady = {
    {"", false}, {"tessera.v1.Inference", false}, {"live", true}};
const std::map<std::string, bool> kReady = {
    {"", true}, {"tessera.v1.Inference", true}, {"live", true}};

TEST(LifecycleTest, TellsHealthEveryChange) {
  Lifecycle lifecycle(absl::Seconds(5));
  FakeHealth health;
  lifecycle.Attach(&health);
  EXPECT_EQ(health.names, kNotReady);
  lifecycle.Serve();
  EXPECT_EQ(health.names, kReady);
  lifecycle.SetLive(false);
  EXPECT_FALSE(health.names["live"]);
  EXPECT_TRUE(health.names[""]);  // readiness is another question
  lifecycle.SetLive(true);
  lifecycle.BeginDrain(SteadyNow());
  EXPECT_EQ(health.names, kNotReady);
  lifecycle.DetachAll();
  lifecycle.Stop();
  EXPECT_TRUE(health.names["live"]);  // detached before
}

TEST(LifecycleTest, AcceptsDuringTheDrainDelayOnly) {
  Lifecycle lifecycle(absl::Seconds(5));
  const absl::Time now = SteadyNow();
  EXPECT_EQ(ReasonOf(lifecycle.CheckAccepting(now)), "STARTING");
  EXPECT_EQ(ReasonOf(lifecycle.CheckLoaded()), "STARTING");
  lifecycle.Serve();
  EXPECT_TRUE(lifecycle.CheckAccepting(now).ok());
  lifecycle.BeginDrain(now);
  lifecycle.BeginDrain(now + absl::Seconds(4));  // changes nothing
  EXPECT_TRUE(lifecycle.CheckAccepting(now + absl::Seconds(4.9)).ok());
  EXPECT_EQ(ReasonOf(lifecycle.CheckAccepting(now + absl::Seconds(5))), "DRAINING");
  EXPECT_TRUE(lifecycle.CheckLoaded().ok());
  lifecycle.RefuseNow();
  EXPECT_EQ(ReasonOf(lifecycle.CheckAccepting(now)), "DRAINING");
}

TEST(LifecycleTest, DrainWhileStartingWins) {
  Lifecycle lifecycle(absl::Seconds(5));
  lifecycle.BeginDrain(SteadyNow());
  lifecycle.Serve();
  EXPECT_EQ(lifecycle.state(), State::kDraining);
  EXPECT_FALSE(lifecycle.CheckAccepting(SteadyNow()).ok());
}

}  // namespace
}  // namespace tessera
