"""JAX alone: `python examples/jax_only.py STORE SHARDS`.

Views and labels come as arrays; the student is JAX's: pure functions, two heads on one hidden layer, DeiT's loss.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import distillcache as dc

EPOCHS, BATCH_SIZE, LR, SIDE, WIDTH = 3, 8, 0.1, 8, 64
Params = dict[str, jax.Array]


def start(classes: int, seed: int = 0) -> Params:
    """Return the weights to begin with: of the hidden layer, of the class head and of the distillation head."""
    layers = {"hidden": (SIDE * SIDE * 3, WIDTH), "class": (WIDTH, classes), "distill": (WIDTH, classes)}
    keys = jax.random.split(jax.random.key(seed), len(layers))
    return {
        name: jax.random.normal(key, shape) * shape[0] ** -0.5
        for key, (name, shape) in zip(keys, layers.items(), strict=True)
    }


def logits_of(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the logits (n, classes) of both heads, from uint8 views (n, height, width, 3)."""
    n, height, width, channels = images.shape
    x = images[:, : height // SIDE * SIDE, : width // SIDE * SIDE].astype(jnp.float32) / 127.5 - 1
    x = x.reshape(n, SIDE, height // SIDE, SIDE, width // SIDE, channels).mean((2, 4)).reshape(n, -1)
    hidden = jnp.tanh(x @ params["hidden"])
    return hidden @ params["class"], hidden @ params["distill"]


def loss_of(params: Params, images: jax.Array, soft_target: jax.Array, teacher_label: jax.Array) -> jax.Array:
    """Return half of the class head's cross-entropy and half of the distillation head's with the teacher's label."""
    of_class, distill = (jax.nn.log_softmax(logits) for logits in logits_of(params, images))
    target = -(soft_target * of_class).sum(1).mean()
    teacher = -jnp.take_along_axis(distill, teacher_label[:, None], 1).mean()
    return (target + teacher) / 2


@jax.jit
def step(params: Params, *batch: jax.Array) -> tuple[Params, jax.Array]:
    """Return the weights after a step of gradient descent, and the loss before it."""
    loss, gradient = jax.value_and_grad(loss_of)(params, *batch)
    return jax.tree.map(lambda weight, slope: weight - LR * slope, params, gradient), loss


def main(cache: str, shards: str) -> list[float]:
    """Train for a few epochs; return the loss of each step."""
    store = dc.open_store(cache)
    print(f"the teacher agrees with the ground truth on {store.agreement():.1%} of the views")
    dataset = dc.ViewDataset(store, shards, batch_size=BATCH_SIZE, layout="channels_last")
    params, losses = start(dataset.classes), []
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for batch in dataset:
            arrays = (np.asarray(batch[name]) for name in ("image", "soft_target", "teacher_label"))
            params, loss = step(params, *arrays)
            losses.append(float(loss))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
