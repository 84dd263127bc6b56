#!/usr/bin/env python3
"""stunetd's trainer beside nnU-Net v2's loop: same network, batch, loss, optimiser, threads and machine, one after the other.

    benches/peers/train.py [--size demo|S|B] [--classes 105] [--patch 64 64 64] [--batch 2] [--threads N] [--steps 8] [--rounds 2] [--precision f32|bf16] [--json]

Prints seconds per optimiser step (the fastest of all steps but the first two of a round, so that other work on the machine
counts least) and the peak memory of the process. The reference's step is its `train_step` on the CPU: forward, compound loss with deep
supervision, backward, clipping, SGD, in f32 (it uses mixed precision on CUDA only); its batch lies ready in memory, without augmentation. Ours is the whole worker process: its
batches are cut and augmented by its own threads meanwhile. Needs `make build`, shared/ beside the repository and benches/peers/setup.sh.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("STUNETD_SHARED", ROOT.parent / "shared"))
PYTHON = Path(os.environ.get("STUNETD_PEERS", ROOT / "third_party/peers")) / "bin/python"
STUNETD = ROOT / "target/release/stunetd"
DIMS = {"demo": [4, 8, 12, 16, 16, 16], "S": [16, 32, 64, 128, 256, 256], "B": [32, 64, 128, 256, 512, 512]}
POOLS = [[2, 2, 2]] * 4 + [[1, 1, 2]]


def reference(a):
    """In a process of its own: the reference's steps, as lines of seconds."""
    sys.path.insert(0, str(SHARED / "tools/bench"))
    import numpy as np, torch
    from stunet_plain import STUNetPlain
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    net = STUNetPlain(1, a.classes, dims=DIMS[a.size], pool_op_kernel_sizes=POOLS, deep_supervision=True)
    net.apply(net.initialize)
    loss = DC_and_CE_loss({"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, weight_ce=1, weight_dice=1,
                          ignore_label=None, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1 / 2**i for i in range(5)])
    weights[-1] = 0
    loss = DeepSupervisionWrapper(loss, weights / weights.sum())
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    x = torch.randn(a.batch, 1, *a.patch)
    targets = [torch.randint(0, a.classes, (a.batch, 1, *[n // 2**i for n in a.patch])).float() for i in range(5)]
    for _ in range(a.steps):
        start = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        value = loss(net(x), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12)
        optimizer.step()
        value.item()
        print(time.monotonic() - start, flush=True)


def prepare(a, folder):
    """A run of ours in `folder`, with noise as its only case."""
    code = f"""
import sys; sys.path.insert(0, {str(SHARED / 'tools/bench')!r})
import numpy as np, torch
from safetensors.numpy import save_file
from stunet_plain import STUNetPlain
torch.manual_seed(0)
net = STUNetPlain(1, {a.classes}, dims={DIMS[a.size]}, pool_op_kernel_sizes={POOLS}, deep_supervision=True)
net.apply(net.initialize)
save_file({{k: v.numpy() for k, v in net.state_dict().items()}}, {str(folder / 'start.safetensors')!r})
shape = [int(1.6 * n) for n in {a.patch}]
rng = np.random.default_rng(0)
labels = rng.integers(0, {a.classes}, shape).astype(np.uint16)
arrays = {{'image': rng.normal(size=[1] + shape).astype(np.float32), 'labels': labels}}
for c in range(1, {a.classes}):
    arrays[f'voxels.{{c}}'] = np.flatnonzero(labels == c)[:100].astype(np.uint32)
save_file(arrays, {str(folder / 'curated/a.safetensors')!r}, {{'allowed': ' '.join(map(str, range({a.classes})))}})
"""
    (folder / "curated").mkdir(parents=True)
    subprocess.run([PYTHON, "-c", code], check=True)
    listed = lambda v: json.dumps(v)
    (folder / "run.toml").write_text(f"""
schema = 1
seed = 1
epochs = 1
iterations = {a.steps}
batch = {a.batch}
patch = {listed(a.patch)}
learning_rate = 0.01
precision = "{a.precision}"
checkpoint_steps = 1000000
mirror = [true, true, true]
masked = [false]
counting = "sample"
flavour = "v2"
[optimizer]
momentum = 0.99
weight_decay = 3e-5
clip = 12.0
decay_untrained = true
[against_forgetting]
rehearsal_share = 0.0
l2_sp = 0.0
distillation = 0.0
average = 0.0
[architecture]
in_channels = 1
num_classes = {a.classes}
dims = {listed(DIMS[a.size])}
depth = [1, 1, 1, 1, 1, 1]
kernels = {listed([[3, 3, 3]] * 6)}
strides = {listed(POOLS)}
""")


def measure(command, seconds_of):
    """The fastest step and the peak MB of a command that prints a line a step."""
    child = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    steps = [s for s in map(seconds_of, child.stdout) if s is not None]
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return min(steps[2:]), usage.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", choices=DIMS, default="S")
    p.add_argument("--classes", type=int, default=105)
    p.add_argument("--patch", type=int, nargs=3, default=[64, 64, 64])
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of ours")
    p.add_argument("--json", action="store_true")
    p.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.reference:
        return reference(a)
    import tempfile
    same = ["--size", a.size, "--classes", a.classes, "--patch", *a.patch, "--batch", a.batch, "--threads", a.threads, "--steps", a.steps]
    event = lambda line: (lambda e: e["seconds"] if e["event"] == "step" else None)(json.loads(line))
    ours, theirs = [], []
    for _ in range(a.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            prepare(a, run)
            ours.append(measure([STUNETD, "train-worker", "--run", run, "--threads", a.threads], event))
        theirs.append(measure([PYTHON, __file__, "--reference", *same], float))
    (us, our_mb), (them, their_mb) = min(ours), min(theirs)
    result = {"size": a.size, "classes": a.classes, "patch": a.patch, "batch": a.batch, "threads": a.threads, "precision": a.precision,
              "stunetd": {"seconds": us, "peak_mb": our_mb}, "nnunetv2": {"seconds": them, "peak_mb": their_mb}, "speedup": them / us}
    if a.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{a.size}, {a.classes} classes, patch {a.patch}, batch {a.batch}, {a.threads} threads, ours in {a.precision}")
        print(f"  stunetd    {us:7.3f} s a step   {our_mb:7.0f} MB")
        print(f"  nnunetv2   {them:7.3f} s a step   {their_mb:7.0f} MB")
        print(f"  {them / us:.2f} times as many steps a second")


main()
