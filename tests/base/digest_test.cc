#include "base/digest.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

// FIPS 180-4 examples.
TEST(DigestTest, KnownVectors) {
  EXPECT_EQ(HexDigest(Hasher().Finish()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HexDigest(Hasher().Add("abc", 3).Finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      HexDigest(
          Hasher().Add("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56).Finish()),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  EXPECT_EQ(HexDigest(Hasher().Add(million.data(), million.size()).Finish()),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(DigestTest, PiecesGiveTheSameDigest) {
  EXPECT_EQ(Hasher().Add("a", 1).Add("bc", 2).Finish(), Hasher().Add("abc", 3).Finish());
}

TEST(DigestTest, StringsAreDelimited) {
  EXPECT_NE(Hasher().AddString("ab").AddString("c").Finish(),
            Hasher().AddString("a").AddString("bc").Finish());
  EXPECT_NE(Hasher().AddString("").Finish(), Hasher().Finish());
  EXPECT_EQ(Hasher().AddString("x").Finish(), Hasher().Add(int64_t{1}).Add("x", 1).Finish());
}

TEST(DigestTest, HashSpreads) {
  const Digest a = Hasher().Add("a", 1).Finish(), b = Hasher().Add("b", 1).Finish();
  EXPECT_NE(DigestHash()(a), DigestHash()(b));
  EXPECT_EQ(DigestHash()(a), DigestHash()(Hasher().Add("a", 1).Finish()));
}

}  // namespace
}  // namespace tessera
