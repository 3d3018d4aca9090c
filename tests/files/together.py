"""What two processes compute together, beside the same in one; run by torchrun from test_processes.py"""
import sys

import torch
import torch.distributed as dist

from segnb.core import VOID
from segnb.dataloader import SegDataLoaders
from segnb.learner import seg_learner
from segnb.loss import SegLoss
from segnb.overlap import SigmoidLoss
from segnb.processes import alone
import segnb.one_cycle

first, others = alone()
me, n = dist.get_rank(), dist.get_world_size()
assert others and n == 2


def learner():
    torch.manual_seed(0)
    dls = SegDataLoaders.from_path(sys.argv[1], crop=(64, 64), bs=4, device="cpu")
    return seg_learner(dls, pretrained=False, precision="fp32")


def gradients(learn, loss, x, y, together=True):
    "With batch norm in evaluation mode"
    learn.model.eval()
    learn.model.zero_grad()
    value = loss(learn.model(x), y)
    value.backward()
    if together: learn.processes.after_backward()
    return value.detach(), [p.grad.clone() for p in learn.model.parameters() if p.grad is not None]


learn = learner()
g = torch.Generator().manual_seed(1)
x = torch.rand(4, 3, 64, 64, generator=g)
y = torch.randint(0, 11, (4, 64, 64), generator=g)
y[0], y[1, :60] = VOID, VOID                            # the first process has nearly nothing but void
w = torch.rand(11, generator=g)
losses = {"weights and Dice": (SegLoss(weight=w), y), "focal": (SegLoss(weight=w, gamma=2, dice=0), y), "overlap": (SigmoidLoss(), y.clamp(max=7).where(y != VOID, y))}
half = slice(2*me, 2*me+2)
mine = {k: gradients(learn, loss, x[half], t[half]) for k, (loss, t) in losses.items()}
learn("before_fit")
with learn.no_bar(), learn.no_logging(): scores = learn.validate()
counts = learn.metrics[0].cm.matrix.clone()
with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
weights = torch.cat([p.detach().flatten() for p in learn.model.parameters()])
both = [torch.empty_like(weights) for _ in range(2)]
dist.all_gather(both, weights)
assert torch.equal(*both), "the processes have different weights after training"
drawn = [list(b) for b in learn.dls.train._share(list(learn.dls.train._groups(range(20))))]
dist.barrier()
dist.destroy_process_group()

if first:
    single = learner()
    for k, (loss, t) in losses.items():
        value, grads = gradients(single, loss, x, t, together=False)
        torch.testing.assert_close(mine[k][0], value, msg=k)
        for a, b in zip(mine[k][1], grads): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=k)
    with single.no_bar(), single.no_logging(): alone_scores = single.validate()
    assert list(scores)[1:] == list(alone_scores)[1:], (scores, alone_scores)
    assert abs(scores[0]-alone_scores[0]) < 1e-5 and torch.equal(counts, single.metrics[0].cm.matrix)
    assert drawn == [[0, 1, 2, 3], [8, 9, 10, 11]], drawn
    print("equal", file=sys.stderr)
