"""A live tesserad with certificates and tokens, as gRPC's official Python package sees it: the
protocol comes from the server's own reflection, no generated code is used."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    from grpc_health.v1 import health_pb2, health_pb2_grpc
except ImportError as missing:
    print(f"skipped: the Python package {missing.name} is not installed")
    sys.exit(77)
if shutil.which("openssl") is None:
    print("skipped: openssl is not installed")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = os.environ.get("TESSERA_BINARY_DIR", str(ROOT / "build/release/bin"))


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_certificates(folder):
    """ca.pem, and server and client pairs that it signs."""
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *ec, "-days", "1", "-subj", "/CN=the test's authority",
            "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
    pathlib.Path(f"{folder}/names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", *ec, "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key",
                "-out", f"{folder}/{name}.csr")
        openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/ca.pem",
                "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "1",
                "-extfile", f"{folder}/names", "-out", f"{folder}/{name}.pem")


def message_class(pool, name):
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):  # protobuf 4.22 and newer
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def reflection_messages():
    """Request and response of gRPC's reflection service, v1alpha: only the fields used here."""
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package="r",
                                              syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="Request")
    request.field.add(name="file_containing_symbol", number=4, type=field.TYPE_STRING,
                      label=field.LABEL_OPTIONAL)
    files = file.message_type.add(name="Files")
    files.field.add(name="file", number=1, type=field.TYPE_BYTES, label=field.LABEL_REPEATED)
    response = file.message_type.add(name="Response")
    response.field.add(name="files", number=4, type=field.TYPE_MESSAGE, type_name=".r.Files",
                       label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [message_class(pool, f"r.{name}") for name in ("Request", "Response")]


def learn_protocol(channel, *symbols):
    """Asks the server for `symbols`; returns a function from a message's name to its class."""
    request, response = reflection_messages()
    ask = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                request_serializer=request.SerializeToString,
                                response_deserializer=response.FromString)
    files = {}
    for answer in ask(iter([request(file_containing_symbol=symbol) for symbol in symbols])):
        for serialized in answer.files.file:
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            files[file.name] = file
    pool = descriptor_pool.DescriptorPool()

    def add(name):
        file = files.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for name in list(files):
        add(name)
    return lambda name: message_class(pool, f"tessera.v1.{name}")


class GrpcClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        make_certificates(cls.folder.name)
        lines = [f"{hashlib.sha256(token.encode()).hexdigest()} {name}\n"
                 for token, name in (("alices-token", "alice max_tokens=4"),
                                     ("operators", "ops admin"))]
        pathlib.Path(f"{cls.folder.name}/tokens").write_text("".join(lines))
        folder = cls.folder.name
        cls.process = subprocess.Popen(
            [f"{BINARIES}/tesserad", f"--model={ROOT}/models/demo", "--device=cpu",
             "--kv_cache_bytes=64MiB", "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0",
             "--metrics_listen=off", "--http_listen=off", f"--tls_cert={folder}/server.pem",
             f"--tls_key={folder}/server.key", f"--tls_client_ca={folder}/ca.pem",
             f"--token_file={folder}/tokens", "--log_format=json"],
            stderr=subprocess.PIPE, text=True)
        cls.addClassCleanup(cls.stop)
        for line in cls.process.stderr:
            entry = json.loads(line) if line.startswith("{") else {"msg": line}
            if entry["msg"] == "listening":
                cls.addresses = entry
            if entry["msg"] == "serving":
                break
        else:
            raise AssertionError(f"tesserad ended: {entry}")
        cls.channel = cls.connect(cls.addresses["listen"])
        cls.addClassCleanup(cls.channel.close)
        cls.message = staticmethod(learn_protocol(cls.channel, "tessera.v1.Inference",
                                                  "tessera.v1.Tokenizer"))

    @classmethod
    def stop(cls):
        cls.process.kill()
        cls.process.communicate()

    @classmethod
    def connect(cls, address, certificate=True):
        def read(name):
            return pathlib.Path(f"{cls.folder.name}/{name}").read_bytes()
        own = (read("client.key"), read("client.pem")) if certificate else (None, None)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(read("ca.pem"), *own))

    def generate(self, token, **request):
        call = self.channel.unary_stream(
            "/tessera.v1.Inference/Generate",
            request_serializer=self.message("GenerateRequest").SerializeToString,
            response_deserializer=self.message("GenerateResponse").FromString)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        message = json_format.ParseDict(request, self.message("GenerateRequest")())
        return list(call(message, metadata=metadata, timeout=60))

    def refusal(self, *arguments, **more):
        with self.assertRaises(grpc.RpcError) as raised:
            self.generate(*arguments, **more)
        return raised.exception.code()

    def test_an_answer(self):
        events = self.generate("alices-token", content=[{"text": "Hello"}])
        self.assertEqual(events[0].WhichOneof("event"), "accepted")
        self.assertEqual(events[-1].WhichOneof("event"), "finished")
        self.assertLessEqual(events[-1].finished.usage.output_tokens, 4)

    def test_refusals(self):
        hello = {"content": [{"text": "Hello"}]}
        self.assertEqual(self.refusal("", **hello), grpc.StatusCode.UNAUTHENTICATED)
        self.assertEqual(self.refusal("guess", **hello), grpc.StatusCode.UNAUTHENTICATED)
        self.assertEqual(self.refusal("alices-token", stopping={"maxTokens": 5}, **hello),
                         grpc.StatusCode.PERMISSION_DENIED)

    def test_pythons_own_token_credentials(self):
        call = self.channel.unary_unary(
            "/tessera.v1.Tokenizer/Tokenize",
            request_serializer=self.message("TokenizeRequest").SerializeToString,
            response_deserializer=self.message("TokenizeResponse").FromString)
        response = call(self.message("TokenizeRequest")(text="Hello"), timeout=60,
                        credentials=grpc.access_token_call_credentials("alices-token"))
        self.assertGreater(len(response.ids), 0)

    def test_health_by_the_official_stubs(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", "live", "tessera.v1.Inference"):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            self.assertEqual(reply.status, serving, service)
        with self.assertRaises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=60)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        self.assertEqual(next(watch).status, serving)
        watch.cancel()

    def test_a_stranger_without_a_certificate(self):
        channel = self.connect(self.addresses["listen"], certificate=False)
        with self.assertRaises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=1)
        channel.close()

    def test_control_is_for_operators(self):
        channel = self.connect(self.addresses["admin_listen"])
        load = channel.unary_unary("/tessera.v1.Control/GetLoad")  # bytes in, bytes out
        for token, code in (("alices-token", grpc.StatusCode.PERMISSION_DENIED),
                            ("operators", None)):
            metadata = [("authorization", f"Bearer {token}")]
            if code is None:
                self.assertIsInstance(load(b"", metadata=metadata, timeout=60), bytes)
                continue
            with self.assertRaises(grpc.RpcError) as raised:
                load(b"", metadata=metadata, timeout=60)
            self.assertEqual(raised.exception.code(), code)
        channel.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
