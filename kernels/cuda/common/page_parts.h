// Where the parts of a KV head lie in a page of each format, as numbers that a kernel takes as an
// argument: page_layout.h's tables lie in host memory, which device code cannot read.
#pragma once

#include "kernels/layout/page_layout.h"

namespace tessera::cuda {

// K or V of one head: codes and metadata as bytes from the head's first byte.
struct PagePart {
  int bits;
  Axis axis;
  int codes, row_bytes;  // rows by slot
  int meta, scales;      // as many half scales, then as many half offsets; in the header, if any
  int group;             // pieces of eight channels that share a token's scale; axis kToken
};

struct PageParts {
  int tokens, head_bytes;
  int header_head_bytes;  // of a segment's header page; 0: the format has none
  PagePart part[2];       // K, V
};

inline PageParts PartsOf(Format f, int head_dim) {
  PageParts parts;
  parts.tokens = PageTokens(f);
  parts.head_bytes = static_cast<int>(HeadBytes(f, head_dim));
  const Format meta = HasHeader(f) ? Format::kHeader : f;
  parts.header_head_bytes =
      HasHeader(f) ? static_cast<int>(HeadBytes(Format::kHeader, head_dim)) : 0;
  for (int value = 0; value < 2; ++value) {
    const Codec& codec = CodecOf(f, value != 0);
    parts.part[value] = {codec.bits,
                         codec.axis,
                         static_cast<int>(CodesOffset(f, head_dim, 0, value != 0)),
                         static_cast<int>(RowBytes(codec, head_dim)),
                         static_cast<int>(MetaOffset(meta, head_dim, 0, value != 0)),
                         static_cast<int>(Scales(meta, head_dim, value != 0)),
                         CeilDiv(GroupChannels(codec, head_dim), 8)};
  }
  return parts;
}

}  // namespace tessera::cuda
