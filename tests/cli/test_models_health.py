"""`models` and `health`."""

from deepseek_grpc.testing import FakeServer
from tests.cli.running import events, run


def test_models(fake):
    done = run("models", env=fake.environ)
    assert (done.returncode, done.stdout) == (0, "fake  scripted  Says what a test tells it to.\n")
    (model,) = events(run("models", "--json", env=fake.environ))
    assert (model["type"], model["id"], model["aliases"]) == ("model", "fake", [])


def test_health(fake):
    done = run("health", env=fake.environ)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    named = run("health", "deepseek_rpc.v2.TextService", "--json", env=fake.environ)
    assert events(named) == [{"type": "health", "service": "deepseek_rpc.v2.TextService", "status": "SERVING"}]


def test_health_of_what_does_not_serve(fake):
    fake.set_serving(False, "tests.Sick")
    done = run("health", "tests.Sick", env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (1, "NOT_SERVING\n", "")
    assert run("health", "tests.Nobody", env=fake.environ).returncode == 4
    assert run("health", "--target", "127.0.0.1:1", env=fake.environ).returncode == 5


def test_health_of_a_gateway_that_as_a_whole_does_not_serve():
    with FakeServer() as fake:
        fake.set_serving(False)
        done = run("health", env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (1, "NOT_SERVING\n", "")
