"""Writes tests/golden/tiny_gqa: a tiny LLaVA with random weights, and the answers of transformers.

  python3 tests/golden/make_tiny_llava.py [OUT]

The demo model has multi-head attention and no biases, and its images need no resize. This one has grouped-query
attention, QKV and output biases, half-precision weights under the newer tensor names, and odd-sized JPEG and
PNG images that go through Pillow's resize and a center crop. The reference runs in float32 on the stored
weights. Needs torch, transformers, pillow, numpy; versions are recorded in golden.json.
"""
import json, os, shutil, sys
import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "tiny_gqa")
DEMO = os.path.join(HERE, "..", "..", "models", "demo")
SIDE, PATCH, IMAGE_TOKEN, VOCAB = 42, 14, 512, 576
TOKENS = (SIDE // PATCH) ** 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def make_model():
    torch.manual_seed(7)
    text = LlamaConfig(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, head_dim=64, attention_bias=True, max_position_embeddings=512,
                       rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=1, eos_token_id=2)
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE,
                              patch_size=PATCH, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=32)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, projector_hidden_act="gelu",
                         vision_feature_layer=-2, vision_feature_select_strategy="default", image_seq_length=TOKENS)
    model = LlavaForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            elif p.dim() >= 2:
                p.copy_(noise * (1.0 / p[0].numel()) ** 0.5)
            else:
                p.copy_(0.2 * noise)
    return model.to(torch.float16)


def make_pictures(folder):
    """Smooth pictures with noise, in sizes that no side divides; (file name, size) in a fixed order."""
    rng, names = np.random.default_rng(3), []
    os.makedirs(folder, exist_ok=True)
    for i, (w, h, kind) in enumerate([(57, 91, "jpg"), (211, 43, "jpg"), (43, 42, "jpg"), (300, 199, "jpg"), (61, 60, "png"), (31, 77, "jpg")]):
        y, x = np.mgrid[0:h, 0:w]
        waves = [127 + 90 * np.sin(x * rng.uniform(0.05, 0.3) + y * rng.uniform(0.05, 0.3) + rng.uniform(0, 6)) for _ in range(3)]
        pixels = np.clip(np.stack(waves, -1) + rng.normal(0, 12, (h, w, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        if kind == "png":
            image = image.convert("L")
        names.append(f"{i}.{kind}")
        image.save(f"{folder}/{names[-1]}", **({"quality": 80, "subsampling": 2} if kind == "jpg" else {}))
    return names


def pixels_of(path):
    """CLIPImageProcessor on its Pillow path: shortest edge, centre crop, /255, normalise."""
    image = Image.open(path).convert("RGB")
    w, h = image.size
    short, long = min(w, h), max(w, h)
    size = (SIDE, int(SIDE * long / short)) if w <= h else (int(SIDE * long / short), SIDE)
    image = np.asarray(image.resize(size, Image.BICUBIC))
    top, left = (image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2
    crop = image[top:top + SIDE, left:left + SIDE].astype(np.float32) / np.float32(255)
    normed = (crop - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(normed.transpose(2, 0, 1).copy())


@torch.no_grad()
def greedy(model, ids, pixels, steps):
    out, top = [], None
    for _ in range(steps):
        tokens = torch.tensor([ids + out])
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens),
                       pixel_values=torch.stack(pixels) if pixels else None).logits[0, -1]
        if top is None:
            values, indices = logits.topk(20)
            top = [[int(i), float(v)] for i, v in zip(indices, values)]
        logits[IMAGE_TOKEN] = logits[513] = float("-inf")          # the server never samples these either
        logits[514:] = float("-inf")                                # ids without text
        out.append(int(logits.argmax()))
    return out, top


def main():
    os.makedirs(OUT, exist_ok=True)
    model = make_model()
    model.save_pretrained(OUT, safe_serialization=True)
    for name in ("tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
        shutil.copy(f"{DEMO}/{name}", OUT)
    json.dump({"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": SIDE}, "resample": 3,
               "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}, "do_rescale": True,
               "rescale_factor": 0.00392156862745098, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
               "do_convert_rgb": True}, open(f"{OUT}/preprocessor_config.json", "w"), indent=1)
    names = make_pictures(f"{OUT}/images")
    model = LlavaForConditionalGeneration.from_pretrained(OUT, dtype=torch.float32).eval()
    rng, cases = np.random.default_rng(5), []
    for pictures in ([], [0], [1, 2], [3, 4, 5], [0, 1, 2, 3, 4, 5], [2]):
        ids = [1]
        for p in pictures:
            ids += [int(i) for i in rng.integers(260, 505, rng.integers(1, 9))] + [IMAGE_TOKEN]
        ids += [int(i) for i in rng.integers(260, 505, rng.integers(5, 40))]
        expanded = [j for i in ids for j in ([i] * TOKENS if i == IMAGE_TOKEN else [i])]
        out, top = greedy(model, expanded, [pixels_of(f"{OUT}/images/{names[p]}") for p in pictures], 24)
        cases.append({"images": [names[p] for p in pictures], "ids": ids, "first_step_top20": top, "output_ids": out})
        print(len(expanded), "tokens ->", out[:8])
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__, "numpy": np.__version__}
    json.dump({"versions": versions, "cases": cases}, open(f"{OUT}/golden.json", "w"), indent=1)


if __name__ == "__main__":
    main()
