// Byte offsets of the parts of a KV head in a page of each format. Kernels take them as an
// argument, because the tables of page_layout.h lie in host memory, which device code cannot read.
#pragma once

#include "kernels/layout/page_layout.h"

namespace tessera::cuda {

// K or V of one head. Offsets are in bytes from the head's first byte.
struct PagePart {
  int bits;
  Axis axis;
  int codes, row_bytes;  // codes: one row per slot
  int meta, scales;  // `scales` half scales, then as many half offsets; in the header page if there
                     // is one
  int group;         // axis kToken: groups of eight channels per scale
};

struct PageParts {
  int tokens, head_bytes;
  int header_head_bytes;  // in a segment's header page; 0: the format has none
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
