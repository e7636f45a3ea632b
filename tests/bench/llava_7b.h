// LLaVA-1.5-7B as published, without its files: for speeds, which random weights do not change.
#pragma once

#include <memory>

#include "engine/model/model_config.h"
#include "engine/text/tokenizer.h"

namespace tessera::bench {

// Returns config.json of llava-1.5-7b-hf: half precision, 576 tokens per image of 336 pixels,
// contexts of up to 4096 tokens.
ModelConfig Llava7b();

// A tokenizer with a word for every id. It encodes nothing, since prompts are made of ids.
std::shared_ptr<const Tokenizer> MakeWordTokenizer(int vocab);

}  // namespace tessera::bench
