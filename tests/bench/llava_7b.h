// LLaVA-1.5-7B as published, without its files: for speeds, which random weights do not change.
#pragma once

#include <memory>

#include "engine/model/model_config.h"
#include "engine/text/tokenizer.h"

namespace tessera::bench {

// config.json of llava-1.5-7b-hf: half precision, 576 tokens a picture of 336 pixels, contexts of
// up to 4096 tokens.
ModelConfig Llava7b();

// A word for every id of a vocabulary; encodes nothing, since prompts are made of ids.
std::shared_ptr<const Tokenizer> MakeWordTokenizer(int vocab);

}  // namespace tessera::bench
