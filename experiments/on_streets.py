"""The small training run that chapters compare things with: the drawn street scenes, as in chapter 00"""
import random

import fastai.callback.progress, fastai.callback.schedule           # give learners `no_bar`, `fit_flat_cos`
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

from segnb.dataloader import SegDataLoaders
from segnb.learner import seg_learner
import segnb.lr_finder, segnb.one_cycle                             # give them our `lr_find`, `fit_one_cycle`
from segnb.streets import streets

ENCODER = 'tf_efficientnet_lite0'
torch.set_num_threads(1)


def streets_loaders(bs=16, **kwargs):
    "240 training and 60 validation images of 96x128; crops of 64x96"
    return SegDataLoaders.from_path(streets(), size=(96,128), crop=(64,96), bs=bs, **kwargs)


def restart(learn, seed):
    "From here on order of the images and crops are those of the seed"
    set_seed(seed)
    learn.dls.train.rng = random.Random(seed)
    return learn


def streets_learner(dls, seed, arch=ENCODER, **kwargs):
    "A learner whose new weights, order of images and crops depend on the seed alone"
    set_seed(seed)
    return restart(seg_learner(dls, arch, **kwargs), seed)


class Epochs(Callback):
    "`rows`: training loss (mean of the epoch's batches), validation loss and metrics after each epoch"
    order = 60                                              # after the recorder
    def before_fit(self): self.rows = []
    def before_train(self): self.sum, self.n = 0., 0
    def after_batch(self):
        if self.training: self.sum, self.n = self.sum+self.loss.item(), self.n+1
    def after_epoch(self):
        names, values = self.recorder.metric_names[2:-1], self.recorder.values[-1][1:]
        last = {n: float(v) for n, v in zip(names, values)}
        self.rows.append(dict(epoch=self.epoch+1, train_loss=self.sum/self.n, **last))


def train(learn, fit):
    "Call `fit(callbacks)` without bars; a row for each epoch. Fewer rows where the loss was not finite."
    epochs = Epochs()
    with learn.no_bar(), learn.no_logging():
        try: fit([epochs])
        except FloatingPointError as e: print(e)
    return epochs.rows


def class_columns(cm):
    "IoU and accuracy of each class as columns of one row"
    return {f'{k} {c}': float(v) for k, of in (('IoU', cm.iou), ('acc', cm.class_acc))
            for c, v in zip(cm.classes, of)}
