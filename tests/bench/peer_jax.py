"""JAX as a peer: a whole epoch is one compiled loop over its batches. With convolutions each batch is a call: inside of
a loop XLA runs them on one thread, several times slower.

    peer_jax.py      requests on standard input, see peer.py

XLA takes its threads from the processors that the process may use, once: start it under as many as it shall have.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from peer import CannotExpress, Request, Step, serve

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "gelu": jax.nn.gelu, "sigmoid": jax.nn.sigmoid}


def parameters(workload: dict) -> list[dict[str, jax.Array]]:
    """One dictionary a layer: empty where there is nothing to train."""
    key = jax.random.key(0)
    shape = list(workload["input"])
    ret: list[dict[str, jax.Array]] = []
    for kind, *rest in workload["layers"]:
        key, own = jax.random.split(key)
        if kind == "dense":
            inputs = math.prod(shape)
            ret.append({"w": jax.random.normal(own, (inputs, rest[0])) / inputs**0.5, "b": jnp.zeros(rest[0])})
            shape = [rest[0]]
        elif kind == "conv2d":
            fan_in = shape[0] * rest[1] ** 2
            w = jax.random.normal(own, (rest[0], shape[0], rest[1], rest[1])) / fan_in**0.5
            ret.append({"w": w, "b": jnp.zeros((rest[0], 1, 1))})
            shape = [rest[0], *shape[1:]]
        elif kind == "batchnorm":
            ret.append({"scale": jnp.ones(shape[0]), "offset": jnp.zeros(shape[0])})
        else:
            if kind == "maxpool2d":
                shape = [shape[0], *(side // rest[0] for side in shape[1:])]
            elif kind not in ACTIVATIONS:
                raise CannotExpress(kind)
            ret.append({})
    return ret


def layer(spec: list, p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    kind, *rest = spec
    if kind == "dense":
        x = x.reshape(len(x), -1) @ p["w"] + p["b"]
        rest = rest[1:]
    elif kind == "conv2d":
        x = lax.conv_general_dilated(x, p["w"], (1, 1), "SAME") + p["b"]
        rest = rest[2:]
    elif kind == "maxpool2d":
        window = (1, 1, rest[0], rest[0])
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        rest = []
    elif kind == "batchnorm":
        mean, variance = x.mean(0), x.var(0)
        x = (x - mean) * lax.rsqrt(variance + 1e-5) * p["scale"] + p["offset"]
    else:
        rest = [kind]
    return ACTIVATIONS[rest[0]](x) if rest else x


def update(optimizer: str, params, grads, state):
    """Adam or SGD with momentum, the state being (step, first moments, second moments or nothing)."""
    step, first, second = state
    if optimizer == "sgd":
        first = jax.tree.map(lambda m, g: 0.9 * m + g, first, grads)
        return jax.tree.map(lambda p, m: p - 1e-2 * m, params, first), (step + 1, first, second)
    step = step + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
    rate, bias = 1e-3 / (1 - 0.9**step), 1 - 0.999**step
    params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v / bias) + 1e-8), params, first, second)
    return params, (step, first, second)


def prepare(request: Request) -> Step:
    workload = request.workload
    size, loop = workload["batch"], workload["rows"] // workload["batch"]
    if any(spec[0] == "conv2d" for spec in workload["layers"]):
        loop = 1
    params = parameters(workload)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (jnp.float32(0), zeros, zeros)
    key = jax.random.key(1)
    x = jax.random.uniform(key, (workload["rows"], *workload["input"]), minval=-1)
    y = jax.random.randint(key, (len(x),), 0, request.classes) if request.classes else jax.random.uniform(key, (len(x), 1))

    def loss(params, inputs, targets):
        for spec, p in zip(workload["layers"], params, strict=True):
            inputs = layer(spec, p, inputs)
        if not request.classes:
            return jnp.mean((inputs - targets) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(inputs), targets[:, None], 1))

    @jax.jit
    def train(params, state, rows):
        def one(carry, batch):
            params, state = carry
            grads = jax.grad(loss)(params, x[batch], y[batch])
            return update(workload["optimizer"], params, grads, state), None

        return one((params, state), rows[0])[0] if loop == 1 else lax.scan(one, (params, state), rows)[0]

    order = jax.jit(lambda key: jax.random.permutation(key, len(x))[: loop * size].reshape(loop, size))

    def step() -> int:
        nonlocal params, state, key
        key, own = jax.random.split(key)
        params, state = train(params, state, order(own))
        jax.block_until_ready(params)
        return loop * size

    return step


jax.config.update("jax_platforms", "cpu")
serve(f"JAX {jax.__version__}", prepare)
