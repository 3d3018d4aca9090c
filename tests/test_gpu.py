"""What a GPU would have to wait for. There need not be one: torch's fake tensors say that they are on `cuda`, go through
the same code, and refuse what would read a number or mix devices. With a GPU the tests at the end run as well."""
import contextlib
import io

import pytest
import torch
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import segnb.augment
import segnb.dataloader
from segnb.augment import SegAugment
from segnb.dataloader import SegDataLoaders
from segnb.fuse import fuse
from segnb.learner import seg_learner
from segnb.metrics import ConfusionMatrix
from segnb.model_file import SegModel, tiled
from segnb.overlap import OverlapMatrix
from segnb.training import FiniteLoss
from segnb.unet import UNet

aten = torch.ops.aten
reads = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.bincount.default,
         aten.equal.default, aten.is_nonzero.default}


class Waits(TorchDispatchMode):
    "Writes down what the CPU would wait for: numbers that are read, copies from and to the GPU that nothing goes on beside"
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in reads: self.seen.append(str(func))
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            for i in args[1]:
                if i is None: continue
                if i.dtype in (torch.bool, torch.uint8): self.seen.append("index with a mask")
                if i.device != args[0].device: self.seen.append("index from the CPU")
        if func in (aten._to_copy.default, aten.copy_.default):
            come, go = (args[0], out) if func == aten._to_copy.default else (args[1], args[0])
            if come.is_cuda and not go.is_cuda: self.seen.append("copied to the CPU")
            waits = not kwargs.get("non_blocking", len(args) > 2 and args[2])
            if go.is_cuda and not come.is_cuda and waits: self.seen.append("copied to the GPU, waiting")
        return out


def on_fake_gpu(module):
    "Its parameters and buffers on a GPU that is not there"
    fake = lambda t: torch.empty(t.shape, dtype=t.dtype, device="cuda")
    for m in module.modules():
        for k, p in list(m._parameters.items()):
            if p is not None: m._parameters[k] = nn.Parameter(fake(p), requires_grad=p.requires_grad)
        for k, b in list(m._buffers.items()):
            if b is not None: m._buffers[k] = fake(b)
    return module


@pytest.fixture
def learn(small_set):
    dls = SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device="cpu")
    return seg_learner(dls, pretrained=False, precision="fp32")


@pytest.fixture
def gpu(monkeypatch):
    "A pretended GPU, and what it would be waited for"
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (80 << 30, 80 << 30))
    # fake tensors cannot be fastai's kinds of tensors as well
    monkeypatch.setattr(torch.Tensor, "as_subclass", lambda self, kind: self)
    for module in (segnb.augment, segnb.dataloader):
        for kind in ("TensorImage", "TensorMask"): monkeypatch.setattr(module, kind, lambda t: t)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits: yield waits.seen


def pretend(dl, gpu):
    "A loader whose frames are on the pretended GPU"
    frames = dl.dataset
    frames.on_gpu = {torch.device("cuda"): tuple(torch.empty(r.shape, dtype=r.dtype, device="cuda") for r in (frames.x_row, frames.y_row))}
    dl.device = torch.device("cuda")
    return dl


def batch(dl, idxs=(0, 1, 2, 3)): return next(dl.create_batches(list(idxs)))


def step(learn, b, training):
    "A batch through fastai's loop, callbacks and all; the backward pass needs a real device"
    learn.dl, learn.training, learn.n_iter, learn.epoch, learn.n_epoch, learn.pct_train = learn.dls[0 if training else 1], training, 10, 0, 1, 0.
    learn.model.train(training)
    learn._backward = lambda: None
    learn.one_batch(0, b)


def test_the_watch_sees_reads_and_copies(gpu):
    x = torch.zeros(3, device="cuda")
    x.cpu()
    torch.zeros(3).to("cuda")
    x[torch.zeros(1, dtype=torch.long)]
    assert gpu == ["copied to the CPU", "copied to the GPU, waiting", "index from the CPU"]
    for read in (lambda: x[0].item(), lambda: bool(x[0] > 0), lambda: x[x > 0], lambda: x.nonzero(), lambda: x.long().bincount()):
        with pytest.raises(Exception, match="aten|data-dependent|Dynamic"): read()
    with pytest.raises(Exception, match="same device"): x+torch.zeros(3)


@pytest.mark.parametrize("settings", [{}, dict(max_rotate=10, dihedral=True), dict(focus=[3, 8]), dict(max_warp=.2, elastic=3, focus=[3])])
def test_a_batch_is_drawn_and_cropped_without_waiting(learn, gpu, settings):
    dl = pretend(learn.dls.train, gpu)
    dl.augment = SegAugment((64, 64), **settings)
    x, y = batch(dl)
    assert x.is_cuda and y.is_cuda and x.shape == (4, 3, 64, 64) and not gpu


