"""Checks tests/eval/golden.jsonl against Hugging Face transformers on models/demo, in float32.

  python3 tests/golden/check_demo.py [LINES]

The goldens come from make_eval.py's plain PyTorch model. This script repeats them with transformers.
Needs torch, transformers, pillow.
"""
import json, os, sys
import numpy as np
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MEAN, STD = np.float32((0.48145466, 0.4578275, 0.40821073)), np.float32((0.26862954, 0.26130258, 0.27577711))


@torch.no_grad()
def main():
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 58
    model = LlavaForConditionalGeneration.from_pretrained(f"{ROOT}/models/demo", dtype=torch.float32).eval()
    questions = {(q["set"], q["task"]): q for q in map(json.loads, open(f"{ROOT}/tests/eval/questions.jsonl"))}
    worst, same, lines = 0.0, 0, [json.loads(l) for l in open(f"{ROOT}/tests/eval/golden.jsonl")][:limit]
    for g in lines:
        pixels = [np.asarray(Image.open(f"{ROOT}/tests/eval/{f}").convert("RGB")) for f in questions[g["set"], g["task"]]["images"]]
        pixels = torch.from_numpy(np.stack([((p.astype(np.float32) / np.float32(255) - MEAN) / STD).transpose(2, 0, 1) for p in pixels]))
        ids = torch.tensor([g["input_ids"]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits[0, -1]
        worst = max(worst, max(abs(float(logits[i]) - v) for i, v in g["first_step_top20"]))
        same += int(logits.argmax()) == g["output_ids"][0]
    print(f"{same}/{len(lines)} first tokens equal; largest difference of a top-20 logit {worst:.5f}")


if __name__ == "__main__":
    main()
