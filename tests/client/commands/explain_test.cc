#include <cmath>

#include "client/report/explain_html.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;
using testing::Not;

// Six tokens in two layers. The middle four tokens are an image of 2 x 2 patches.
v1::Explanation MakeExplanation() {
  v1::Explanation e;
  const std::pair<const char*, int> formats[] = {{"raw16", 16}, {"token2", 2}};
  for (const auto& [name, bits] : formats) {
    auto* format = e.add_formats();
    format->set_name(name);
    format->set_k_bits(bits);
    format->set_v_bits(bits);
    format->set_bytes_per_token(bits * 10);
  }
  auto* layer = e.add_layers();
  layer->set_stored(std::string("\2\2\0\2\2\1", 6));
  layer->set_bytes(400);
  layer = e.add_layers();
  layer->set_stored(std::string("\2\0\0\2\2\1", 6));
  layer->set_bytes(300);
  auto* image = e.add_images();
  image->set_first(1);
  image->set_count(4);
  e.set_image_fit(v1::Explanation::IMAGE_FIT_COVER);
  e.set_commit_tokens(5);
  for (const char* text : {"a", "", "", "", "", "<b>"}) e.add_text(text);
  return e;
}

TEST(ClientExplain, AForeignExplanationIsChecked) {
  EXPECT_TRUE(CheckExplanation(MakeExplanation(), 1).ok());
  const std::pair<const char*, std::function<void(v1::Explanation*)>> cases[] = {
      {"empty", [](v1::Explanation* e) { e->clear_layers(); }},
      {"uneven", [](v1::Explanation* e) { e->mutable_layers(1)->set_stored("\1"); }},
      {"format", [](v1::Explanation* e) { e->mutable_layers(1)->mutable_stored()->at(2) = '\3'; }},
      {"size", [](v1::Explanation* e) { e->mutable_formats(0)->set_bytes_per_token(-1); }},
      {"images", [](v1::Explanation* e) { e->add_images(); }},
      {"outside", [](v1::Explanation* e) { e->mutable_images(0)->set_first(3); }},
      {"outside", [](v1::Explanation* e) { e->mutable_images(0)->set_first(-1); }},
      {"square", [](v1::Explanation* e) { e->mutable_images(0)->set_count(3); }},
      {"square", [](v1::Explanation* e) { e->mutable_images(0)->set_count(0); }},
      {"commit", [](v1::Explanation* e) { e->set_commit_tokens(7); }},
      {"scores", [](v1::Explanation* e) { e->set_score("peaks"); }},
      {"scores", [](v1::Explanation* e) { e->mutable_layers(0)->add_score(1); }},
  };
  for (const auto& [what, change] : cases) {
    v1::Explanation e = MakeExplanation();
    change(&e);
    EXPECT_THAT(std::string(CheckExplanation(e, 1).message()), HasSubstr(what));
  }
}

TEST(ClientExplain, ThePageShowsTokensPatchesAndBytes) {
  Explained explained;
  explained.question = "What is <this>?";
  explained.answer = "a \"cat\"";
  explained.images = {"\x89PNG-bytes"};
  *explained.finished.mutable_explanation() = MakeExplanation();
  explained.finished.mutable_usage()->set_kv_policy("p<q>");
  const std::string page = RenderExplainPage(explained);
  EXPECT_THAT(page, HasSubstr("What is &lt;this&gt;?"));
  EXPECT_THAT(page, HasSubstr("What p&lt;q&gt; kept"));
  EXPECT_THAT(page, HasSubstr("layer 0, tokens 0 to 1: token2"));
  EXPECT_THAT(page, HasSubstr("layer 1, tokens 1 to 2: evicted"));
  EXPECT_THAT(page, HasSubstr("data:image/png;base64,iVBORy1ieXRlcw=="));
  EXPECT_THAT(page, HasSubstr("layer 0, 3 of 4"));
  EXPECT_THAT(page, HasSubstr("layer 1, 2 of 4"));
  // In each layer, one text token has 16 bits and one has 2. The layers keep 3 and 2 patches at 2
  // bits.
  EXPECT_THAT(page, HasSubstr("<td>text</td><td>2</td><td>0.0</td><td>1.0</td><td>1.0</td>"
                              "<td>360</td>"));
  EXPECT_THAT(page, HasSubstr("<td>images</td><td>4</td><td>1.5</td><td>0.0</td><td>2.5</td>"
                              "<td>100</td>"));
  EXPECT_THAT(page, HasSubstr("<td>240</td>"));  // of 700 bytes
  for (const char* text : {"<this>", "p<q>", "http://", "https://", "<script", "@import"}) {
    EXPECT_THAT(page, Not(HasSubstr(text)));
  }
}

TEST(ClientExplain, ScoresAreDrawnWhereThereAreAny) {
  Explained explained;
  explained.images = {"x"};
  v1::Explanation& e = *explained.finished.mutable_explanation();
  e = MakeExplanation();
  EXPECT_THAT(RenderExplainPage(explained), Not(HasSubstr("Scores: ")));
  e.set_score("largest |h|");
  for (auto& layer : *e.mutable_layers()) {
    for (const float value : {4.0f, 0.0f, 1.0f, 2.0f, 3.0f}) layer.add_score(value);
  }
  ASSERT_TRUE(CheckExplanation(e, 1).ok());
  const std::string page = RenderExplainPage(explained);
  EXPECT_THAT(page, HasSubstr("Scores: largest |h|"));
  EXPECT_THAT(page, HasSubstr("opacity=\"0.50\"><title>layer 1, tokens 2 to 2: 1<"));
  e.mutable_layers(0)->set_score(2, NAN);
  EXPECT_FALSE(CheckExplanation(e, 1).ok());
}

TEST(ClientExplain, AsksForAnExplanationAndWritesThePage) {
  FakeServer server([](const v1::GenerateRequest& request, int) {
    EXPECT_TRUE(request.response().explain());
    EXPECT_EQ(request.kv_policy().text(), "akvq");
    EXPECT_EQ(request.kv_policy().commit_at(), v1::KvPolicy::COMMIT_AT_QUESTION);
    EXPECT_EQ(Flatten(request.messages(0).content()), "[3]What?");
    Reply reply = Answer(" cat");
    reply.explanation = MakeExplanation();
    return reply;
  });
  const std::string image = WriteFile("i.png", "png"), page = WriteFile("page.html", "");
  const Args args = {"explain",  "--address", server.address(),       "--image", image, "What?",
                     "--policy", "akvq",      "--commit_at=question", "--out",   page};
  const Outcome outcome = RunCommand(args);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "cat\n");
  EXPECT_THAT(ReadAll(page), HasSubstr("Patches of the images"));
  EXPECT_EQ(RunCommand({"explain", "--address", server.address()}).code, 2);  // no question
  EXPECT_EQ(RunCommand({"explain", "a", "b"}).code, 2);
}

TEST(ClientExplain, AServerThatSendsNothingIsAnError) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer("x"); });
  const Outcome outcome = RunCommand({"explain", "--address", server.address(), "What?"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("the server's explanation: empty"));
}

}  // namespace
}  // namespace tessera::client
