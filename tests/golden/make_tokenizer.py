#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: a mixed text, small models, and SentencePiece's results for both.

Needs Debian's `sentencepiece` package (spm_train, spm_encode, spm_decode). One seed determines all random
values, and training runs on one thread, so the output is reproducible. Run it from the repository's root.

  text.txt        one case per line: prose, code, CJK, emoji, runs of spaces, marks, digits, noise
  <model>.model   trained here ("demo" is models/demo/tokenizer.model)
  <model>.ids     for each line of text.txt: the number of ids and the FNV-1a hash of their decimals
  <model>.decode  random ids, a tab, and their text (a JSON string)
  versions.txt    the versions of the tools
"""
import json
import pathlib
import random
import subprocess
import sys

OUT = pathlib.Path("tests/golden/tokenizer")
DEMO = "models/demo/tokenizer.model"
rng = random.Random(20261121)

WORDS = """the a of and to in is it that was for on are as with his they at be this from have or one had
by word but not what all were when your can said there use an each which she do how their if will up
other about out many then them these so some her would make like him into time has look two more write
go see number no way could people my than first water been call who oil its now find long down day did
get come made may part kettle garden violet triangle square circle picture image page cache attention
quantise precision memory bandwidth token prompt answer licence warranty liability notwithstanding""".split()
CJK = [chr(c) for c in range(0x4E00, 0x4E00 + 400)] + list("的一是不了人我在有他这中大来上国")
KANA = [chr(c) for c in range(0x3041, 0x3097)] + [chr(c) for c in range(0x30A1, 0x30FB)]
HANGUL = [chr(c) for c in range(0xAC00, 0xAC00 + 300)]
CYRILLIC = [chr(c) for c in range(0x430, 0x450)]
GREEK = [chr(c) for c in range(0x3B1, 0x3CA)]
ARABIC = [chr(c) for c in range(0x627, 0x64B)]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "❤️", "🫠", "1️⃣", "🧑🏿‍🚀", "🎉"]
MARKS = ["é", "ñ", "Å", "ﬁ", "½", "…", "—", "“", "”", "▁", "▁▁", "\u00a0", "\u200b", "\ufeff", "\u3000", "�"]
SPECIAL = ["<s>", "</s>", "<unk>", "<image>", "<pad>", "<0x0A>", "<0x41>", "[INST]", "<<SYS>>", "<sep>", "<mask id>"]


def word():
    return rng.choice(WORDS)


def letters(alphabet, low, high):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def prose():
    text = " ".join(word() for _ in range(rng.randint(3, 24)))
    return text[0].upper() + text[1:] + rng.choice([".", "?", "!", ";", ""])


def code():
    a, b = word(), word()
    return rng.choice([
        f"    for (int {a} = 0; {a} < {rng.randint(0, 9999)}; ++{a}) {b}[{a}] *= {rng.random():.4f}f;",
        f"\t\tif ({a} != nullptr && {b}->{a}()) return \"{a}\\n\";",
        f"def {a}_{b}(self, *args, **kwargs):  # {prose()}",
        f"#include <{a}/{b}.h>",
        f"{{\"{a}\": [{rng.randint(-99, 99)}, {rng.random()}], \"{b}\": null}}",
        f"https://{a}.example/{b}?q={rng.randint(0, 10**9)}&x=%20",
    ])


def scripts():
    return rng.choice([" ", ""]).join(
        letters(alphabet, 1, 12)
        for alphabet in rng.choices([CJK, KANA, HANGUL, CYRILLIC, GREEK, ARABIC], k=rng.randint(1, 5)))


def spaces():
    return "".join(word() + " " * rng.choice([0, 1, 1, 2, 3, 7, 20]) for _ in range(rng.randint(1, 9)))


def mixed():
    makers = [word, lambda: rng.choice(EMOJI), lambda: rng.choice(MARKS), scripts,
              lambda: rng.choice(SPECIAL), lambda: str(rng.randint(0, 10**rng.randint(1, 12)))]
    return "".join(rng.choice(makers)() + rng.choice(["", "", " ", "  "]) for _ in range(rng.randint(1, 10)))


def noise():
    return "".join(chr(rng.choice([rng.randint(0x20, 0x7E), rng.randint(0xA1, 0x7FF), rng.randint(0x800, 0xD7FF),
                                   rng.randint(0xE000, 0xFFFD), rng.randint(0x10000, 0x10FFFF)]))
                   for _ in range(rng.randint(1, 20)))


def edges():
    return ["", " ", "  ", "   a", "a   ", "▁", "▁a", "a▁", " ▁ ", "\t", "\t a", "a" * 300, "ab" * 200, "的" * 100,
            "😀" * 40, " " * 100, "the" * 60, "the " * 60, "  the  the  ", "<sep><sep>", "a<sep>b", "<mask id> x",
            "x<mask id>", "<se", "<sep", "<mask  id>", "\u3000", "\u00a0a", "\x01\x02", "\x7f", "é", "é"]


def lines(latin=False):
    out = edges()
    for maker, count in [(prose, 260), (code, 160), (spaces, 120), (scripts, 160), (mixed, 220), (noise, 60)]:
        if not latin or maker in (prose, code, spaces):
            out += [maker() for _ in range(count)]
    assert not any("\n" in line or "\r" in line or "\0" in line for line in out)
    return out


def run(*command, stdin=b""):
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout


def train(name, latin, *flags):
    corpus = OUT / "train.tmp"
    corpus.write_text("\n".join(line for line in lines(latin) if line.strip()) + "\n", encoding="utf-8")
    prefix = OUT / name
    run("spm_train", f"--input={corpus}", f"--model_prefix={prefix}", "--model_type=bpe", "--num_threads=1",
        "--character_coverage=0.98", "--normalization_rule_name=identity", "--max_sentence_length=100000", *flags)
    corpus.unlink()
    (OUT / f"{name}.vocab").unlink()
    return OUT / f"{name}.model"


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def mark_unused(path, every):
    """Marks some merged pieces as UNUSED (5). The encoder then merges through them and splits them again."""
    data, out, at, piece = path.read_bytes(), b"", 0, 0
    while at < len(data):
        start = at
        key, at = varint(data, at)
        assert key & 7 == 2
        size, at = varint(data, at)
        body = data[at:at + size]
        at += size
        if key >> 3 == 1:
            text = body[2:2 + body[1]].decode()
            if piece >= 300 and piece % every == 0 and len(text) > 1 and b"\x18" not in body[-2:-1]:
                body += b"\x18\x05"
            piece += 1
        assert len(body) < 128 or key >> 3 != 1
        out += data[start:start + 1] + bytes([len(body)]) + body if key >> 3 == 1 else data[start:at]
    path.write_bytes(out)


def fnv(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return h


def encode(name, model, text):
    ids = run("spm_encode", f"--model={model}", "--output_format=id", stdin=text).decode().split("\n")[:-1]
    assert len(ids) == text.count(b"\n"), (len(ids), text.count(b"\n"))
    (OUT / f"{name}.ids").write_text(
        "".join(f"{len(line.split())} {fnv(line.strip()):016x}\n" for line in ids))


def decode(name, model, pieces):
    cases = [[rng.randrange(3, pieces) for _ in range(rng.randint(1, 12))] for _ in range(150)]
    # Byte pieces in a row: whole characters, unfinished ones and invalid ones.
    for _ in range(100):
        data = bytearray("".join(rng.choice(EMOJI + MARKS + ["a", "é", "的"]) for _ in range(3)).encode())
        for _ in range(rng.randint(0, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cases.append([3 + byte for byte in data[:rng.randint(1, len(data))] if byte not in (10, 13)])
    cases = [[i for i in case if i not in (3 + 10, 3 + 13)] for case in cases]
    cases = [case for case in cases if case]
    stdin = "".join(" ".join(map(str, case)) + "\n" for case in cases).encode()
    texts = run("spm_decode", f"--model={model}", "--input_format=id", stdin=stdin).decode().split("\n")[:-1]
    assert len(texts) == len(cases)
    (OUT / f"{name}.decode").write_text(
        "".join(" ".join(map(str, c)) + "\t" + json.dumps(t) + "\n" for c, t in zip(cases, texts)))


def main():
    global rng
    OUT.mkdir(parents=True, exist_ok=True)
    bytes_model = train("bytes", False, "--vocab_size=1500", "--byte_fallback=true", "--remove_extra_whitespaces=false",
                        "--user_defined_symbols=<sep>,<mask id>,的一,the the", "--split_digits=true")
    mark_unused(bytes_model, 7)
    squeeze_model = train("squeeze", True, "--vocab_size=600", "--byte_fallback=false", "--remove_extra_whitespaces=true",
                          "--user_defined_symbols=<sep>", "--split_by_whitespace=false")
    noprefix_model = train("noprefix", True, "--vocab_size=600", "--byte_fallback=true", "--add_dummy_prefix=false",
                           "--remove_extra_whitespaces=false")
    rng = random.Random(7)
    text = "".join(line + "\n" for line in lines()).encode()
    (OUT / "text.txt").write_bytes(text)
    for name, model in [("demo", DEMO), ("bytes", bytes_model), ("squeeze", squeeze_model),
                        ("noprefix", noprefix_model)]:
        encode(name, model, text)
    decode("demo", DEMO, 512)
    decode("noprefix", noprefix_model, 600)
    version = run("dpkg-query", "-W", "-f=${Package} ${Version}\\n", "sentencepiece").decode()
    (OUT / "versions.txt").write_text(f"{version}python {sys.version.split()[0]}\n")


main()
