"""Networks on data that everybody knows, each from a spec of a few lines, to the accuracy that it should have.

BACKPROPD_TEST_DATA names a folder with mnist/*.gz, iris.csv, letter_recognition.csv, california_housing.csv and
breast_cancer.csv; without it these tests are skipped, and say so."""

import os
import pathlib

import pytest

DATA = pathlib.Path(os.environ.get("BACKPROPD_TEST_DATA") or "/nowhere")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="BACKPROPD_TEST_DATA does not name a folder of published data")

TABLES = {
    "iris": ({"target": "species", "layers": [16], "lr": 0.01, "epochs": 100, "seed": 5}, "val_accuracy", 0.95),
    "letter_recognition": ({"target": "letter", "layers": [256, 128], "batch_size": 64, "epochs": 40},
                           "val_accuracy", 0.95),
    "california_housing": ({"target": "median_house_value", "layers": [128, 64], "batch_size": 64, "epochs": 60},
                           "val_r2", 0.78),
    "breast_cancer": ({"target": "diagnosis", "layers": [32, 16], "epochs": 40}, "val_accuracy", 0.96),
}


def at_the_best(daemon, job, name):
    """Value of a series at the epoch whose weights are handed out."""
    series = daemon.get(f"/v1/jobs/{job['id']}/metrics?names={name}").json()[name]
    return series["value"][series["epoch"].index(job["metrics"]["best"]["epoch"])]


@pytest.mark.parametrize("name", TABLES)
def test_a_table(daemon, name):
    spec, metric, wanted = TABLES[name]
    daemon.curl("-T", str(DATA / f"{name}.csv"), f"/v1/datasets/{name}")
    job = daemon.submit({"dataset": name, **spec})
    ended = daemon.wait(job["id"], patience=600)
    reached = at_the_best(daemon, ended, metric)
    print(f"{name}: {metric} {reached:.4f} in {ended['progress']['training_seconds']:.2f} s")
    assert ended["status"] == "succeeded" and reached >= wanted


@pytest.fixture(scope="module")
def mnist(daemon):
    part = {"inputs": "train-images-idx3", "targets": "train-labels-idx1", "test_inputs": "t10k-images-idx3",
            "test_targets": "t10k-labels-idx1"}
    files = [x for field, name in part.items() for x in ("-F", f"{field}=@{DATA}/mnist/{name}-ubyte.gz")]
    daemon.curl("-F", "name=mnist", *files, "/v1/datasets")
    return daemon


def test_mnist(mnist):
    daemon = mnist
    spec = {"dataset": "mnist", "target": "target", "layers": [512, 256], "optimizer": "adam", "epochs": 15,
            "batch_size": 256, "training": {"early_stopping": {"monitor": "val_accuracy"}}}
    ended = daemon.wait(daemon.submit(spec)["id"], patience=1200)
    reached = ended["metrics"]["last"]["test_accuracy"]
    print(f"mnist: test_accuracy {reached:.4f} in {ended['progress']['training_seconds']:.2f} s")
    assert ended["status"] == "succeeded" and reached >= 0.98
    evaluated = daemon.post(f"/v1/jobs/{ended['id']}/evaluate", json={"split": "test"}).json()
    assert evaluated["rows"] == 10000 and evaluated["metrics"]["accuracy"] == reached
    assert sum(map(sum, evaluated["confusion"]["counts"])) == 10000


def test_attention_reads_mnist_row_by_row(mnist):
    """An image is a sequence of 28 rows; two attention layers with the way round each, and no convolution."""
    daemon = mnist

    def block(i, below):
        return [{"type": "multi_head_attention", "heads": 4, "key_dim": 16, "name": f"look{i}"},
                {"type": "add", "inputs": [f"look{i}", below], "name": f"sum{i}"},
                {"type": "layer_norm", "name": f"norm{i}"}]
    spec = {"dataset": {"name": "mnist", "target": "target", "input_shape": [28, 28], "validation_split": 0.1},
            "layers": [*block(1, "input"), *block(2, "norm1"), "flatten", {"type": "dense", "units": 10}],
            "optimizer": {"type": "adam", "lr": 0.003}, "epochs": 8, "batch_size": 128}
    ended = daemon.wait(daemon.submit(spec)["id"], patience=1200)
    reached = ended["metrics"]["last"]["test_accuracy"]
    print(f"mnist, attention: test_accuracy {reached:.4f} in {ended['progress']['training_seconds']:.2f} s")
    assert ended["status"] == "succeeded" and reached >= 0.96


def test_a_convolutional_network_reads_mnist(mnist):
    """The model of the benchmark's workload mnist-cnn."""
    daemon = mnist

    def conv(filters):
        return [{"type": "conv2d", "filters": filters, "kernel_size": 3, "activation": "relu"}, "max_pool2d"]
    spec = {"dataset": {"name": "mnist", "target": "target", "validation_split": 0.05},
            "layers": [*conv(32), *conv(64), "flatten", 128, {"type": "dense", "units": 10}],
            "optimizer": "adam", "lr_schedule": "cosine", "epochs": 6, "batch_size": 64}
    ended = daemon.wait(daemon.submit(spec)["id"], patience=1800)
    reached = ended["metrics"]["last"]["test_accuracy"]
    print(f"mnist, convolutions: test_accuracy {reached:.4f} in {ended['progress']['training_seconds']:.2f} s")
    assert ended["status"] == "succeeded" and reached >= 0.99
