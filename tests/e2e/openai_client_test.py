"""The official `openai` client drives a live tesserad: answers, streams, pictures, errors, cancel.

Skipped, with the reason, where that package is not installed (pip install openai).
"""
import base64
import json
import pathlib
import sys
import time
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
import deploy_testing as dt  # a running tesserad

try:
    import openai
except ImportError:
    print("skipped: the Python package openai is not installed")
    sys.exit(dt.SKIPPED)

EVAL = dt.ROOT / "tests" / "eval"


def picture_part(name):
    data = base64.b64encode((EVAL / name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def pictures(count):
    """Names of that many pictures of the evaluation set."""
    with (EVAL / "questions.jsonl").open() as lines:
        names = [name for line in lines for name in json.loads(line)["images"]]
    return sorted(set(names))[:count]


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = dt.Server().__enter__()
        address = cls.server.entry("listening")["http_listen"]
        cls.base = f"http://{address}"
        cls.client = openai.OpenAI(base_url=f"{cls.base}/v1", api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.__exit__()

    def metric(self, line_start):
        for line in self.server.metrics_text().splitlines():
            if line.startswith(line_start):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {line_start}")

    def chat(self, **more):
        settings = {"model": "demo", "messages": [{"role": "user", "content": "hello"}],
                    "max_tokens": 8, "temperature": 0} | more
        return self.client.chat.completions.create(**settings)

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["demo"])
        self.assertEqual(self.client.models.retrieve("demo").id, "demo")

    def test_whole_and_streamed_answers_are_equal(self):
        whole = self.chat()
        pieces = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(pieces[-1].usage.total_tokens, whole.usage.total_tokens)
        self.assertEqual(whole.usage.completion_tokens, 8)
        self.assertEqual(whole.choices[0].finish_reason, "length")

    def test_pictures_are_seen(self):
        content = [picture_part(name) for name in pictures(2)]
        content.append({"type": "text", "text": "Which image shows a ring?"})
        first = self.chat(messages=[{"role": "user", "content": content}])
        second = self.chat(messages=[{"role": "user", "content": content}])
        details = first.usage.prompt_tokens_details.model_dump()
        self.assertEqual(details["image_tokens"], 2 * 64)
        self.assertEqual(first.choices[0].message.content, second.choices[0].message.content)
        self.assertGreater(second.usage.prompt_tokens_details.cached_tokens, 100)

    def test_policies_and_their_bytes(self):
        none = self.chat(messages=[{"role": "user", "content": "count " * 100}])
        small = self.chat(messages=[{"role": "user", "content": "count " * 100}],
                          extra_body={"kv_policy": "rtn(bits=2)"})
        self.assertEqual(small.model_extra["kv_cache"]["policy"], "rtn(bits=2)")
        self.assertLess(small.model_extra["kv_cache"]["mean_bits"], 4)
        self.assertLess(small.model_extra["kv_cache"]["bytes"],
                        none.model_extra["kv_cache"]["bytes"] / 2)

    def test_several_answers_seeds_and_logprobs(self):
        def texts():
            reply = self.chat(n=3, seed=5, temperature=1.5, logprobs=True, top_logprobs=2,
                              extra_body={"ignore_eos": True})
            self.assertEqual([choice.index for choice in reply.choices], [0, 1, 2])
            for choice in reply.choices:
                self.assertEqual(len(choice.logprobs.content), 8)
                self.assertEqual(len(choice.logprobs.content[0].top_logprobs), 2)
            return [choice.message.content for choice in reply.choices]

        first = texts()
        self.assertEqual(first, texts())
        self.assertGreater(len(set(first)), 1)

    def test_logit_bias_forces_a_token(self):
        reply = self.chat(logit_bias={"300": 100}, max_tokens=3)
        with urllib.request.urlopen(urllib.request.Request(
                f"{self.base}/detokenize", data=b'{"tokens": [300, 300, 300]}')) as detokenized:
            self.assertEqual(reply.choices[0].message.content,
                             json.load(detokenized)["prompt"])

    def test_completions(self):
        reply = self.client.completions.create(model="demo", prompt=["A", "B"], max_tokens=4,
                                               temperature=0, logprobs=1)
        self.assertEqual([choice.index for choice in reply.choices], [0, 1])
        self.assertEqual(len(reply.choices[1].logprobs.tokens), 4)

    def test_errors_are_the_clients_own_classes(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")
        self.assertEqual(caught.exception.code, "invalid_field")
        with self.assertRaises(openai.NotFoundError):
            self.chat(model="gpt-4")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(messages=[{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}]}])
        self.assertIn("does not fetch", str(caught.exception))
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(extra_body={"kv_policy": "akvq(windw=64)"})
        self.assertIn("window", str(caught.exception))

    def test_a_closed_stream_cancels(self):
        before = self.metric("tessera_cancellations_total")
        stream = self.chat(stream=True, max_tokens=3000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        deadline = time.monotonic() + 20
        while self.metric("tessera_cancellations_total") == before:
            self.assertLess(time.monotonic(), deadline, "the request was not cancelled")
            time.sleep(0.05)


if __name__ == "__main__":
    dt.main()
