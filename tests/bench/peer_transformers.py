#!/usr/bin/env python3
"""Hugging Face transformers on the requests of `tessera_bench serve`: LLaVA-1.5-7B, random weights.

  tests/bench/peer_transformers.py [--sequences=120] [--images=1] [--text=24] [--output=128]
                                   [--tessera=TOKENS_PER_SECOND]

All sequences at once, greedy, no end of sequence, half precision, scaled-dot-product attention.
Prints output tokens per second from end to end and of the decode steps alone (two runs: with one
token and with all of them), and, given Tessera's number from end to end, their ratio.
"""
import argparse
import json
import time

import torch
import transformers


def config():
    return transformers.LlavaConfig(
        text_config=dict(
            model_type="llama", vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5),
        vision_config=dict(
            model_type="clip_vision_model", hidden_size=1024, image_size=336,
            intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, patch_size=14,
            projection_dim=768),
        image_token_index=32000, projector_hidden_act="gelu",
        vision_feature_select_strategy="default", vision_feature_layer=-2)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=120)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--text", type=int, default=24)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--tessera", type=float, default=0)
    args = parser.parse_args()
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = transformers.LlavaForConditionalGeneration(config()).eval()
    torch.set_default_dtype(previous)
    with torch.no_grad():  # random, but finite: what was not initialised is
        for name, p in model.named_parameters():
            if "norm" not in name:
                p.normal_(0, 0.02)

    model.generation_config.eos_token_id = None

    n, image_tokens = args.sequences, 576 * args.images
    ids = torch.randint(3, 31000, (n, args.text + image_tokens), device="cuda")
    if args.images:
        ids[:, 1:1 + image_tokens] = model.config.image_token_id
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    if args.images:
        inputs["pixel_values"] = torch.randn(
            n * args.images, 3, 336, 336, device="cuda", dtype=torch.float16)

    def seconds(tokens):
        torch.cuda.synchronize()
        start = time.perf_counter()
        out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        torch.cuda.synchronize()
        assert out.shape[1] == ids.shape[1] + tokens
        return time.perf_counter() - start

    with torch.inference_mode():
        seconds(2)
        first, whole = seconds(1), seconds(args.output)
    result = {
        "peer": "transformers " + transformers.__version__,
        "sequences": n,
        "tokens in": ids.shape[1],
        "tokens out": args.output,
        "seconds": round(whole, 3),
        "tokens/s": round(n * args.output / whole),
        "decode tokens/s": round(n * (args.output - 1) / (whole - first)),
        "peak GB": round(torch.cuda.max_memory_allocated() / 1e9, 1),
    }
    if args.tessera:
        result["Tessera's over it"] = round(args.tessera / result["tokens/s"], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