def test_frames_of_several_sizes(learn, gpu):
    dl = pretend(learn.dls.train, gpu)
    dl.dataset.same_size = False
    assert batch(dl)[0].is_cuda and not gpu


def fitting(learn, gpu):
    "The learner as it is in a training run"
    for dl in learn.dls: pretend(dl, gpu)
    on_fake_gpu(learn.model).to = lambda device: learn.model
    on_fake_gpu(learn.loss_func).to = lambda device: learn.loss_func
    learn.create_opt()
    learn.remove_cb(learn.progress)
    for p in learn.model.parameters():
        if p.requires_grad: p.grad = torch.empty(p.shape, device="cuda")
    learn.opt.set_hypers(lr=1e-3)
    with contextlib.redirect_stdout(io.StringIO()): learn("before_fit")
    learn("before_epoch")
    gpu.clear()
    return learn


def test_a_training_step(learn, gpu):
    fitting(learn, gpu)
    learn("before_train")
    for _ in range(2): step(learn, batch(learn.dls.train), True)
    assert learn.loss.is_cuda and learn.recorder.losses[-1].is_cuda and learn.opt.all_params()[0][2] and not gpu


def test_a_validation_batch(learn, gpu):
    fitting(learn, gpu)
    learn("before_validate")
    for _ in range(2): step(learn, batch(learn.dls.valid, range(2)), False)
    assert learn.metrics[0].cm._counts.is_cuda and learn.recorder.loss.total.is_cuda and not gpu


def test_a_prediction_of_ten_tiles(learn, gpu):
    model = SegModel(on_fake_gpu(learn.model), learn.dls.codes, size=(64, 64), half=False)
    x = torch.empty(1, 3, 64, 496, dtype=torch.uint8)
    calls = []
    predict = lambda t: (calls.append(len(t)), model.probs(t.float()/255))[1]
    masks = [model.decide(p) for p in tiled(predict, x, (64, 64), device=model.device)]
    assert sum(calls) == 10 and len(calls) == 2 and masks[0].is_cuda and not gpu


def test_overlapping_classes_are_counted_without_waiting(gpu):
    cm = OverlapMatrix(3).add(torch.empty(2, 3, 8, 8, device="cuda"), torch.empty(2, 8, 8, dtype=torch.uint8, device="cuda"))
    assert cm._counts.is_cuda and not gpu


def test_a_whole_step_reads_nothing_on_the_cpu_either(learn):
    "The backward pass and the optimiser, which the pretended GPU cannot run; FiniteLoss may read, as that costs nothing here"
    learn.remove_cb(FiniteLoss)
    learn.remove_cb(learn.progress)
    found = []

    class Watch(Waits):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in reads: found.append(str(func))
            return func(*args, **(kwargs or {}))
    learn.create_opt()
    with learn.no_logging(): learn.fit(1, 1e-3)
    learn("before_fit")
    learn("before_epoch")
    learn("before_train")
    learn.dl, learn.training = learn.dls.train, True
    b = learn.dls.train.one_batch()
    learn.model.train()
    with Watch(): learn.one_batch(0, b)
    assert not found


def test_what_is_counted_on_a_gpu_is_checked_when_it_is_read():
    cm = ConfusionMatrix(2)
    cm._counts = torch.tensor([5, 0, 0, 3, 2, 0])                            # four bins, void, classes that are none
    assert cm.matrix.tolist() == [[5, 0], [0, 3]]
    cm._counts[-1] = 7
    with pytest.raises(ValueError, match="7 pixels have a class outside 0 to 1, in a matrix of 2"): cm.matrix


def test_a_loss_that_is_no_number_is_found_late_and_named(learn, monkeypatch):
    "As on a GPU, where it is looked at once in fifty batches"
    cb = learn.finite_loss
    monkeypatch.setattr(FiniteLoss, "after_loss", lambda self: self.seen.append(
        (torch.tensor(float("nan") if self.iter == 1 else 1.), self.iter+1, 1e-3, [0, 2])))
    with pytest.raises(FloatingPointError, match="batch 2, at a learning rate of 0.001, with the images .*Steps were taken"):
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert cb.seen == []


def test_tiles_in_batches_are_blended_alike():
    x = torch.rand(1, 3, 90, 200)
    predict = lambda t: torch.stack([t.mean(1), t.amax(1)], 1)*torch.linspace(1, 2, t.shape[-1])
    one, four = (torch.cat(list(tiled(predict, x, (48, 64), bs=n)), -2) for n in (1, 4))
    assert torch.equal(one, four)


def test_what_was_folded_is_kept_until_something_changes(learn):
    from segnb.fuse import FusedConv
    model, x = learn.model.eval(), torch.rand(1, 3, 64, 64)
    convs = [m for m in model.modules() if isinstance(m, FusedConv) and m.norms]
    with torch.inference_mode(): first = model(x)
    kept = [m.kept for m in convs]
    with torch.inference_mode(): again = model(x)
    assert all(m.kept is k for m, k in zip(convs, kept)) and torch.equal(first, again)
    with torch.no_grad(): convs[-1].norms[0].running_mean += 1
    with torch.inference_mode(): moved = model(x)
    assert not torch.equal(first, moved) and convs[-1].kept is not kept[-1] and convs[0].kept is kept[0]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for k in state:
        if k.endswith("running_mean"): state[k] += .1
    model.load_state_dict(state)
    with torch.inference_mode(): loaded = model(x)
    assert not torch.equal(moved, loaded)
    model.train().eval()
    assert convs[0].kept is None
    with torch.inference_mode(): assert torch.equal(model(x), loaded)


def test_gradients_go_through_what_is_folded(learn):
    model, x = learn.model.eval(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode(): model(x)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_16_bits_by_what_the_gpu_has(monkeypatch):
    from segnb.core import half_dtype
    for native, capability, is_half in ((True, (8, 0), torch.bfloat16), (False, (7, 5), torch.float16), (False, (6, 1), None)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        assert half_dtype("cuda") == is_half


def test_fp16_is_for_gpus(small_set):
    dls = SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device="cpu")
    with pytest.raises(ValueError, match="precision='fp16' is for GPUs"): seg_learner(dls, pretrained=False, precision="fp16")
    learn = seg_learner(dls, pretrained=False, precision="bf16").to_fp16()
    assert sum(cb.name in ("bfloat16", "mixed_precision") for cb in learn.cbs) == 1


def test_compiled():
    "`learn.model.compile()` is torch's; the network goes through it in one piece of the same result"
    model, x = fuse(UNet(3, 4, width=4, depth=2, pad=True, norm=True)).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        want = model(x)
        model.compile(backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(model(x), want, rtol=1e-3, atol=1e-4)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def run(small_set, device, precision="fp32", epochs=2, **kwargs):
    torch.manual_seed(0)
    dls = SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device=device)
    dls.train.rng.seed(0)
    learn = seg_learner(dls, precision=precision)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 2e-3, **kwargs)
    return learn


@cuda
def test_a_step_never_waits_for_the_gpu(small_set):
    dls = SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device="cuda")
    learn = seg_learner(dls)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
        learn("before_fit")
        learn("before_epoch")
        learn("before_train")
        torch.cuda.set_sync_debug_mode("error")
        try:
            learn.dl, learn.training = dls.train, True
            learn.model.train()
            for b in dls.train: learn.one_batch(0, b)
        finally: torch.cuda.set_sync_debug_mode("default")


@cuda
def test_cpu_and_gpu_train_alike(small_set):
    "The same numbers are drawn, so the runs differ by rounding alone"
    on_cpu, on_gpu = (run(small_set, d) for d in ("cpu", "cuda"))
    first = [torch.stack([torch.as_tensor(v) for v in o.recorder.losses[:3]]) for o in (on_cpu, on_gpu)]
    torch.testing.assert_close(*first, rtol=1e-2, atol=1e-2)


@cuda
def test_resume_on_a_gpu_with_deterministic_algorithms(small_set, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        a, b = (run(small_set, "cuda", resume=tmp_path / str(k)) for k in range(2))
    finally: torch.use_deterministic_algorithms(False)
    for p, q in zip(a.model.state_dict().values(), b.model.state_dict().values()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_the_losses_of_a_second_epoch(learn, gpu, monkeypatch):
    "Those of the first are on the CPU by then; fake tensors would be put together all the same"
    stack = torch.stack
    def strict(ts, *args):
        assert len({t.device.type for t in ts}) == 1, "losses on two devices"
        return stack(ts, *args)
    monkeypatch.setattr(torch, "stack", strict)
    check = learn.cbs.filter(lambda cb: isinstance(cb, FiniteLoss))[0]
    check.seen = []
    early, new = [torch.tensor(1.), torch.tensor(2.)], [torch.zeros((), device="cuda") for _ in range(3)]
    learn.recorder.losses = early+new
    check.after_train()
    assert [t.device.type for t in learn.recorder.losses] == ["cpu"]*5 and all(a is b for a, b in zip(learn.recorder.losses, early))
    check.after_train()
    assert len(learn.recorder.losses) == 5
